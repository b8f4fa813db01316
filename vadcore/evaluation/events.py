"""Find events in scores over time; compute detection delay and false alarms per hour from events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vadcore.utils.times import shown

Fps = float | Mapping[str, float]  # frames per second: one rate for all clips, or clip -> rate
SECONDS_AN_HOUR = 3600.0
TOLERANCE = 1e-6  # frame periods; 0.29 s at 100 fps is 29 frames, not 28.999...
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


def times_of(rows: pd.DataFrame) -> tuple[float, np.ndarray | None]:
    """Frame rate of one clip, and the seconds of its frames ``[T]``; None if frame k is at ``k / fps``.

    rows: frame, fps, and ``seconds`` if any clip of the table has times of its own.
    """
    fps = float(rows["fps"].iloc[0])
    if "seconds" not in rows:
        return fps, None
    seconds = rows["seconds"].to_numpy(np.float64)
    return fps, None if np.allclose(seconds * fps, rows["frame"], rtol=0, atol=1e-6) else seconds


def runs(flags: np.ndarray) -> np.ndarray:
    """First and last (inclusive) index of every run of true values in ``flags`` bool ``[T]``: int64 ``[runs, 2]``."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges.reshape(-1, 2) - np.array([0, 1])


def find_events(
    scores: np.ndarray,
    threshold: float,
    fps: float,
    merge_gap_s: float = 0.0,
    min_event_s: float = 0.0,
    seconds: np.ndarray | None = None,
) -> list[Event]:
    """Find the events of one clip, in order.

    A frame is an alarm if its score is at or above the threshold. Alarms at most ``merge_gap_s`` apart are merged into
    one event. After merging, events shorter than ``min_event_s`` are discarded. A frame without a score ends an event
    and is never part of one.

    scores: ``[T]``, NaN = not scored. fps: frames per second. merge_gap_s, min_event_s: seconds. seconds: times of the
    frames, see :func:`shown`.
    """
    scores = np.asarray(scores, np.float64)
    from_, to = shown(len(scores), fps, seconds)
    unjudged = np.cumsum(np.isnan(scores))  # [T], unscored frames up to each frame
    alarms = np.flatnonzero(scores >= threshold)
    before, after = alarms[:-1], alarms[1:]
    apart = (from_[after] - to[before] > merge_gap_s * fps + TOLERANCE) | (unjudged[after] > unjudged[before])
    starts, ends = alarms[np.concatenate(([True], apart))[: len(alarms)]], alarms[np.append(apart, True)[: len(alarms)]]
    events = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if to[end] - from_[start] >= min_event_s * fps - TOLERANCE:
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


def match_events(
    events: Sequence[Event], scores: np.ndarray, labels: np.ndarray, fps: float, seconds: np.ndarray | None = None
) -> EventMatches:
    """Match the alarms of one clip with its labels.

    An alarm detects a run of abnormal frames if it overlaps the run and begins inside it, or before it by labelled frames
    of at most ``EARLY_SECONDS``. An alarm that began earlier is not a detection of that run.

    events: in order of time. scores: ``[T]``, NaN = not scored. labels: ``[T]``, 0 (normal), 1 (abnormal) or NaN
    (unlabelled). Both are indexed by frame number. fps, seconds: see :func:`shown`.
    """
    starts, stops = shown(len(scores), fps, seconds)
    labelled = np.where(np.isnan(labels), 0, stops - starts)  # frame periods
    abnormal = [(start, end) for start, end in runs(labels == 1).tolist()]
    noticed: dict[int, int] = {}  # first frame of a run -> first frame of it inside a detecting alarm
    right, false = [], []
    for number, event in enumerate(events):
        seen = [start for start, end in abnormal if _notices(event, start, end, labelled, fps)]
        if seen:
            right.append(number)
        elif np.any(labels[event.start_frame : event.end_frame + 1] == 0):
            false.append(number)
        for start in seen:
            noticed.setdefault(start, max(start, event.start_frame))
    judged = [(start, end) for start, end in abnormal if not np.isnan(scores[start : end + 1]).all()]
    return EventMatches(right, false, [(start, end, noticed.get(start)) for start, end in judged])


def by_frame(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Scores, labels and seconds of one clip by frame number: ``[T]`` each, NaN for frames missing in ``rows``.

    The seconds of missing frames are interpolated. They are None if frame k is at ``k / fps``.
    """
    count = int(rows["frame"].max()) + 1
    scores, labels = np.full((2, count), np.nan)
    scores[rows["frame"]], labels[rows["frame"]] = rows["score"], rows["label"]
    if "seconds" not in rows or (seconds := times_of(rows)[1]) is None:
        return scores, labels, None
    order = np.argsort(rows["frame"].to_numpy())
    return scores, labels, np.interp(np.arange(count), rows["frame"].to_numpy()[order], seconds[order])


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
        scores, labels, seconds = by_frame(rows)
        starts, stops = shown(len(scores), rate, seconds)
        events = find_events(scores, threshold, rate, merge_gap_s, min_event_s, seconds)
        judged, normal = ~np.isnan(scores), (labels == 0) & ~np.isnan(scores)
        found += len(events)
        outcome = match_events(events, scores, labels, rate, seconds)
        right += len(outcome.right)
        false += len(outcome.false)
        alarmed = np.zeros(len(scores), bool)
        for event in events:
            alarmed[event.start_frame : event.end_frame + 1] = True
        judged_seconds += (stops - starts)[judged].sum() / rate
        normal_seconds += (stops - starts)[normal].sum() / rate
        alarmed_seconds += (stops - starts)[normal & alarmed].sum() / rate
        true += len(outcome.runs)
        delays += [float(starts[first] - starts[start]) / rate for start, _, first in outcome.runs if first is not None]
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


def _notices(event: Event, start: int, end: int, labelled: np.ndarray, fps: float) -> bool:
    """Whether an alarm detects the abnormal frames ``start`` to ``end``: it begins inside them, or shortly before."""
    early = labelled[event.start_frame : start].sum()  # 0 if the alarm begins inside them
    return event.start_frame <= end and start <= event.end_frame and early <= EARLY_SECONDS * fps + TOLERANCE


def smooth(scores: np.ndarray, sigma_frames: float, fps: float = 1.0, seconds: np.ndarray | None = None) -> np.ndarray:
    """Smooth the scores of one clip over time with a Gaussian.

    Uses normalised convolution, (g * s) / (g * 1) over the scored frames, so that clip ends and gaps do not lower the
    scores. Frames without a score stay NaN and do not affect other frames. The kernel is truncated at 4 sigma on both
    sides, so a smoothed score depends on up to 4 sigma future frames.

    scores: ``[T]``, NaN = not scored. sigma_frames: sigma in frame periods; 0 returns an unchanged copy. fps, seconds: see
    :func:`shown`; with times of its own, a frame counts for as long as it is shown.
    """
    scores = np.array(scores, np.float64)
    if sigma_frames == 0:
        return scores
    judged = ~np.isnan(scores)
    values = np.where(judged, scores, 0.0)
    if seconds is None:
        from scipy.ndimage import gaussian_filter1d  # imported here: the import takes 0.1 s

        total = gaussian_filter1d(values, sigma_frames, mode="constant")
        weight = gaussian_filter1d(judged.astype(np.float64), sigma_frames, mode="constant")
    else:
        starts, stops = shown(len(scores), fps, seconds)
        lengths = np.where(judged, stops - starts, 0.0)
        total, weight = values * lengths, lengths.copy()
        for step in range(1, len(scores)):
            apart = starts[step:] - starts[:-step]
            if apart.min() > 4 * sigma_frames:
                break
            near = np.where(apart <= 4 * sigma_frames, np.exp(-0.5 * (apart / sigma_frames) ** 2), 0.0)
            for to, of in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
                total[to] += near * (values * lengths)[of]
                weight[to] += near * lengths[of]
    return np.divide(total, weight, out=np.full_like(scores, np.nan), where=judged)
