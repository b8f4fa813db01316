"""Calibrate p-values and alarm thresholds on the normal footage, without test footage.

P-values come from *unseen* clips: those that were held out from training, or were scored by statistics that were computed
without them (cross-fitting). Thresholds also use the clips that the system was trained on: these can only raise a
threshold, since a system scores them lower than new footage, if anything.

Footage is summarised by its *alarm levels* T_1 >= T_2 >= ...: T_m is the highest threshold at which it has at least m
events. The number of events is not monotone in the threshold, because at low thresholds alarms merge into one; T_m is the
smallest threshold at which, and above which, the footage has at most m events. Similar footage of the same length is
expected to have m events above T_m.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from vadcore.evaluation.events import SECONDS_AN_HOUR, TOLERANCE, Fps, fps_of, runs
from vadcore.utils.errors import VadError
from vadcore.utils.times import shown

SCORES_KEPT = 4096  # order statistics from which p-values are computed
LEVELS_KEPT = 512  # the first alarm levels are all kept; after them, one level per 2 % step
TAIL_LEVELS = 10  # minimum number of alarm levels for the tail fit; all levels if there are fewer
SHAPE_LEVELS = 50  # with fewer, a heavy tail cannot be distinguished from an exponential one
FEW_LEVELS = 5  # with fewer, the spread of the scores cannot be estimated from the levels
BEYOND = 3.0  # a threshold is extrapolated to at most this many times the length of the footage between two events

Times = Mapping[str, np.ndarray]  # clip -> seconds of each frame, of clips whose frame k is not at k / fps


class AlarmLevels(BaseModel):
    """How often a system raises an alarm on normal footage, by threshold.

    Attributes
    ----------
    hours: amount of scored footage.
    level_events, levels: m (ascending) and T_m (descending); every m up to ``LEVELS_KEPT``, then in steps of 2 %.
    tail_base, tail_events, tail_scale, tail_shape: generalised Pareto tail, fitted to the alarm levels above
        ``tail_base``; ``tail_events`` events reach ``tail_base``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours: float
    level_events: tuple[int, ...]
    levels: tuple[float, ...]
    tail_base: float
    tail_events: int
    tail_scale: float
    tail_shape: float

    def threshold_at(self, rate: float) -> float:
        """Threshold for ``rate`` events per hour: T_m with m = rate x hours, rounded down; the next higher number if
        T_m+1 is the same, so that at most m events remain. For fewer than one event in the footage, the threshold at
        which the fitted tail has the rate, above the highest level.
        """
        events = math.floor(rate * self.hours + 1e-9)
        if events >= 1:
            # last kept level with m <= events; if that m was thinned out, the next higher level is used
            number = int(np.searchsorted(self.level_events, events, side="right")) - 1
            level = self.levels[number]
            return math.nextafter(level, math.inf) if level in self.levels[number + 1 : number + 2] else level
        times = self.tail_events / self.hours / rate  # how much rarer than tail_base
        shape = self.tail_shape
        reach = math.log(times) if shape == 0 else (times**shape - 1) / shape
        return max(self.tail_base + self.tail_scale * reach, math.nextafter(self.levels[0], math.inf))


class Calibration(BaseModel):
    """Score statistics of normal clips: threshold, p-values, alarm levels. Made by :func:`calibrate`.

    Holds plain numbers and is saved as JSON.

    Attributes
    ----------
    threshold: alarm threshold on the score; equal to ``threshold_at(target_far_per_hour)``.
    target_far_per_hour: requested false-alarm rate, in events per hour.
    extrapolated: whether the rate is below ``resolvable_rate``; the threshold then comes from a fitted tail.
    resolvable_rate: the rate, per hour, that corresponds to one event in all the normal footage.
    supported_rate: the rate, per hour, that the threshold is made for: the requested one, but at least the lowest one
        that the footage supports, ``resolvable_rate / BEYOND``.
    footage_hours, frames, clips: amount of unseen footage with scores.
    seen_hours: amount of scored footage that the system was trained on.
    unseen, normal: alarm levels of the unseen footage and of all normal footage.
    merge_gap_s, min_event_s: definition of an event, in seconds, as in :func:`vadcore.evaluation.events.find_events`.
    quiet, busy: range of the scores in which the middle half of each clip may lie, see :meth:`drift`.
    scores, above: unseen scores in ascending order, and for each the number of unseen scores above it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    target_far_per_hour: float
    extrapolated: bool
    resolvable_rate: float
    supported_rate: float
    footage_hours: float
    frames: int
    clips: int
    seen_hours: float
    merge_gap_s: float
    min_event_s: float
    unseen: AlarmLevels
    normal: AlarmLevels
    quiet: float
    busy: float
    scores: tuple[float, ...]
    above: tuple[int, ...]

    def p_value(self, scores: np.ndarray | float) -> np.ndarray:
        """P-value of each score: the share of unseen normal frames that score at least as high.

        Computed as (1 + number of unseen scores >= s) / (1 + number of unseen scores). ``scores`` may have any
        shape; NaN stays NaN. Exact if the held-out scores have at most ``SCORES_KEPT`` distinct values, and in the
        upper tail. Otherwise the p-value may be too high by at most 1/2048; it is never too low.
        """
        scores = np.asarray(scores, np.float64)
        below = np.searchsorted(self.scores, scores)  # number of kept scores below each score
        at_least = np.concatenate(([self.frames], self.above))[below]
        return np.where(np.isnan(scores), np.nan, (1 + at_least) / (1 + self.frames))

    def threshold_at(self, target_far_per_hour: float) -> float:
        """Threshold for a false-alarm rate, counted in events (not frames) per hour. A higher rate lowers it.

        - Rate of at least ``resolvable_rate``: the smallest threshold such that the normal footage does not exceed the
          rate at this or any higher threshold, and the unseen footage alone does not exceed it either (by more than the
          one event that a short piece may have).
        - Lower rate: the threshold at which the fitted tail of all normal footage has that rate, but at most as if there
          were ``BEYOND`` times as much footage. A lower rate needs more footage.
        """
        _check_rate(target_far_per_hour)
        unseen = self.unseen.threshold_at(max(target_far_per_hour, 1 / self.unseen.hours))
        return max(unseen, self.normal.threshold_at(self.supported(target_far_per_hour)))

    def supported(self, target_far_per_hour: float) -> float:
        """The rate itself, or the lowest rate that the footage supports if that is higher."""
        return max(target_far_per_hour, self.resolvable_rate / BEYOND)

    def at_rate(self, target_far_per_hour: float) -> Calibration:
        """The same calibration with the threshold for another rate."""
        changed = {
            "target_far_per_hour": target_far_per_hour,
            "threshold": self.threshold_at(target_far_per_hour),
            "extrapolated": target_far_per_hour < self.resolvable_rate * (1 - 1e-9),
            "supported_rate": self.supported(target_far_per_hour),
        }
        return self.model_copy(update=changed)

    def drift(self, scores: np.ndarray) -> Literal["higher", "lower"] | None:
        """Whether new footage scores so differently as a whole that the calibration does not fit it.

        "higher": three quarters of its frames score above the upper quartile of the unseen normal footage and above the
        lower quartile of every single clip of it. "lower": the mirror image. None: neither, or no frame has a score.
        Anomalies in less than three quarters of the frames do not matter.
        """
        scores = np.asarray(scores, np.float64)
        scores = scores[~np.isnan(scores)]
        if not len(scores):
            return None
        lower, upper = np.quantile(scores, [0.25, 0.75])
        return "higher" if lower > self.busy else "lower" if upper < self.quiet else None

    @property
    def highest_rate(self) -> float:
        """Maximum number of events over all thresholds, per hour. Higher target rates give the same threshold."""
        return max(part.level_events[-1] / part.hours for part in (self.unseen, self.normal))

    def to_json(self) -> str:
        """Serialise to JSON without loss of floating-point precision."""
        return self.model_dump_json() + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "calibration.json") -> Calibration:
        """Read the output of :meth:`to_json`.

        Raises :class:`VadError` if ``text`` is not a calibration; ``name`` is the file name in that message.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"])) or "JSON"
            raise VadError(f"{name}: {key}: {fault['msg']}; run the score stage again") from error


def calibrate(
    scores: Mapping[str, np.ndarray],
    fps: Fps,
    target_far_per_hour: float,
    merge_gap_s: float = 0.0,
    min_event_s: float = 0.0,
    seen: Container[str] = (),
    seconds: Times = MappingProxyType({}),
) -> Calibration:
    """Calibrate p-values and the alarm threshold on normal clips.

    P-values treat frames as exchangeable, which neighbouring frames are not. Use p-values for single frames; use the
    threshold, which counts events, for alarms.

    Parameters
    ----------
    scores: clip -> scores ``[T]``, NaN = not scored. They must be smoothed in the same way as in use.
    fps: frames per second, of all clips or per clip.
    target_far_per_hour: false-alarm rate, in events per hour, above 0.
    merge_gap_s, min_event_s: definition of an event, in seconds, see :func:`vadcore.evaluation.events.find_events`.
    seen: the clips of ``scores`` that the system was trained on.
    seconds: times of the frames ``[T]`` of clips whose frame k is not at ``k / fps``.

    Raises :class:`VadError` if no unseen clip has a score or if a score is infinite.
    """
    _check_rate(target_far_per_hour)
    scores = {clip: np.asarray(of_clip, np.float64) for clip, of_clip in scores.items()}
    for clip, of_clip in scores.items():
        if np.isinf(of_clip).any():
            frame = int(np.flatnonzero(np.isinf(of_clip))[0])
            raise VadError(f"normal clip {clip}: frame {frame} scores {of_clip[frame]}; use a measure that is finite")
    unseen = {clip: of_clip for clip, of_clip in scores.items() if clip not in seen}
    judged = [of_clip[~np.isnan(of_clip)] for of_clip in unseen.values()]
    judged = [of_clip for of_clip in judged if len(of_clip)]
    if not judged:
        total = sum(map(len, unseen.values()))
        raise VadError(
            f"held-out footage: none of its {total} frames in {len(unseen)} clips has a score; "
            "raise train.val_share or give more (or longer) normal training clips"
        )
    rule = (fps, merge_gap_s, min_event_s, seconds)
    of_unseen = _alarm_levels_of(unseen, *rule)
    of_all = of_unseen if len(unseen) == len(scores) else _alarm_levels_of(scores, *rule)
    values = np.concatenate(judged)
    distinct, above = _order_statistics(values)
    quartiles = np.array([np.quantile(of_clip, [0.25, 0.75]) for of_clip in (values, *judged)])  # [1 + clips, 2]
    calibration = Calibration(
        threshold=0.0,
        target_far_per_hour=target_far_per_hour,
        extrapolated=False,
        resolvable_rate=1 / of_all.hours,
        supported_rate=target_far_per_hour,
        footage_hours=of_unseen.hours,
        frames=len(values),
        clips=len(judged),
        seen_hours=of_all.hours - of_unseen.hours,
        merge_gap_s=merge_gap_s,
        min_event_s=min_event_s,
        unseen=of_unseen,
        normal=of_all,
        quiet=min(quartiles[0, 0], quartiles[1:, 1].min()),
        busy=max(quartiles[0, 1], quartiles[1:, 0].max()),
        scores=distinct,
        above=above,
    )
    return calibration.at_rate(target_far_per_hour)


def _alarm_levels_of(
    scores: Mapping[str, np.ndarray], fps: Fps, merge_gap_s: float, min_event_s: float, seconds: Times
) -> AlarmLevels:
    """Alarm levels of footage; at least one frame has a score."""
    values = np.concatenate([of_clip[~np.isnan(of_clip)] for of_clip in scores.values()])
    levels = alarm_levels(scores, fps, merge_gap_s, min_event_s, seconds)
    if not len(levels):  # all scored runs are shorter than an event: use the highest score as the only level
        levels = values.max(keepdims=True)
    kept = _kept_levels(len(levels))
    lengths = []
    for clip, of_clip in scores.items():
        starts, stops = shown(len(of_clip), fps_of(fps, clip), seconds.get(clip))
        lengths.append((stops - starts)[~np.isnan(of_clip)].sum() / fps_of(fps, clip))
    base, events, scale, shape = _fit_tail(levels, float(values.std()))
    return AlarmLevels(
        hours=float(sum(lengths)) / SECONDS_AN_HOUR,
        level_events=tuple((kept + 1).tolist()),
        levels=tuple(levels[kept].tolist()),
        tail_base=base,
        tail_events=events,
        tail_scale=scale,
        tail_shape=shape,
    )


def alarm_levels(
    scores: Mapping[str, np.ndarray],
    fps: Fps,
    merge_gap_s: float = 0.0,
    min_event_s: float = 0.0,
    seconds: Times = MappingProxyType({}),
) -> np.ndarray:
    """Alarm levels T_1 >= T_2 >= ...: T_m is the highest threshold with at least m events over all clips.

    Events are those of ``find_events``. The result is exact, and no threshold is tried. Let g be the time across which
    alarms are merged, L the minimum length of an event, and s_p the score of frame p.

    - An event starts at frame p if the threshold t is above m_p, the highest score in the time g before p, and at most
      s_p.
    - The event lasts at least L if, after each frame from p on that ends less than L after the start of p, an alarm
      follows within g: if t is at most r_p, the minimum over these frames of the highest score in the time g after them.

    The number of events at t is therefore the number of frames p with m_p < t <= min(s_p, r_p).

    scores: clip -> ``[T]``, NaN = not scored. seconds: as for :func:`calibrate`. Returns ``[levels]``, descending.
    """
    edges = []  # upper (included) and lower (excluded) threshold at which a frame starts an event
    for clip, of_clip in scores.items():
        rate = fps_of(fps, clip)
        every = np.array(shown(len(of_clip), rate, seconds.get(clip)), np.float64)
        gap, shortest = merge_gap_s * rate + TOLERANCE, min_event_s * rate - TOLERANCE
        for first, last in runs(~np.isnan(of_clip)):
            run, (starts, stops) = np.asarray(of_clip[first : last + 1], np.float64), every[:, first : last + 1]
            number = np.arange(len(run))
            before = _range_max(run, np.searchsorted(stops, starts - gap), number)
            after = _range_max(run, number + 1, np.searchsorted(starts, stops + gap, side="right"))
            until = np.minimum(run, -_range_max(-after, number, np.searchsorted(stops, starts + shortest)))
            new = until > before
            edges.append(np.stack((until[new], before[new])))
    upper, lower = np.sort(np.concatenate([*edges, np.empty((2, 0))], axis=1))
    candidates = np.unique(upper)[::-1]
    at_least = len(upper) - np.searchsorted(upper, candidates)
    most = np.maximum.accumulate(at_least - (len(lower) - np.searchsorted(lower, candidates)))
    return np.repeat(candidates, np.diff(most, prepend=0))


def _range_max(values: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Maximum of ``values[first[i] : stop[i]]`` for every i; minus infinity where that is empty."""
    highest, result = values, np.full(len(first), -np.inf)
    for power in range(int(max(0, (stop - first).max(initial=0))).bit_length()):
        width = 1 << power  # highest[k] is the maximum of values[k : k + width]
        fit = (stop - first >= width) & (stop - first < 2 * width)
        result[fit] = np.maximum(highest[first[fit]], highest[stop[fit] - width])
        highest = np.maximum(highest[:-width], highest[width:])
    return result


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and rate > 0):
        raise VadError(f"target_far_per_hour: {rate} is not a rate; give a number above 0")


def _kept_levels(count: int) -> np.ndarray:
    """Positions of the alarm levels to keep: all up to LEVELS_KEPT, then in steps of 2 %, and the last."""
    if count <= LEVELS_KEPT:
        return np.arange(count)
    steps = math.ceil(math.log(count / LEVELS_KEPT) / math.log(1.02)) + 1
    rest = np.geomspace(LEVELS_KEPT, count, steps).round().astype(np.int64) - 1
    return np.unique(np.concatenate((np.arange(LEVELS_KEPT), rest)))


def _fit_tail(levels: np.ndarray, spread: float) -> tuple[float, int, float, float]:
    """Fit a generalised Pareto tail to the alarm levels (peaks over threshold): base, events, scale and shape.

    The alarm levels are the peaks; they are declustered by the definition of an event. The fit uses
    probability-weighted moments (Hosking & Wallis 1987) on the highest tenth of the levels. The shape is clipped to
    0..0.5, because a negative shape would imply an upper bound on the scores of normal footage. With fewer than
    ``SHAPE_LEVELS`` excesses the shape is 0 (exponential tail). With fewer than ``FEW_LEVELS`` levels the scale is at
    least ``spread``, the standard deviation of the scores.
    """
    count = min(len(levels), max(TAIL_LEVELS, len(levels) // 10))
    base = levels[count - 1]
    excess = (levels[: count - 1] - base)[::-1]  # ascending
    mean, shape = float(excess.mean()) if len(excess) else 0.0, 0.0
    if len(excess) >= SHAPE_LEVELS and mean > 0:
        rank = np.arange(len(excess), 0, -1) - 0.65  # plotting positions of 1 - F
        weighted = float(np.mean(excess * rank / len(excess)))
        shape = float(np.clip(2 - mean / (mean - 2 * weighted), 0.0, 0.5)) if mean > 2 * weighted else 0.5
    scale = mean * (1 - shape)
    if len(excess) < FEW_LEVELS - 1:
        scale = max(scale, spread)
    return float(base), count, scale, shape


def _order_statistics(values: np.ndarray) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Distinct scores in ascending order, and for each the number of scores above it; thinned to ``SCORES_KEPT``.

    The upper half of the kept scores has no gaps. The lower half is spaced at equal counts of scores.
    """
    distinct, counts = np.unique(values, return_counts=True)
    above = len(values) - np.cumsum(counts)
    if len(distinct) > SCORES_KEPT:
        half = SCORES_KEPT // 2
        tail = len(distinct) - half
        wanted = np.linspace(len(values), above[tail], half + 1)
        body = np.searchsorted(-above, -wanted)  # first score with at most that many scores above it
        kept = np.unique(np.concatenate((body, np.arange(tail, len(distinct)))))
        distinct, above = distinct[kept], above[kept]
    return tuple(distinct.tolist()), tuple(above.tolist())
