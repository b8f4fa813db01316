"""Plot the score of a video over time, with the threshold and the events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

POINTS = 1500  # in the curve; longer videos show the maximum score of each interval, so that no alarm is lost


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss``, or as ``h:mm:ss`` from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def highest_of_stretches(seconds: np.ndarray, scores: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a curve to at most ``most`` points: first time and maximum score of each interval of frames.

    seconds, scores: ``[T]``, NaN = not scored. The maximum is NaN if no frame of the interval has a score.
    """
    each = -(-len(scores) // most)
    room = -len(scores) % each
    stretches = np.pad(np.where(np.isnan(scores), -np.inf, scores), (0, room), constant_values=-np.inf).reshape(
        -1, each
    )
    highest = stretches.max(axis=1)
    return seconds[::each], np.where(np.isneginf(highest), np.nan, highest)


def write_timeline(path: Path, frames: pd.DataFrame, events: pd.DataFrame, threshold: float, title: str) -> None:
    """Plot the tables ``frames`` and ``events`` of :class:`vadcore.detection.stream.Scanned` to the PNG file ``path``."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    seconds, scores = highest_of_stretches(frames["seconds"].to_numpy(), frames["score"].to_numpy())
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for event in events.itertuples():
        axes.axvspan(event.start_seconds, event.end_seconds, color="tab:red", alpha=0.2, linewidth=0)
        axes.annotate(
            str(event.number),
            (event.peak_seconds, event.peak_score),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
        )
    axes.plot(seconds, scores, color="tab:blue", linewidth=0.9, label="score")
    axes.axhline(threshold, color="tab:red", linestyle="--", linewidth=1, label=f"threshold {threshold:.4g}")
    length = float(frames["seconds"].iloc[-1])
    axes.set_xlim(0, max(length, 1e-3))
    axes.margins(y=0.15)
    steps = [1, 1.5, 2, 3, 5, 6, 10] if length < 600 else [1, 1.2, 1.8, 3, 3.6, 6, 9, 10]
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=steps, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
    axes.set_xlabel("h:mm:ss" if length >= 3600 else "m:ss")
    axes.set_ylabel("score")
    axes.set_title(title, loc="left", parse_math=False)  # a file name may contain dollar signs
    axes.legend(loc="upper right")
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=110)
