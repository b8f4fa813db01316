"""Columns of the results table: number format and meaning of each figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NONE = "–"  # shown for a figure that does not exist


@dataclass(frozen=True)
class Column:
    """One figure in a row of metrics.json, or a cost of a system. ``better`` says which end is marked as the best."""

    key: str
    group: str
    title: str
    kind: Literal["percent", "rate", "time", "speed", "count"]
    better: Literal["high", "low"] | None
    meaning: str
    unlabelled: bool = False  # shown only for footage without labels


RANKING, PLACE, ALARM, COST = "Ranking of frames", "Place in the frame", "At the threshold", "Cost"

COLUMNS = (
    Column(
        "auc_micro",
        RANKING,
        "AUC micro, raw",
        "percent",
        "high",
        "Frame-level area under the ROC curve, the frames of all clips pooled, on the scores as they are: how well one "
        "threshold for all clips can work. In percent; 50 is chance.",
    ),
    Column(
        "auc_micro_minmax",
        RANKING,
        "micro, per-clip min-max",
        "percent",
        "high",
        "The same after each clip's scores are stretched to 0..1. The field's usual figure; it looks at the whole test "
        "clip first, so a camera cannot be run that way.",
    ),
    Column(
        "auc_macro",
        RANKING,
        "macro",
        "percent",
        "high",
        "The mean of the AUC of single clips, over the clips that hold both normal and abnormal frames; the other clips "
        "have no AUC and are left out.",
    ),
    Column(
        "ap",
        RANKING,
        "AP",
        "percent",
        "high",
        "Average precision of abnormal frames, all clips pooled, raw scores. Chance is the share of abnormal frames.",
    ),
    Column(
        "eer",
        RANKING,
        "EER",
        "percent",
        "low",
        "Equal error rate: where as large a share of the normal frames is above the threshold as of the abnormal ones "
        "below it.",
    ),
    Column("pixel_auc", PLACE, "pixel AUC", "percent", "high", "AUC over pixels, against the true masks."),
    Column(
        "rbdc",
        PLACE,
        "RBDC",
        "percent",
        "high",
        "Region-based detection criterion (Ramachandra & Jones 2020): area under the share of true regions found "
        "against false regions a frame, up to one false region a frame.",
    ),
    Column(
        "tbdc",
        PLACE,
        "TBDC",
        "percent",
        "high",
        "Track-based detection criterion (the same paper): as RBDC, over the tracks that regions form in time.",
    ),
    # No best value is marked for these: each can be improved at the expense of another.
    Column(
        "detection_rate",
        ALARM,
        "events found",
        "percent",
        None,
        "Share of the true events with an alarm that begins during them, or at most a second before.",
    ),
    Column(
        "alarm_precision",
        ALARM,
        "precision",
        "percent",
        None,
        "Share of such alarms among all alarms on labelled footage.",
    ),
    Column(
        "detection_delay_seconds",
        ALARM,
        "delay (s)",
        "rate",
        None,
        "From the first abnormal frame of an event that is found to the alarm.",
    ),
    Column(
        "false_alarms_per_hour",
        ALARM,
        "false alarms / h",
        "rate",
        None,
        "All other alarms, per hour of normal test footage; below it how many in how much footage, and the rate that was "
        "asked for when the threshold was set. A rate from a minute of footage says little.",
    ),
    Column(
        "normal_alarmed",
        ALARM,
        "normal time in alarm",
        "percent",
        None,
        "Share of the normal test footage that lies in any alarm: what a person would watch in vain.",
    ),
    Column(
        "alarms",
        ALARM,
        "alarms",
        "count",
        None,
        "Alarms raised on the test footage, all clips together.",
        unlabelled=True,
    ),
    Column(
        "alarms_per_hour",
        ALARM,
        "alarms / h",
        "rate",
        None,
        "As many in an hour, beside the rate of false ones that was asked for when the threshold was set.",
        unlabelled=True,
    ),
    Column(
        "score_fps",
        COST,
        "frames / s",
        "speed",
        "high",
        "Frames judged per second, reading left out.",
    ),
    Column("train_seconds", COST, "training", "time", None, "Wall-clock time of training."),
    Column("parameters", COST, "parameters", "count", None, "Learned numbers in the model."),
)


def write(value: float | None, kind: str) -> str:
    """Format a figure for display."""
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


def best_text(values: list[float | None], column: Column) -> str | None:
    """Return the text of the best of ``values``, or None if no best is marked.

    Values are compared as printed: equal texts are all marked as best, and if all are equal none is marked.
    """
    there = [value for value in values if value is not None]
    if not column.better or len({write(value, column.kind) for value in there}) < 2:
        return None
    return write((max if column.better == "high" else min)(there), column.kind)


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
