"""From scores over time to events, and from events to detection delay and false alarms per hour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

Fps = float | Mapping[str, float]  # one rate for all clips, or one a clip
SECONDS_AN_HOUR = 3600.0
EARLY_SECONDS = 1.0  # that an alarm may begin before a true event and still be about it


@dataclass(frozen=True)
class Event:
    """An alarm: frames ``start_frame`` to ``end_frame``, both inclusive; the peak is the first of its highest frames."""

    start_frame: int
    end_frame: int
    peak_frame: int
    peak_score: float


def fps_of(fps: Fps, clip: str) -> float:
    """Frames a second of ``clip``."""
    return float(fps[clip] if isinstance(fps, Mapping) else fps)


def event_frames(fps: float, merge_gap_s: float, min_event_s: float) -> tuple[int, int]:
    """(most frames below the threshold that two alarms are merged across, fewest frames of an event).

    The first is the whole frames in ``merge_gap_s``, the second the frames that last at least ``min_event_s``. The
    margin keeps 0.29 s at 100 fps at 29 frames, where floating point says 28.999...
    """
    return math.floor(merge_gap_s * fps + 1e-9), max(1, math.ceil(min_event_s * fps - 1e-9))


def runs(flags: np.ndarray) -> np.ndarray:
    """First and last (inclusive) index of every run of true values of ``flags`` bool ``[T]``: int64 ``[runs, 2]``."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges.reshape(-1, 2) - np.array([0, 1])


def find_events(
    scores: np.ndarray, threshold: float, fps: float, merge_gap_s: float = 0.0, min_event_s: float = 0.0
) -> list[Event]:
    """The events of one clip, in order.

    A frame alarms when its score reaches (>=) the threshold. Alarms with at most ``merge_gap_s`` of judged footage
    between them are one event; an event shorter than ``min_event_s``, after merging, is none. A frame without a score
    is never part of an event and ends the event before it. scores: ``[T]``, NaN = not judged.
    """
    scores = np.asarray(scores, np.float64)
    gap, shortest = event_frames(fps, merge_gap_s, min_event_s)
    unjudged = np.concatenate(([0], np.cumsum(np.isnan(scores))))  # [T + 1], unjudged frames before each frame
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

    right: the numbers of the alarms that notice a run of abnormal frames. false: of those that do not, and hold a normal
    frame; one on unlabelled frames alone is neither. runs: (first frame, last frame, the first of its frames in an alarm
    that noticed it or None) of every run of which at least one frame was judged.
    """

    right: list[int]
    false: list[int]
    runs: list[tuple[int, int, int | None]]


def match_events(events: Sequence[Event], scores: np.ndarray, labels: np.ndarray, fps: float) -> EventMatches:
    """Match the alarms of one clip, in their order, with its labels.

    An alarm notices a run of abnormal frames that it begins in, or that it reaches after no more labelled frames than fit
    into ``EARLY_SECONDS``: one that is on already has noticed nothing. scores: ``[T]``, NaN = not judged; labels: ``[T]``,
    0, 1 or NaN; both by frame number.
    """
    abnormal = [(start, end) for start, end in runs(labels == 1).tolist()]
    noticed: dict[int, int] = {}  # first frame of a run -> the first of its frames in an alarm that noticed it
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
    """The scores and the labels of one clip by frame number, ``[T]`` each, NaN where ``rows`` has no such frame."""
    scores, labels = np.full((2, int(rows["frame"].max()) + 1), np.nan)
    scores[rows["frame"]], labels[rows["frame"]] = rows["score"], rows["label"]
    return scores, labels


def detection_metrics(
    table: pd.DataFrame, threshold: float, fps: Fps, merge_gap_s: float = 0.0, min_event_s: float = 0.0
) -> dict[str, int | float | None]:
    """What a person who watches the alarms gets. ``table``: clip, frame, label (0, 1, NaN), score (NaN = not judged).

    An alarm is an event of :func:`find_events`; :func:`match_events` says what it notices. It is right when it notices a
    run of abnormal frames. ``events_true``: runs of which at least one frame was judged. ``alarms``,
    ``alarms_per_hour``: all alarms, and that many in an hour of judged frames. ``detected``: the runs that an alarm noticed.
    ``detection_delay_seconds``: from a run's first frame to the first of its frames that lies in such an alarm; mean over
    the detected. ``false_alarms``: alarms with a normal frame that are not right; one on unlabelled frames alone is
    neither. ``alarm_precision``: the share of right ones among right and false ones. ``normal_hours``: judged frames
    labelled normal; ``normal_alarmed``: the share of them that lies in any alarm. A figure that is undefined is None.
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
    """Whether an alarm is about the abnormal frames ``start`` to ``end``: begins among them, or shortly before."""
    before = labels[event.start_frame : start]  # empty where it begins among them
    early = math.floor(EARLY_SECONDS * fps + 1e-9)
    return event.start_frame <= end and start <= event.end_frame and int(np.sum(~np.isnan(before))) <= early


def smooth(scores: np.ndarray, sigma_frames: float) -> np.ndarray:
    """Gaussian smoothing along time within one clip; a frame without a score keeps none and lends none.

    Normalised convolution: (g * s) / (g * 1) over the judged frames, so that clip ends and gaps do not pull scores down.
    The kernel ends at 4 sigma on both sides: a smoothed score knows 4 sigma frames of its future. scores: ``[T]``;
    sigma 0 gives an unchanged copy.
    """
    scores = np.array(scores, np.float64)
    if sigma_frames == 0:
        return scores
    from scipy.ndimage import gaussian_filter1d  # takes a tenth of a second to import

    judged = ~np.isnan(scores)
    total = gaussian_filter1d(np.where(judged, scores, 0.0), sigma_frames, mode="constant")
    weight = gaussian_filter1d(judged.astype(np.float64), sigma_frames, mode="constant")
    return np.divide(total, weight, out=np.full_like(scores, np.nan), where=judged)
