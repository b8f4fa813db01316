"""Calibrate p-values and alarm thresholds on held-out normal clips: normal footage that was not used for training.

No other footage is used. The number of events is not monotone in the threshold: at low thresholds, alarms merge into one.
"At most m events" therefore means: at this threshold and at every higher one.

The footage is summarised by its *alarm levels* T_1 >= T_2 >= ...: T_m is the highest threshold at which the footage has
at least m events. The smallest threshold with at most m events lies just above T_(m+1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import BaseModel, ConfigDict, ValidationError

from vadcore.evaluation.events import SECONDS_AN_HOUR, Fps, event_frames, fps_of, runs
from vadcore.utils.errors import VadError

SCORES_KEPT = 4096  # order statistics from which p-values are computed
LEVELS_KEPT = 512  # the first alarm levels are all kept; after them, one level per 2 % step
TAIL_LEVELS = 10  # minimum number of alarm levels for the tail fit; all levels if there are fewer
SHAPE_LEVELS = 50  # with fewer, a heavy tail cannot be distinguished from an exponential one
FEW_LEVELS = 5  # with fewer, the spread of the scores cannot be estimated from the levels


class Calibration(BaseModel):
    """Score statistics of held-out normal clips: threshold, p-values, alarm levels. Made by :func:`calibrate`.

    Holds plain numbers and is saved as JSON.

    Attributes
    ----------
    threshold: alarm threshold on the score; equal to ``threshold_at(target_far_per_hour)``.
    target_far_per_hour: requested false-alarm rate, in events per hour.
    extrapolated: whether the rate is below ``resolvable_rate``; the threshold then comes from a fitted tail.
    resolvable_rate: the rate, per hour, that corresponds to one event in all the footage.
    footage_hours, frames, clips: amount of scored footage.
    merge_gap_s, min_event_s: definition of an event, in seconds, as in :func:`vadcore.evaluation.events.find_events`.
    level_events, levels: m (ascending) and T_m (descending); every m up to ``LEVELS_KEPT``, then in steps of 2 %.
    tail_base, tail_events, tail_scale, tail_shape: generalised Pareto tail, fitted to the alarm levels above
        ``tail_base``; ``tail_events`` events reach ``tail_base``.
    scores, above: held-out scores in ascending order, and for each the number of held-out scores above it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    target_far_per_hour: float
    extrapolated: bool
    resolvable_rate: float
    footage_hours: float
    frames: int
    clips: int
    merge_gap_s: float
    min_event_s: float
    tail_base: float
    tail_events: int
    tail_scale: float
    tail_shape: float
    level_events: tuple[int, ...]
    levels: tuple[float, ...]
    scores: tuple[float, ...]
    above: tuple[int, ...]

    def p_value(self, scores: np.ndarray | float) -> np.ndarray:
        """P-value of each score: the share of normal frames that score at least as high.

        Computed as (1 + number of held-out scores >= s) / (1 + number of held-out scores). ``scores`` may have any
        shape; NaN stays NaN. Exact if the held-out scores have at most ``SCORES_KEPT`` distinct values, and in the
        upper tail. Otherwise the p-value may be too high by at most 1/2048; it is never too low.
        """
        scores = np.asarray(scores, np.float64)
        below = np.searchsorted(self.scores, scores)  # number of kept scores below each score
        at_least = np.concatenate(([self.frames], self.above))[below]
        return np.where(np.isnan(scores), np.nan, (1 + at_least) / (1 + self.frames))

    def threshold_at(self, target_far_per_hour: float) -> float:
        """Threshold for a false-alarm rate, counted in events (not frames) per hour. A higher rate lowers it.

        - Rate of at least ``resolvable_rate``: the smallest threshold such that the held-out footage does not exceed
          the rate at this or any higher threshold. If the rate is so high that no threshold exceeds it, the result is just
          above the highest threshold at which the footage has its maximum number of events.
        - Rate below ``resolvable_rate``: the threshold at which the fitted tail has that rate, but at least the
          smallest threshold at which the held-out footage has no event.
        """
        _check_rate(target_far_per_hour)
        allowed = math.floor(target_far_per_hour * self.footage_hours + 1e-9)
        # last kept level with m <= allowed + 1; if that m was thinned out, the next higher level is used
        at = np.searchsorted(self.level_events, allowed + 1, side="right") - 1
        empirical = math.nextafter(self.levels[at], math.inf)
        if allowed >= 1:
            return empirical
        times = self.tail_events / self.footage_hours / target_far_per_hour  # how much rarer than tail_base
        shape = self.tail_shape
        reach = math.log(times) if shape == 0 else (times**shape - 1) / shape
        return max(self.tail_base + self.tail_scale * reach, empirical)

    @property
    def highest_rate(self) -> float:
        """Maximum number of events over all thresholds, per hour. Higher target rates give the same threshold."""
        return self.level_events[-1] / self.footage_hours

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
) -> Calibration:
    """Calibrate p-values and the alarm threshold on held-out normal clips.

    P-values treat frames as exchangeable, which neighbouring frames are not. Use p-values for single frames; use the
    threshold, which counts events, for alarms.

    Parameters
    ----------
    scores: clip -> scores ``[T]``, NaN = not scored. They must be smoothed in the same way as in use.
    fps: frames per second, of all clips or per clip.
    target_far_per_hour: false-alarm rate, in events per hour, above 0.
    merge_gap_s, min_event_s: definition of an event, in seconds, see :func:`vadcore.evaluation.events.find_events`.

    Raises :class:`VadError` if there is no score or if a score is infinite.
    """
    _check_rate(target_far_per_hour)
    scores = {clip: np.asarray(of_clip, np.float64) for clip, of_clip in scores.items()}
    for clip, of_clip in scores.items():
        if np.isinf(of_clip).any():
            frame = int(np.flatnonzero(np.isinf(of_clip))[0])
            raise VadError(f"held-out clip {clip}: frame {frame} scores {of_clip[frame]}; use a measure that is finite")
    judged = {clip: of_clip[~np.isnan(of_clip)] for clip, of_clip in scores.items()}
    frames = sum(map(len, judged.values()))
    if frames == 0:
        total = sum(map(len, scores.values()))
        raise VadError(
            f"held-out footage: none of its {total} frames in {len(scores)} clips has a score; "
            "raise train.val_share or give more (or longer) normal training clips"
        )
    hours = sum(len(of_clip) / fps_of(fps, clip) for clip, of_clip in judged.items()) / SECONDS_AN_HOUR
    levels = alarm_levels(scores, fps, merge_gap_s, min_event_s)
    values = np.concatenate(list(judged.values()))
    if not len(levels):  # all scored runs are shorter than an event: use the highest score as the only level
        levels = values.max(keepdims=True)
    kept = _kept_levels(len(levels))
    calibration = Calibration(
        threshold=0.0,
        target_far_per_hour=target_far_per_hour,
        extrapolated=math.floor(target_far_per_hour * hours + 1e-9) < 1,
        resolvable_rate=1 / hours,
        footage_hours=hours,
        frames=frames,
        clips=sum(len(of_clip) > 0 for of_clip in judged.values()),
        merge_gap_s=merge_gap_s,
        min_event_s=min_event_s,
        level_events=tuple((kept + 1).tolist()),
        levels=tuple(levels[kept].tolist()),
        **_fit_tail(levels, float(values.std())),
        **_order_statistics(values),
    )
    return calibration.model_copy(update={"threshold": calibration.threshold_at(target_far_per_hour)})


def alarm_levels(
    scores: Mapping[str, np.ndarray], fps: Fps, merge_gap_s: float = 0.0, min_event_s: float = 0.0
) -> np.ndarray:
    """Alarm levels T_1 >= T_2 >= ...: T_m is the highest threshold with at least m events over all clips.

    Events are those of ``find_events``. The result is exact, and no threshold is tried. Let g be the number of frames
    across which alarms are merged, L the minimum length of an event, and s_p the score of frame p.

    - An event starts at frame p if the threshold t is above m_p, the maximum of the g + 1 scores before p, and at
      most s_p.
    - The event lasts at least L frames if each of the L - 1 windows of g + 1 frames that start after p, p + 1, ...
      contains an alarm: if t is at most r_p, the minimum over these windows of their maximum score.

    The number of events at t is therefore the number of frames p with m_p < t <= min(s_p, r_p).

    scores: clip -> ``[T]``, NaN = not scored. Returns ``[levels]``, descending.
    """
    born, gone = [], []  # upper (included) and lower (excluded) threshold at which a frame starts an event
    for clip, of_clip in scores.items():
        gap, shortest = event_frames(fps_of(fps, clip), merge_gap_s, min_event_s)
        for first, last in runs(~np.isnan(of_clip)):
            run = np.asarray(of_clip[first : last + 1], np.float64)
            window = min(gap + 1, len(run))
            edge = np.full(window, -np.inf)
            highest = sliding_window_view(np.concatenate((edge, run, edge)), window).max(axis=1)
            before = highest[: len(run)]  # maximum over frames p - window ... p - 1
            after = highest[window + 1 :][: len(run)]  # maximum over frames p + 1 ... p + window
            until = run
            if shortest > len(run):
                continue
            if shortest > 1:
                span = shortest - 1
                after = np.append(after, np.full(span, -np.inf))
                lowest = sliding_window_view(after, span).min(axis=1)
                until = np.minimum(run, lowest[: len(run)])  # windows after p ... p + span - 1
            starts = until > before
            born.append(until[starts])
            gone.append(before[starts])
    born, gone = np.sort(np.concatenate([*born, []])), np.sort(np.concatenate([*gone, []]))
    candidates = np.unique(born)[::-1]
    at_least = len(born) - np.searchsorted(born, candidates)
    most = np.maximum.accumulate(at_least - (len(gone) - np.searchsorted(gone, candidates)))
    return np.repeat(candidates, np.diff(most, prepend=0))


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


def _fit_tail(levels: np.ndarray, spread: float) -> dict[str, float | int]:
    """Fit a generalised Pareto tail to the alarm levels (peaks over threshold).

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
    return {"tail_base": float(base), "tail_events": count, "tail_scale": scale, "tail_shape": shape}


def _order_statistics(values: np.ndarray) -> dict[str, tuple]:
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
    return {"scores": tuple(distinct.tolist()), "above": tuple(above.tolist())}
