"""Draw line charts as inline SVG that the page's script can read values from.

A chart is stretched to the available width, so its coordinates are data values: x is the frame number, the iteration or
1000 times the false positive rate; y runs from 0 (top, ``high``) to 1000 (bottom, ``low``). If the frames of a clip have
times of their own, x is the time in frame periods. The script reads values from the paths. For timelines it reads
separately stored scores instead, because the path of a long timeline has fewer points than frames. All text around a chart
is HTML.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from vadcore.evaluation.events import times_of
from vadcore.report.load import System
from vadcore.report.text import intervals
from vadcore.utils.times import shown

HEIGHT = 1000  # units of y
DOTS = 24  # largest number of points for which a curve shows a dot at each
BUCKETS = 240  # a curve keeps the lowest and highest point of each bucket, about one bucket per pixel of a card
LOGARITHMIC = 20  # axis of positive values whose highest is more than this many times the lowest
MOST_SCORES = 1_000_000  # largest number of readable scores per data set in the page
BARS = 60  # of a histogram
HIGHEST = 99.5  # percentile of the scores; the last bar starts there (or at the threshold) at the latest, open-ended


def thin(x: np.ndarray, y: np.ndarray, buckets: int = BUCKETS) -> np.ndarray:
    """Downsample a curve for drawing without losing peaks.

    Parameters
    ----------
    x, y: ``[T]`` without NaN, x increasing.
    buckets: number of equal parts of the x range. Each part keeps its lowest and its highest point.

    Returns
    -------
    Increasing indices of the points to draw, at most ``2 * buckets + 2``. The first and last point are always included.
    """
    if len(x) <= 2 * buckets:
        return np.arange(len(x))
    part = ((x - x[0]) * buckets // (x[-1] - x[0] + 1)).astype(int)
    order = np.lexsort((y, part))
    starts = np.flatnonzero(np.diff(part[order], prepend=-1))
    ends = np.append(starts[1:], len(order)) - 1
    return np.unique(np.concatenate((order[starts], order[ends], [0, len(x) - 1])))


def path(x: np.ndarray, y: np.ndarray, low: float, high: float, buckets: int = BUCKETS) -> str:
    """Return the ``d`` attribute of an SVG path through integer x and y, downsampled. NaN in y interrupts the line.

    Each piece starts with an absolute ``M x y``; the following points are relative, which takes about five bytes per
    point.
    """
    x, y = np.asarray(x).astype(np.int64), np.asarray(y, dtype=np.float64)
    known = np.isfinite(y)
    pieces = []
    for piece in np.split(np.arange(len(x)), np.flatnonzero(np.diff(known.astype(int))) + 1):
        if not len(piece) or not known[piece[0]]:
            continue
        px, py = x[piece], y[piece]
        keep = thin(px, py, max(2, round(buckets * len(piece) / len(x))))
        px, py = px[keep], height_of(py[keep], low, high)
        flat = np.zeros(len(px), bool)
        flat[1:-1] = (py[1:-1] == py[:-2]) & (py[1:-1] == py[2:])  # of a flat stretch keep only the ends
        px, py = px[~flat], py[~flat]
        steps = "".join(f"{dx} {dy} " for dx, dy in zip(np.diff(px), np.diff(py), strict=True)).replace(" -", "-")
        # A single scored frame is drawn as a line of length 0, which round caps turn into a dot.
        pieces.append(f"M{px[0]} {py[0]}l{steps.rstrip() or '0 0'}")
    return "".join(pieces)


def height_of(value: float | np.ndarray, low: float, high: float) -> Any:
    """Map a value or an array to y: 0 at ``high``, 1000 at ``low``; int64 of the same shape."""
    return np.rint((high - np.asarray(value, dtype=np.float64)) / (high - low) * HEIGHT).astype(np.int64)


def score_range(scores: np.ndarray, threshold: float | None) -> tuple[float, float]:
    """Return (low, high) of an axis that contains all scores and the threshold, with a margin of 4 % at both ends."""
    values = np.asarray(scores, dtype=np.float64)
    values = values[np.isfinite(values)]
    if threshold is not None:
        values = np.append(values, threshold)
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    air = 0.04 * (high - low) or 0.5
    return low - air, high + air


def frames_per_score(scores: int, most: int = MOST_SCORES) -> int:
    """Return how many frames share one readable score if a data set has ``scores`` over all clips and systems."""
    return max(1, -(-scores // most))


def pack_scores(frames: np.ndarray, scores: np.ndarray, threshold: float | None, every: int) -> str:
    """Encode the highest score of every ``every`` frames as little-endian float32 in base64.

    A million scores take 5 MB of the page. For more footage, one number is the highest score of several frames, so that the
    peak score of every alarm is kept. The page shows the range of frames.

    Parameters
    ----------
    frames, scores: ``[T]``, frame numbers increasing. NaN or a missing frame number = not scored.
    threshold: rounding to float32 never moves a score across it.
    every: 1 or more. The last number may cover fewer frames.

    Returns
    -------
    One number per ``every`` frames, from the first to the last. NaN where no frame was scored.
    """
    frames, scores = np.asarray(frames, np.int64), np.asarray(scores, np.float64)
    highest = np.full((frames[-1] - frames[0]) // every + 1, np.nan)
    np.fmax.at(highest, (frames - frames[0]) // every, scores)
    rounded = highest.astype("<f4")
    if threshold is not None:
        over = highest >= threshold
        crossed = (rounded.astype(np.float64) >= threshold) != over
        rounded[crossed] = np.nextafter(rounded[crossed], np.where(over[crossed], np.inf, -np.inf).astype("<f4"))
    return base64.b64encode(rounded.tobytes()).decode()


def _positions(frames: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each frame on the axis of a timeline, int ``[T]``, in frame periods from frame 0.

    frames: rows of frames.parquet for one clip, sorted by frame. Without times of its own, frame i is at i.
    """
    fps, seconds = times_of(frames)
    if seconds is None:
        return frames["frame"].to_numpy(), frames["frame"].to_numpy() + 1
    starts, stops = shown(len(seconds), fps, seconds)
    at = np.rint(starts).astype(np.int64)
    return at, np.maximum(at + 1, np.rint(stops).astype(np.int64))


def duration(frames: pd.DataFrame) -> float:
    """Seconds from the first to the end of the last of these rows of frames.parquet for one clip, pauses included."""
    starts, stops = _positions(frames)
    return float(stops[-1] - starts[0]) / float(frames["fps"].iloc[0])


def pack_times(frames: pd.DataFrame, every: int) -> str | None:
    """Encode the axis position of every ``every``-th frame as little-endian int32 in base64, for the script.

    None if frame i is at i. frames: rows of frames.parquet for one clip, sorted by frame.
    """
    if times_of(frames)[1] is None:
        return None
    return base64.b64encode(_positions(frames)[0][::every].astype("<i4").tobytes()).decode()


def timeline(
    frames: pd.DataFrame, events: pd.DataFrame, threshold: float | None, low: float, high: float, every: int = 1
) -> Markup:
    """Draw one system's scores over one clip.

    Parameters
    ----------
    frames: rows of frames.parquet for this clip, sorted by frame.
    events: rows of events.csv for this clip.
    threshold: drawn as a dashed line. None draws no line.
    low, high: ends of the score axis, the same for all clips of a system.
    every: number of frames per readable score. The highest score of each group of frames is used.
    """
    number, score = frames["frame"].to_numpy(), frames["score"].to_numpy()
    starts, stops = _positions(frames)
    first, width = starts[0], stops[-1] - starts[0]

    def bar(style: str, start: int, end: int, y: int) -> str:
        # A frame at x covers x - 0.5 .. x + 0.5, with its score in the middle.
        left, right = starts[np.searchsorted(number, start)], stops[np.searchsorted(number, end)]
        return f'<rect class="{style}" x="{left - 0.5}" y="{y}" width="{right - left}" height="{HEIGHT - y}"/>'

    shades = [bar("truth", start, end, 0) for start, end in intervals(number, frames["label"].to_numpy())]
    alarms = [
        bar("alarm", start, end, HEIGHT - 70)
        for start, end in zip(events["start_frame"].astype(int), events["end_frame"].astype(int), strict=True)
    ]
    read, line = {"scores": pack_scores(number, score, threshold, every)}, []
    if threshold is not None:
        read["threshold"] = repr(float(threshold))
        y = height_of(threshold, low, high)
        line = [f'<line class="thr" x1="{first - 0.5}" y1="{y}" x2="{first - 0.5 + width}" y2="{y}"/>']
    pauses = np.flatnonzero((starts[1:] > stops[:-1]) & (np.diff(number) == 1)) + 1
    curve = [f'<path d="{path(np.insert(starts, pauses, 0), np.insert(score, pauses, np.nan), low, high)}"/>']
    return _svg("tl", f"{first - 0.5} 0 {width} {HEIGHT}", [*shades, *alarms, *line, *curve], low, high, read)


def roc(group: list[System]) -> Markup | None:
    """Draw the ROC curves of several systems in one chart. None if no system has a curve.

    A dot marks the threshold that was calibrated on normal footage.
    """
    grid = [f'<path class="grid" d="M0 {at}H1000M{at} 0V1000"/>' for at in (250, 500, 750)]
    grid.append('<path class="chance" d="M0 1000L1000 0"/>')
    lines, dots = [], []
    for system in group:
        if system.roc.empty:
            continue
        points = np.unique(np.rint(1000 * system.roc[["fpr", "tpr"]].to_numpy()).astype(int), axis=0)
        # Of the points in one pixel column only the lowest and the highest are visible.
        column = pd.DataFrame(points, columns=["x", "y"]).groupby("x")["y"].agg(["min", "max"]).reset_index()
        corners = column.melt("x", value_name="y").sort_values(["x", "y"]).drop_duplicates(["x", "y"])
        curve = path(corners["x"], corners["y"], 0, HEIGHT, buckets=HEIGHT)
        lines.append(f'<path class="{system.style}" d="{curve}"/>')
        if system.threshold is not None:
            x, y = operating_point(system.roc, system.threshold)
            dots.append(f'<circle class="{system.style}" cx="{round(1000 * x)}" cy="{height_of(y, 0, 1)}" r="13"/>')
    return _svg("roc", "0 0 1000 1000", [*grid, *lines, *dots], 0, 1) if lines else None


def operating_point(curve: pd.DataFrame, threshold: float) -> tuple[float, float]:
    """Return (false positive rate, true positive rate) for the rule "abnormal if score >= threshold"."""
    reached = curve[curve["threshold"] >= threshold]
    return (float(reached["fpr"].max()), float(reached["tpr"].max())) if len(reached) else (0.0, 0.0)


@dataclass(frozen=True)
class Curve:
    """One curve of a chart.

    style: CSS classes. values: indexed by x, NaN where nothing was measured. text: shown beside the name.
    """

    style: str
    name: str
    values: pd.Series
    text: str = ""


def lines(curves: list[Curve], mark: int | None = None, may_be_logarithmic: bool = False, dots: bool = False) -> dict:
    """Draw curves over iterations or steps. A line continues across NaN.

    Parameters
    ----------
    curves: each with at least one value.
    mark: x of a vertical line. None draws no line.
    may_be_logarithmic: use a logarithmic axis for positive values that differ by more than :data:`LOGARITHMIC` times.
    dots: draw a dot at each value if there are few.

    Returns
    -------
    ``svg``, ``low`` and ``high`` (ends of the axis), ``first`` and ``last`` (ends of x), ``logarithmic`` and ``curves``.
    """
    values = [curve.values.dropna().astype(float) for curve in curves]
    every = np.concatenate(values)
    logarithmic = may_be_logarithmic and every.min() > 0 and every.max() / every.min() > LOGARITHMIC
    if logarithmic:
        values, every = [np.log10(part) for part in values], np.log10(every)
    low, high = score_range(every, None)
    first, last = min(int(part.index[0]) for part in values), max(int(part.index[-1]) for part in values)
    shapes = [] if mark is None else [f'<line class="thr" x1="{mark}" y1="0" x2="{mark}" y2="{HEIGHT}"/>']
    for curve, part in zip(curves, values, strict=True):
        shapes.append(f'<path class="{curve.style}" d="{path(part.index, part, low, high)}"/>')
    for curve, part in zip(curves, values, strict=True):
        if dots and len(part) <= DOTS:
            places = zip(part.index, height_of(part, low, high), strict=True)
            shapes.append(f'<path class="dots {curve.style}" d="{"".join(_dot(x, y) for x, y in places)}"/>')
    return {
        "svg": _svg("loss", f"{first} 0 {max(1, last - first)} {HEIGHT}", shapes, low, high),
        "low": 10**low if logarithmic else low,
        "high": 10**high if logarithmic else high,
        "first": first,
        "last": last,
        "logarithmic": logarithmic,
        "curves": curves,
    }


def histogram(system: System) -> dict | None:
    """Draw the scores of held-out normal footage, normal and abnormal test frames, each in percent of its own frames.

    Returns ``svg``, the scores at both ends (``first``, ``last``), ``high`` (percent) and ``classes`` as (CSS class,
    name). None if no frame has a finite score.
    """
    frames = system.frames.dropna(subset="score")
    scores, threshold = frames["score"].to_numpy(np.float64), system.threshold
    if not np.isfinite(scores).any():
        return None
    edges = _edges(scores, system.calibration, threshold)
    bars = {("h0", "held-out normal footage"): _val_shares(system.calibration, edges)}
    if system.labelled:
        for style, name, label in (("h1", "normal test frames", 0), ("h2", "abnormal test frames", 1)):
            bars[style, name] = _shares(scores[frames["label"] == label], edges)
    else:
        bars["h1", "test frames"] = _shares(scores, edges)
    drawn = {key: shares for key, shares in bars.items() if shares is not None}
    mark = None if threshold is None else float(np.clip((threshold - edges[0]) / (edges[-1] - edges[0]), 0, 1) * 1000)
    svg, top = steps({style: shares for (style, _), shares in drawn.items()}, mark)
    return {"svg": svg, "first": float(edges[0]), "last": float(edges[-1]), "high": top, "classes": list(drawn)}


def _edges(scores: np.ndarray, calibration: dict, threshold: float | None) -> np.ndarray:
    """Return the edges of the bars, from the lowest finite score to the 99.5th percentile or a higher threshold."""
    scores = scores[np.isfinite(scores)]
    low = float(min(scores.min(), *calibration["scores"][:1]))
    high = max(float(np.percentile(scores, HIGHEST)), -np.inf if threshold is None else threshold)
    air = (high - low) / BARS or 0.5
    return np.linspace(low, high + air, BARS + 1)


def _shares(scores: np.ndarray, edges: np.ndarray) -> np.ndarray | None:
    """Return the percentage of scores in each bar, or None without scores. The first and last bar are open-ended."""
    if not len(scores):
        return None
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return 100 * counts / len(scores)


def _val_shares(calibration: dict, edges: np.ndarray) -> np.ndarray | None:
    """Return the same percentages for the held-out scores, from the counts above selected scores in the calibration."""
    if not calibration["scores"]:
        return None
    # count of scores at or above an edge: frames above the last stored score below the edge
    above = np.concatenate(([calibration["frames"]], calibration["above"])).astype(np.float64)
    at_least = above[np.searchsorted(calibration["scores"], edges)]
    at_least[-1] = 0
    return -100 * np.diff(at_least) / calibration["frames"]


def steps(heights: dict[str, np.ndarray], mark: float | None) -> tuple[Markup, float]:
    """Draw histograms as stepped areas over x from 0 to 1000, each closed at the base line.

    Parameters
    ----------
    heights: bar heights of each histogram by CSS class.
    mark: x of a vertical line. None draws no line.

    Returns
    -------
    The SVG, and the height of its axis, which starts at 0.
    """
    top = max(float(bars.max()) for bars in heights.values()) or 1.0
    shapes = []
    for style, bars in heights.items():
        edges = np.rint(np.linspace(0, 1000, len(bars) + 1)).astype(int)
        x = np.concatenate(([0], np.stack((edges[:-1], edges[1:]), axis=1).ravel(), [1000]))
        y = np.concatenate(([0.0], bars.repeat(2), [0.0]))
        shapes.append(f'<path class="{style}" d="{path(x, y, 0, top, buckets=HEIGHT)}"/>')
    if mark is not None:
        shapes.append(f'<line class="thr" x1="{mark:.1f}" y1="0" x2="{mark:.1f}" y2="{HEIGHT}"/>')
    return _svg("steps", f"0 0 1000 {HEIGHT}", shapes, 0, top), top


@dataclass(frozen=True)
class RateCurve:
    """Curve of a figure of one system over the target false-alarm rate.

    style: CSS class. x: ``[T]`` in 0..1000. y: ``[T]`` on the figure's axis, NaN where undefined.
    extrapolated: ``[T]``, true where the threshold is extrapolated. texts: ``T`` texts that the page shows at each x.
    """

    style: str
    x: np.ndarray
    y: np.ndarray
    extrapolated: np.ndarray
    texts: list[str]


def rates(
    curves: list[RateCurve],
    ends: tuple[float, float],
    dots: list[tuple[str, float, float]],
    grid: tuple[list[float], list[float]],
    diagonal: tuple[float, float] | None = None,
) -> Markup:
    """Draw a figure of several systems over the target false-alarm rate.

    Extrapolated points are drawn as a separate path of class ``extra``, up to the first point that is not extrapolated.

    Parameters
    ----------
    curves: one per system.
    ends: low and high end of the figure's axis.
    dots: CSS class, x and figure of the points to mark.
    grid: x of the vertical grid lines, and figures of the horizontal ones.
    diagonal: figures at x = 0 and x = 1000 of a reference line. None draws no line.
    """
    lines = "".join(f"M{round(x)} 0V{HEIGHT}" for x in grid[0])
    lines += "".join(f"M0 {height_of(value, *ends)}H1000" for value in grid[1])
    shapes = [f'<path class="grid" d="{lines}"/>']
    if diagonal is not None:
        start, end = (height_of(value, *ends) for value in diagonal)
        shapes.append(f'<path class="chance" d="M0 {start}L1000 {end}"/>')
    for curve in curves:
        x, beyond = np.rint(curve.x), curve.extrapolated
        known = path(x, np.where(beyond, np.nan, curve.y), *ends)
        flags = "".join("1" if one else "0" for one in beyond)
        data = f'data-read="{"|".join(curve.texts)}" data-extrapolated="{flags}"'
        shapes.append(f'<path class="{curve.style}" d="{known}" {data}/>')
        if beyond.any():
            joined = beyond | np.append(False, beyond[:-1]) | np.append(beyond[1:], False)
            guessed = path(x, np.where(joined, curve.y, np.nan), *ends)
            shapes.append(f'<path class="extra {curve.style}" d="{guessed}"/>')
    shapes += [f'<path class="dots {style}" d="{_dot(round(x), height_of(y, *ends))}"/>' for style, x, y in dots]
    return _svg("loss", f"0 0 1000 {HEIGHT}", shapes, *ends)


def _dot(x: int, y: int) -> str:
    """Return a line of length 0. Its round caps are drawn as a dot that stays round when the chart is stretched."""
    return f"M{x} {y}l0 0"


def _svg(kind: str, box: str, shapes: list[str], low: float, high: float, read: dict[str, str] | None = None) -> Markup:
    """Return the SVG element. read: values for the page's script, by name, used instead of the paths."""
    data = {"low": f"{low:.6g}", "high": f"{high:.6g}"} | (read or {})
    attributes = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    return Markup(
        f'<svg class="{kind}" viewBox="{box}" preserveAspectRatio="none" {attributes} aria-hidden="true">'
        f"{''.join(shapes)}</svg>"
    )
