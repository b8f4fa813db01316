"""Numbers and facts as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

NONE = "–"  # shown for a figure that does not exist


def write(value: float | None, kind: str) -> str:
    """Format a figure. ``kind``: percent (of 0..1, without the sign), rate, speed, time (seconds) or count."""
    if value is None:
        return NONE
    if kind == "percent":
        return f"{100 * value:.1f}"
    if kind == "rate":
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
    if kind == "speed":
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    if kind == "time":
        return duration(value)
    return count(value)


def duration(seconds: float) -> str:
    """Format seconds as ``42 s``, ``7.5 min`` or ``3.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 or seconds == 0 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(value: float) -> str:
    """Format a count as ``950``, ``12.3 k`` or ``4.6 M``."""
    if value < 1000:
        return f"{value:.0f}"
    return f"{value / 1e3:.1f} k" if value < 1e6 else f"{value / 1e6:.1f} M"


def significant(value: float | None, digits: int = 3) -> str:
    """Format a score or threshold with ``digits`` significant digits, without an exponent if that stays short."""
    return NONE if value is None else f"{value:.{digits}g}"


def decimal(value: float) -> str:
    """Format a figure with three digits and no exponent, such as ``1,500`` or ``0.24``; ``none`` if it is not finite."""
    if not np.isfinite(value):
        return "none"
    decimals = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plural(number: int, name: str) -> str:
    """Format a number of things as ``1 clip`` or ``1,200 clips``."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def footage_facts(facts: dict[str, Any]) -> dict[str, str]:
    """Return the facts of a data set by name, from facts.json. Unknown keys are shown as given."""
    rest = dict(facts)
    text: dict[str, str] = {}

    def known(*keys: str) -> list | None:
        return [rest.pop(key) for key in keys] if all(key in rest for key in keys) else None

    if values := known("format", "width", "height", "color", "fps"):
        kind, width, height, color, fps = values
        color = "grey" if color == "grey" else "colour"
        text["footage"] = f"{kind}, {width} × {height}, {color}, {fps:g} frames a second"
    if values := known("train_clips", "train_frames"):
        text["for training"] = f"{plural(values[0], 'clip')}, {values[1]:,} frames"
    if values := known("test_clips", "test_frames", "test_frames_abnormal", "test_clips_labelled"):
        clips, frames, abnormal, labelled = values
        found = f"{abnormal:,} of them abnormal" if labelled else "not labelled"
        part = f" in the {plural(labelled, 'labelled clip')}" if 0 < labelled < clips else ""
        text["for testing"] = f"{plural(clips, 'clip')}, {frames:,} frames, {found}{part}"
    if values := known("hours", "frames"):
        text["in all"] = f"{duration(3600 * values[0])}, {values[1]:,} frames"
    if (values := known("label_set")) and values[0]:
        text["labels"] = values[0]
    if (values := known("left_out")) and values[0]:
        text["left out"] = "; ".join(f"{clip['clip']} ({clip['why']})" for clip in values[0])
    for key in ("remarks", "not_used"):
        if values := known(key):
            text[key.replace("_", " ")] = "; ".join(values[0])
    if values := known("digest"):
        text["content digest"] = values[0]
    return text | {key.replace("_", " "): _fact(value) for key, value in rest.items()}


def _fact(value) -> str:
    """Format a fact as text. Dicts and lists become short phrases."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):  # sizes or names
        return (" × " if all(isinstance(entry, int) for entry in value) else ", ").join(map(_fact, value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None else str(value)


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


def unlabelled(frames: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the intervals (first, last) of unlabelled frames. Empty for a clip without any labels."""
    without = frames["label"].isna()
    return [] if without.all() else intervals(frames["frame"], without)


def truth(frames: pd.DataFrame) -> str:
    """Describe the labels of one clip."""
    if frames["label"].isna().all():
        return "no labels"
    runs = intervals(frames["frame"], frames["label"])
    if not runs:
        return "all normal"
    found = ", ".join(f"{start}–{end}" for start, end in runs[:4])
    return f"abnormal {found}" + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")
