"""Find events in scores over time; compute detection delay and false alarms per hour from events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

Fps = float | Mapping[str, float]  # frames per second: one rate for all clips, or clip -> rate
SECONDS_AN_HOUR = 3600.0
EARLY_SECONDS = 1.0  # an alarm may begin this long before a true event and still count as its detection


@dataclass(frozen=True)
class Event:
    """An alarm from ``start_frame`` to ``end_frame``, both inclusive. The peak is the first frame with the top score."""

    start_frame: int
    end_frame: int
    peak_frame: int
    peak_score: float


def fps_of(fps: Fps, clip: str) -> float:
    """Frames per second of ``clip``."""
    return float(fps[clip] if isinstance(fps, Mapping) else fps)


def event_frames(fps: float, merge_gap_s: float, min_event_s: float) -> tuple[int, int]:
    """Convert the definition of an event to frames: (maximum gap across which alarms are merged, minimum length).

    ``merge_gap_s`` is rounded down and ``min_event_s`` is rounded up to whole frames. The margin of 1e-9 compensates
    floating-point error: 0.29 s at 100 fps is 29 frames, not 28.999...
    """
    return math.floor(merge_gap_s * fps + 1e-9), max(1, math.ceil(min_event_s * fps - 1e-9))


def runs(flags: np.ndarray) -> np.ndarray:
    """First and last (inclusive) index of every run of true values in ``flags`` bool ``[T]``: int64 ``[runs, 2]``."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges.reshape(-1, 2) - np.array([0, 1])


def find_events(
    scores: np.ndarray, threshold: float, fps: float, merge_gap_s: float = 0.0, min_event_s: float = 0.0
) -> list[Event]:
    """Find the events of one clip, in order.

    A frame is an alarm if its score is at or above the threshold. Alarms at most ``merge_gap_s`` apart are merged into
    one event. After merging, events shorter than ``min_event_s`` are discarded. A frame without a score ends an event
    and is never part of one.

    scores: ``[T]``, NaN = not scored. fps: frames per second. merge_gap_s, min_event_s: seconds.
    """
    scores = np.asarray(scores, np.float64)
    gap, shortest = event_frames(fps, merge_gap_s, min_event_s)
    unjudged = np.concatenate(([0], np.cumsum(np.isnan(scores))))  # [T + 1], unscored frames before each frame
    alarms = runs(scores >= threshold)
    starts, ends = alarms[:, 0], alarms[:, 1]
    apart = (starts[1:] - ends[:-1] - 1 > gap) | (unjudged[starts[1:]] > unjudged[ends[:-1]])
    starts, ends = starts[np.concatenate(([True], apart))[: len(starts)]], ends[np.append(apart, True)[: len(ends)]]
    events = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start + 1 >= shortest:
            peak = start + int(np.argmax(scores[start : end + 1]))
            events.append(Event(start, end, peak, float(scores[peak])))
    return events


@dataclass(frozen=True)
class EventMatches:
    """The alarms of one clip, matched with its labels.

    right: indices of the alarms that detect a run of abnormal frames (true alarms). false: indices of the alarms that
    detect none and contain a normal frame (false alarms); an alarm that covers only unlabelled frames is in neither list.
    runs: (first frame, last frame, first frame that is inside a detecting alarm, or None if not detected) of every run
    of abnormal frames with at least one scored frame.
    """

    right: list[int]
    false: list[int]
    runs: list[tuple[int, int, int | None]]


def match_events(events: Sequence[Event], scores: np.ndarray, labels: np.ndarray, fps: float) -> EventMatches:
    """Match the alarms of one clip with its labels.

    An alarm detects a run of abnormal frames if it overlaps the run and begins inside it, or before it by at most as many
    labelled frames as fit into ``EARLY_SECONDS``. An alarm that began earlier is not a detection of that run.

    events: in order of time. scores: ``[T]``, NaN = not scored. labels: ``[T]``, 0 (normal), 1 (abnormal) or NaN
    (unlabelled). Both are indexed by frame number.
    """
    abnormal = [(start, end) for start, end in runs(labels == 1).tolist()]
    noticed: dict[int, int] = {}  # first frame of a run -> first frame of it inside a detecting alarm
    right, false = [], []
    for number, event in enumerate(events):
        seen = [start for start, end in abnormal if _notices(event, start, end, labels, fps)]
        if seen:
            right.append(number)
        elif np.any(labels[event.start_frame : event.end_frame + 1] == 0):
            false.append(number)
        for start in seen:
            noticed.setdefault(start, max(start, event.start_frame))
    judged = [(start, end) for start, end in abnormal if not np.isnan(scores[start : end + 1]).all()]
    return EventMatches(right, false, [(start, end, noticed.get(start)) for start, end in judged])


def by_frame(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of one clip, indexed by frame number: ``[T]`` each, NaN for frames missing in ``rows``."""
    scores, labels = np.full((2, int(rows["frame"].max()) + 1), np.nan)
    scores[rows["frame"]], labels[rows["frame"]] = rows["score"], rows["label"]
    return scores, labels


def detection_metrics(
    table: pd.DataFrame, threshold: float, fps: Fps, merge_gap_s: float = 0.0, min_event_s: float = 0.0
) -> dict[str, int | float | None]:
    """Event-level metrics at a threshold: detection rate, detection delay, false alarms per hour, alarm precision.

    table: clip, frame, label (0 = normal, 1 = abnormal, NaN = unlabelled), score (NaN = not scored). fps: frames per
    second. merge_gap_s, min_event_s: definition of an event, in seconds.

    An alarm is an event of :func:`find_events`. A true event is a run of abnormal frames with at least one scored frame.
    :func:`match_events` decides which true events an alarm detects. Undefined metrics are None.

    - ``events_true``: number of true events.
    - ``alarms``, ``alarms_per_hour``: number of alarms, and that number per hour of scored frames.
    - ``detected``, ``detection_rate``: number and share of true events that an alarm detects.
    - ``detection_delay_seconds``: time from the first frame of a true event to its first frame inside a detecting alarm;
      mean over the detected events.
    - ``false_alarms``, ``false_alarms_per_hour``: alarms that detect no true event and contain a normal frame; per hour
      of ``normal_hours``. An alarm that covers only unlabelled frames is neither a true nor a false alarm.
    - ``alarm_precision``: share of true alarms among true and false alarms.
    - ``normal_hours``: duration of the scored frames labelled normal. ``normal_alarmed``: share of them inside an alarm.
    """
    true = found = right = false = 0
    delays, normal_seconds, alarmed_seconds, judged_seconds = [], 0.0, 0.0, 0.0
    for clip, rows in table.groupby("clip", sort=True):
        rate = fps_of(fps, clip)
        scores, labels = by_frame(rows)
        events = find_events(scores, threshold, rate, merge_gap_s, min_event_s)
        judged, normal = ~np.isnan(scores), (labels == 0) & ~np.isnan(scores)
        found += len(events)
        outcome = match_events(events, scores, labels, rate)
        right += len(outcome.right)
        false += len(outcome.false)
        alarmed = np.zeros(len(scores), bool)
        for event in events:
            alarmed[event.start_frame : event.end_frame + 1] = True
        judged_seconds += judged.sum() / rate
        normal_seconds += normal.sum() / rate
        alarmed_seconds += (normal & alarmed).sum() / rate
        true += len(outcome.runs)
        delays += [(first - start) / rate for start, _, first in outcome.runs if first is not None]
    hours = float(normal_seconds) / SECONDS_AN_HOUR
    return {
        "events_true": true,
        "alarms": found,
        "alarms_per_hour": found * SECONDS_AN_HOUR / float(judged_seconds) if judged_seconds else None,
        "detected": len(delays),
        "detection_rate": len(delays) / true if true else None,
        "detection_delay_seconds": float(np.mean(delays)) if delays else None,
        "alarm_precision": right / (right + false) if right + false else None,
        "false_alarms": false,
        "false_alarms_per_hour": false / hours if hours else None,
        "normal_hours": hours,
        "normal_alarmed": float(alarmed_seconds / normal_seconds) if normal_seconds else None,
    }


def _notices(event: Event, start: int, end: int, labels: np.ndarray, fps: float) -> bool:
    """Whether an alarm detects the abnormal frames ``start`` to ``end``: it begins inside them, or shortly before."""
    before = labels[event.start_frame : start]  # empty if the alarm begins inside them
    early = math.floor(EARLY_SECONDS * fps + 1e-9)
    return event.start_frame <= end and start <= event.end_frame and int(np.sum(~np.isnan(before))) <= early


def smooth(scores: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Smooth the scores of one clip over time with a Gaussian.

    Uses normalised convolution, (g * s) / (g * 1) over the scored frames, so that clip ends and gaps do not lower the
    scores. Frames without a score stay NaN and do not affect other frames. The kernel is truncated at 4 sigma on both
    sides, so a smoothed score depends on up to 4 sigma future frames.

    scores: ``[T]``, NaN = not scored. sigma_frames: sigma in frames; 0 returns an unchanged copy.
    """
    scores = np.array(scores, np.float64)
    if sigma_frames == 0:
        return scores
    from scipy.ndimage import gaussian_filter1d  # imported here: the import takes 0.1 s

    judged = ~np.isnan(scores)
    total = gaussian_filter1d(np.where(judged, scores, 0.0), sigma_frames, mode="constant")
    weight = gaussian_filter1d(judged.astype(np.float64), sigma_frames, mode="constant")
    return np.divide(total, weight, out=np.full_like(scores, np.nan), where=judged)
