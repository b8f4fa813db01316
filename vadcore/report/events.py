"""Alarms on the page: lists of alarms and missed events, and the operating curves.

An operating curve shows a figure over the target false-alarm rate. The x axis is logarithmic and starts at a whole
decade. The measured false-alarm rate uses the same axis, so the diagonal marks measured = target. A rate of 0, which has
no logarithm, gets its own row below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vadcore.evaluation.events import Event, EventMatches, by_frame, match_events
from vadcore.report import charts
from vadcore.report.load import System
from vadcore.report.text import decimal
from vadcore.utils.times import shown

MOST_LISTED = 200  # largest number of alarms, and of missed events, listed per clip
FOREMOST = 30  # largest number of alarms listed over all clips
ZERO = 0.5  # decades between the lowest decade and the row of 0
AIR = (0.15, 0.08)  # margin in decades, below that row and above the highest decade


def match_labels(frames: pd.DataFrame, events: pd.DataFrame) -> EventMatches | None:
    """Match one system's alarms in one clip to its labels. None if the clip has no labels.

    frames, events: rows of frames.parquet and events.csv for this clip.
    """
    if frames["label"].isna().all():
        return None
    scores, labels, seconds = by_frame(frames)
    alarms = [
        Event(int(event.start_frame), int(event.end_frame), int(event.peak_frame), float(event.peak_score))
        for event in events.itertuples()
    ]
    return match_events(alarms, scores, labels, float(frames["fps"].iloc[0]), seconds)


def verdict(matches: EventMatches | None, number: int) -> str | None:
    """Return the verdict on alarm ``number`` of a clip. None in a clip without labels."""
    if matches is None:
        return None
    return "true alarm" if number in matches.right else "false alarm" if number in matches.false else "no labels there"


def alarms_of(group: list[System], events: list[pd.DataFrame], matches: list[EventMatches | None]) -> list[dict]:
    """Return every system's alarms in one clip, sorted by start.

    Parameters
    ----------
    events: rows of events.csv for this clip, for each system.
    matches: result of :func:`match_labels` for each system.

    Returns
    -------
    The rows of events.csv as dicts, with ``system``, ``agree`` (number of systems, including this one, that are in alarm
    at the alarm's peak frame) and ``verdict`` (true or false alarm according to the labels, see :func:`verdict`).
    """
    in_alarm = np.zeros(1 + max((int(part["end_frame"].max()) for part in events if len(part)), default=0), np.int64)
    for part in events:  # the alarms of a system do not overlap
        for start, end in zip(part["start_frame"], part["end_frame"], strict=True):
            in_alarm[start : end + 1] += 1
    alarms = [
        alarm
        | {"system": system, "agree": int(in_alarm[alarm["peak_frame"]]), "verdict": verdict(matched, number)}
        | {"p_value": None if pd.isna(alarm["p_value"]) else alarm["p_value"]}
        | {"start": alarm["start_seconds"], "end": alarm["end_seconds"]}
        for system, part, matched in zip(group, events, matches, strict=True)
        for number, alarm in enumerate(part.to_dict("records"))
    ]
    return sorted(alarms, key=_by_time)


def missed(group: list[System], matches: list[EventMatches | None], frames: pd.DataFrame) -> list[dict]:
    """Return the missed events of one clip, sorted by start.

    Each has ``system``, its first frame as ``frame``, and ``start`` and ``end`` in seconds. An event is missed by a system
    if none of its alarms detects it. frames: rows of frames.parquet for this clip.
    """
    fps = float(frames["fps"].iloc[0])
    scores, _, seconds = by_frame(frames)
    starts, stops = shown(len(scores), fps, seconds)
    found = [
        {"system": system, "frame": start, "start": starts[start] / fps, "end": stops[end] / fps}
        for system, matched in zip(group, matches, strict=True)
        if matched is not None
        for start, end, detected in matched.runs
        if detected is None
    ]
    return sorted(found, key=_by_time)


def listed(alarms: list[dict]) -> list[dict]:
    """Return the alarms to list for one clip: the :data:`MOST_LISTED` with the lowest p-values, sorted by start."""
    return sorted(_rarest(alarms)[:MOST_LISTED], key=_by_time)


def foremost(clips: list[dict]) -> dict | None:
    """Return the alarms with the lowest p-values over all clips, and the number of all alarms. None without alarms.

    Ties go to the alarm on which more systems agree. ``agreed`` is the alarm on which most systems agree; ties go to the
    lower p-value. ``cut``: whether the list of any clip is incomplete.

    clips: ``id``, ``name`` and ``alarms`` (all of them) of each clip.
    """
    rarest = _rarest([alarm | {"clip": clip["name"], "id": clip["id"]} for clip in clips for alarm in clip["alarms"]])
    if not rarest:
        return None
    return {
        "alarms": rarest[:FOREMOST],
        "agreed": max(rarest, key=lambda alarm: alarm["agree"]),
        "total": len(rarest),
        "clips": len({alarm["id"] for alarm in rarest}),
        "cut": any(len(clip["alarms"]) > MOST_LISTED for clip in clips),
    }


def _by_time(alarm: dict) -> tuple[float, int]:
    return alarm["start"], alarm["system"].number


def _rarest(alarms: list[dict]) -> list[dict]:
    """Sort by p-value, then by the number of systems that agree (most first), then by the given order."""
    return sorted(alarms, key=lambda alarm: (1.0 if alarm["p_value"] is None else alarm["p_value"], -alarm["agree"]))


@dataclass(frozen=True)
class Figure:
    """One figure of ``operating.csv``.

    ``times`` scales it for display and ``unit`` is the unit after that. ``calibrated`` marks the figure that has a
    target, the false-alarm rate.
    """

    key: str
    title: str
    unit: str
    times: float = 1.0
    calibrated: bool = False


FIGURES = (
    Figure("false_alarms_per_hour", "False alarms an hour on test footage", "", calibrated=True),
    Figure("detection_rate", "Events found", "%", 100),
    Figure("alarm_precision", "Precision of alarms", "%", 100),
    Figure("detection_delay_seconds", "Delay", "s"),
)


def operating_curves(group: list[System]) -> list[dict]:
    """Return one chart per figure over the target rate, with one curve per system. Empty without labels."""
    return [chart for figure in FIGURES if (chart := _chart(figure, group)) is not None]


def decades(values: np.ndarray) -> tuple[int, float]:
    """Return the exponents of ten, low and high, that enclose all positive values, at least one decade apart.

    The low exponent is whole; the high one is that of the highest value, or ``low + 1``.
    """
    exponents = np.log10(values[np.isfinite(values) & (values > 0)])
    low = int(np.floor(exponents.min()))
    return low, max(float(exponents.max()), low + 1.0)


def _chart(figure: Figure, group: list[System]) -> dict | None:
    tables = [system.operating.set_index("target_far_per_hour") for system in group]
    targets = np.unique(np.concatenate([table.index.to_numpy(np.float64) for table in tables]))
    tables = [table.reindex(targets) for table in tables]  # rates at which a system has no row become NaN
    measured = [table[figure.key].to_numpy(np.float64) * figure.times for table in tables]
    every = np.concatenate(measured)
    if not np.isfinite(every).any():
        return None
    low, high = decades(np.concatenate((targets, every)) if figure.calibrated else targets)
    x = 1000 * (np.log10(targets) - low) / (high - low)
    powers = range(low, int(np.floor(high)) + 1)  # whole exponents; each gets a tick
    across = [(1000 * (power - low) / (high - low), decimal(10.0**power)) for power in powers]
    if figure.calibrated:
        ends = low - ZERO - AIR[0], high + AIR[1]
        upwards = [(low - ZERO, "0"), *((float(power), decimal(10.0**power)) for power in powers)]
    else:
        ends, upwards = _linear_axis(100.0 if figure.unit == "%" else float(np.nanmax(every)), figure.unit)
    curves, dots = [], []
    for system, table, values in zip(group, tables, measured, strict=True):
        y = _logarithm(values, low - ZERO) if figure.calibrated else values
        beyond, chosen = (table[column].eq(True).to_numpy(bool) for column in ("extrapolated", "chosen"))
        curves.append(charts.RateCurve(system.style, x, y, beyond, [decimal(value) for value in values]))
        dots += [(system.style, x[at], y[at]) for at in np.flatnonzero(chosen & np.isfinite(y))]
    grid = [at for at, _ in across], [value for value, _ in upwards]
    return {
        "figure": figure,
        "svg": charts.rates(curves, ends, dots, grid, (low, high) if figure.calibrated else None),
        "extrapolated": any(curve.extrapolated.any() for curve in curves),
        "shape": round((high - low) / (ends[1] - ends[0]), 4),  # aspect ratio that makes all decades equally long
        "across": [(round(at / 10, 2), text) for at, text in across],  # percent from the left
        "upwards": [(round(100 * (ends[1] - value) / (ends[1] - ends[0]), 2), text) for value, text in upwards],
        "stops": [(round(float(at), 2), decimal(rate)) for at, rate in zip(x, targets, strict=True)],
    }


def _logarithm(values: np.ndarray, zero: float) -> np.ndarray:
    """Return the base-10 logarithm of the values, and ``zero`` for 0. NaN stays NaN."""
    with np.errstate(divide="ignore"):
        return np.where(values == 0, zero, np.log10(values))


def _linear_axis(top: float, unit: str) -> tuple[tuple[float, float], list[tuple[float, str]]]:
    """Return the ends of an axis from 0 to ``top``, and at most five ticks at round figures."""
    if unit == "%":
        step = 50.0
    else:
        power = 10.0 ** np.floor(np.log10(top)) if top > 0 else 1.0
        step = next(step for step in (0.5 * power, power, 2 * power, 5 * power) if top / step <= 4)
    ticks = [(at * step, decimal(at * step)) for at in range(int(top / step + 1e-9) + 1)]
    return charts.score_range(np.array([0.0, top]), None), ticks
