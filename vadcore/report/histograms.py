"""Histograms of a system's scores: held-out normal footage, normal test frames, abnormal test frames."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.columns import significant
from vadcore.report.load import System

BARS = 60
HIGHEST = 99.5  # percentile of the scores; the last bar starts there (or at the threshold) at the latest, open-ended


def histogram(system: System) -> dict | None:
    """Return one chart of all classes, each in percent of its own frames. None if no frame has a finite score."""
    frames = system.frames.dropna(subset="score")
    scores, threshold = frames["score"].to_numpy(np.float64), system.row.get("threshold")
    if not np.isfinite(scores).any():
        return None
    edges = _edges(scores, system.calibration, threshold)
    classes = [("h0", "held-out normal footage", _val(system.calibration, edges))]
    if system.labelled:
        classes += [
            (style, name, _shares(scores[frames["label"].to_numpy() == label], edges))
            for style, name, label in (("h1", "normal test frames", 0), ("h2", "abnormal test frames", 1))
        ]
    else:
        classes.append(("h1", "test frames", _shares(scores, edges)))
    classes = [(style, name, shares) for style, name, shares in classes if shares is not None]
    mark = None if threshold is None else float(np.clip((threshold - edges[0]) / (edges[-1] - edges[0]), 0, 1) * 1000)
    svg, top = charts.steps([(style, shares) for style, _, shares in classes], mark)
    return {
        "svg": Markup(svg),
        "from": float(edges[0]),
        "to": float(edges[-1]),
        "first": significant(float(edges[0])),
        "last": significant(float(edges[-1])),
        "high": f"{top:.0f} %" if top >= 10 else f"{top:.1f} %",
        "classes": [(style, name) for style, name, _ in classes],
    }


def _edges(scores: np.ndarray, calibration: dict, threshold: float | None) -> np.ndarray:
    """Return the edges of the bars, from the lowest finite score to the 99.5th percentile or a higher threshold."""
    val = np.asarray(calibration.get("scores", ()), np.float64)
    scores = scores[np.isfinite(scores)]
    every = np.concatenate((scores, val))
    high = max(float(np.percentile(scores, HIGHEST)), -np.inf if threshold is None else threshold)
    low = float(every.min())
    air = (high - low) / BARS or 0.5
    return np.linspace(low, high + air, BARS + 1)


def _shares(scores: np.ndarray, edges: np.ndarray) -> np.ndarray | None:
    """Return the percentage of scores in each bar, or None without scores. The first and last bar are open-ended."""
    if not len(scores):
        return None
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return 100 * counts / len(scores)


def _val(calibration: dict, edges: np.ndarray) -> np.ndarray | None:
    """Return the same percentages for the held-out scores, from the counts above selected scores in the calibration."""
    if not calibration.get("scores"):
        return None
    kept, above, frames = (calibration[key] for key in ("scores", "above", "frames"))
    # count of scores at or above an edge: frames above the last stored score below the edge
    at_least = np.concatenate(([frames], above))[np.searchsorted(kept, edges)]
    at_least[-1] = 0
    return -100 * np.diff(at_least.astype(np.float64)) / frames
