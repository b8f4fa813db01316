"""Draw line charts as inline SVG that the page's script can read values from.

A chart is stretched to the available width, so its coordinates are data values: x is the frame number, the iteration or
1000 times the false positive rate; y runs from 0 (top, ``high``) to 1000 (bottom, ``low``). The script reads values
from the paths. For timelines it reads separately stored scores instead, because the path of a long timeline has fewer
points than frames. All text around a chart is HTML.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vadcore.report.readings import pack

HEIGHT = 1000  # units of y
DOTS = 24  # largest number of checkpoints for which a curve shows a dot at each
BUCKETS = 240  # a curve keeps the lowest and highest point of each bucket, about one bucket per pixel of a card


def intervals(frames: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Return the intervals of abnormal frames as (first, last) frame numbers, both inclusive.

    Parameters
    ----------
    frames: ``[T]`` increasing frame numbers. A gap in the numbers ends an interval.
    labels: ``[T]``, 1 = abnormal. 0 and NaN do not count as abnormal.
    """
    abnormal = np.asarray(frames)[np.asarray(labels) == 1]
    if not len(abnormal):
        return []
    runs = np.split(abnormal, np.flatnonzero(np.diff(abnormal) > 1) + 1)
    return [(int(run[0]), int(run[-1])) for run in runs]


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


def height_of(value: float | np.ndarray, low: float, high: float) -> int | np.ndarray:
    """Map a value to y: 0 at ``high``, 1000 at ``low``, rounded."""
    y = np.rint((high - np.asarray(value, dtype=np.float64)) / (high - low) * HEIGHT).astype(np.int64)
    return y if y.ndim else int(y)


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


def timeline(
    frames: pd.DataFrame, events: pd.DataFrame, threshold: float | None, low: float, high: float, every: int = 1
) -> str:
    """Draw one system's scores over one clip.

    Parameters
    ----------
    frames: rows of frames.parquet for this clip, sorted by frame.
    events: rows of events.csv for this clip.
    threshold: drawn as a dashed line. None draws no line.
    low, high: ends of the score axis, the same for all clips of a system.
    every: number of frames per readable score. The highest score of each group of frames is used.
    """
    number = frames["frame"].to_numpy()
    first, width = int(number[0]), int(number[-1] - number[0]) + 1
    # Frame i covers i - 0.5 .. i + 0.5, with its score in the middle.
    shades = [
        f'<rect class="truth" x="{start - 0.5}" y="0" width="{end - start + 1}" height="{HEIGHT}"/>'
        for start, end in intervals(number, frames["label"].to_numpy())
    ]
    alarms = [
        f'<rect class="alarm" x="{start - 0.5}" y="{HEIGHT - 70}" width="{end - start + 1}" height="70"/>'
        for start, end in zip(events["start_frame"].astype(int), events["end_frame"].astype(int), strict=True)
    ]
    score = frames["score"].to_numpy()
    read, line = {"scores": pack(number, score, threshold, every)}, []
    if threshold is not None:
        read["threshold"] = repr(float(threshold))
        y = height_of(threshold, low, high)
        line = [f'<line class="thr" x1="{first - 0.5}" y1="{y}" x2="{first - 0.5 + width}" y2="{y}"/>']
    curve = [f'<path d="{path(number, score, low, high)}"/>']
    return _svg("tl", f"{first - 0.5} 0 {width} {HEIGHT}", [*shades, *alarms, *line, *curve], low, high, read)


def roc(curves: list[tuple[str, pd.DataFrame, float | None]]) -> str:
    """Draw the ROC curves of several systems in one chart.

    Parameters
    ----------
    curves: for each system its CSS class, its ROC curve (fpr, tpr, threshold; thresholds decreasing) and the
        threshold calibrated on normal footage, marked on the curve with a dot. None draws no dot.
    """
    grid = [f'<path class="grid" d="M0 {at}H1000M{at} 0V1000"/>' for at in (250, 500, 750)]
    grid.append('<path class="chance" d="M0 1000L1000 0"/>')
    lines, dots = [], []
    for system, curve, threshold in curves:
        fpr, tpr = curve["fpr"].to_numpy(), curve["tpr"].to_numpy()
        points = np.unique(np.rint(1000 * np.stack((fpr, tpr), axis=1)).astype(int), axis=0)
        # Of the points in one pixel column only the lowest and the highest are visible.
        column = pd.DataFrame(points, columns=["x", "y"]).groupby("x")["y"].agg(["min", "max"]).reset_index()
        corners = column.melt("x", value_name="y").sort_values(["x", "y"]).drop_duplicates(["x", "y"])
        lines.append(f'<path class="{system}" d="{path(corners["x"], corners["y"], 0, HEIGHT, buckets=HEIGHT)}"/>')
        at = operating_point(curve, threshold)
        if at is not None:
            x, y = round(1000 * at[0]), height_of(at[1], 0, 1)
            dots.append(f'<circle class="{system}" cx="{x}" cy="{y}" r="13"/>')
    return _svg("roc", "0 0 1000 1000", [*grid, *lines, *dots], 0, 1)


def operating_point(curve: pd.DataFrame, threshold: float | None) -> tuple[float, float] | None:
    """Return (false positive rate, true positive rate) for the rule "abnormal if score >= threshold"."""
    if threshold is None:
        return None
    reached = curve[curve["threshold"] >= threshold]
    return (float(reached["fpr"].max()), float(reached["tpr"].max())) if len(reached) else (0.0, 0.0)


def losses(curves: list[tuple[str, pd.Series]], best: int | None) -> tuple[str, float, float, bool]:
    """Draw loss curves over iterations.

    Parameters
    ----------
    curves: CSS class and loss, indexed by iteration. NaN where it was not measured; the line continues across NaN.
    best: iteration whose weights were kept, marked with a vertical line.

    Returns
    -------
    The SVG, the lowest and the highest loss, and whether the axis is logarithmic (all losses are positive and the
    highest is more than 20 times the lowest).
    """
    curves = [(name, curve.dropna()) for name, curve in curves]
    values = np.concatenate([curve.to_numpy(dtype=np.float64) for _, curve in curves])
    bottom, top = float(values.min()), float(values.max())
    logarithmic = bottom > 0 and top / bottom > 20
    axis = np.log10 if logarithmic else np.asarray
    low, high = score_range(axis(values), None)
    first, width = _span(curves)
    shapes = [f'<path class="{name}" d="{path(curve.index, axis(curve), low, high)}"/>' for name, curve in curves]
    if best is not None:
        shapes.insert(0, f'<line class="thr" x1="{best}" y1="0" x2="{best}" y2="{HEIGHT}"/>')
    return _svg("loss", f"{first} 0 {width} {HEIGHT}", shapes, low, high), bottom, top, logarithmic


def quality(curves: list[tuple[str, pd.Series]]) -> tuple[str, float, float]:
    """Draw a figure of several systems over iterations, with a dot per checkpoint if there are few.

    Parameters
    ----------
    curves: CSS class and figure, indexed by iteration, without NaN.

    Returns
    -------
    The SVG, and the low and high end of its linear axis.
    """
    low, high = score_range(np.concatenate([curve.to_numpy(dtype=np.float64) for _, curve in curves]), None)
    first, width = _span(curves)
    shapes = [f'<path class="{name}" d="{path(curve.index, curve, low, high)}"/>' for name, curve in curves]
    for name, curve in curves:
        if len(curve) <= DOTS:
            # A line of length 0 with round caps is drawn as a dot that stays round when the chart is stretched.
            dots = "".join(f"M{x} {y}l0 0" for x, y in zip(curve.index, height_of(curve, low, high), strict=True))
            shapes.append(f'<path class="dots {name}" d="{dots}"/>')
    return _svg("loss", f"{first} 0 {width} {HEIGHT}", shapes, low, high), low, high


def steps(heights: list[tuple[str, np.ndarray]], mark: float | None) -> tuple[str, float]:
    """Draw histograms as stepped areas over x from 0 to 1000, each closed at the base line.

    Parameters
    ----------
    heights: CSS class and bar heights of each histogram.
    mark: x of a vertical line. None draws no line.

    Returns
    -------
    The SVG, and the height of its axis, which starts at 0.
    """
    top = max(float(bars.max()) for _, bars in heights) or 1.0
    shapes = []
    for name, bars in heights:
        edges = np.rint(np.linspace(0, 1000, len(bars) + 1)).astype(int)
        x = np.concatenate(([0], np.stack((edges[:-1], edges[1:]), axis=1).ravel(), [1000]))
        y = np.concatenate(([0.0], bars.repeat(2), [0.0]))
        shapes.append(f'<path class="{name}" d="{path(x, y, 0, top, buckets=HEIGHT)}"/>')
    if mark is not None:
        shapes.append(f'<line class="thr" x1="{mark:.1f}" y1="0" x2="{mark:.1f}" y2="{HEIGHT}"/>')
    return _svg("steps", f"0 0 1000 {HEIGHT}", shapes, 0, top), top


@dataclass(frozen=True)
class RateCurve:
    """Curve of a figure of one system over the target false-alarm rate.

    style: CSS class. x: ``[T]`` in 0..1000. y: ``[T]`` on the figure's axis, NaN where undefined.
    extrapolated: ``[T]``, true where the threshold is extrapolated. said: ``T`` texts that the page shows at each x.
    """

    style: str
    x: np.ndarray
    y: np.ndarray
    extrapolated: np.ndarray
    said: list[str]


def rates(
    curves: list[RateCurve],
    ends: tuple[float, float],
    dots: list[tuple[str, float, float]],
    grid: tuple[list[float], list[float]],
    diagonal: tuple[float, float] | None = None,
) -> str:
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
        data = f'data-read="{"|".join(curve.said)}" data-extrapolated="{flags}"'
        shapes.append(f'<path class="{curve.style}" d="{known}" {data}/>')
        if beyond.any():
            joined = beyond | np.append(False, beyond[:-1]) | np.append(beyond[1:], False)
            guessed = path(x, np.where(joined, curve.y, np.nan), *ends)
            shapes.append(f'<path class="extra {curve.style}" d="{guessed}"/>')
    for name, x, y in dots:
        # A line of length 0 with round caps is drawn as a dot that stays round when the chart is stretched.
        shapes.append(f'<path class="dots {name}" d="M{round(x)} {height_of(y, *ends)}l0 0"/>')
    return _svg("loss", f"0 0 1000 {HEIGHT}", shapes, *ends)


def _span(curves: list[tuple[str, pd.Series]]) -> tuple[int, int]:
    """Return the first iteration of all curves and the distance to the last one (at least 1)."""
    first = min(int(curve.index[0]) for _, curve in curves)
    return first, max(1, max(int(curve.index[-1]) for _, curve in curves) - first)


def _svg(kind: str, box: str, shapes: list[str], low: float, high: float, read: dict[str, str] | None = None) -> str:
    """Return the SVG element. read: values for the page's script, by name, used instead of the paths."""
    data = {"low": f"{low:.6g}", "high": f"{high:.6g}"} | (read or {})
    attributes = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    return (
        f'<svg class="{kind}" viewBox="{box}" preserveAspectRatio="none" {attributes} aria-hidden="true">'
        f"{''.join(shapes)}</svg>"
    )
