"""P-values and alarm thresholds from normal footage that training did not see. No other footage has a say.

The number of events at a threshold is not monotone: far down, alarms merge into one. So "at most m events" means at this
threshold and at every higher one, and the footage is summed up by its *alarm levels* T_1 >= T_2 >= ...: T_m is the
highest threshold at which it has at least m events. The smallest threshold with at most m events lies just above T_m+1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import BaseModel, ConfigDict, ValidationError

from vadcore.evaluation.events import SECONDS_AN_HOUR, Fps, event_frames, fps_of, runs
from vadcore.utils.errors import VadError

SCORES_KEPT = 4096  # order statistics behind the p-values
LEVELS_KEPT = 512  # alarm levels kept one by one; beyond, every 2 %
TAIL_LEVELS = 10  # the tail is fitted to at least so many alarm levels, where there are that many
SHAPE_LEVELS = 50  # fewer cannot tell a heavy tail from an exponential one
FEW_LEVELS = 5  # fewer say little about how far scores spread


class Calibration(BaseModel):
    """What held-out normal footage says about scores. Made by :func:`calibrate`; plain numbers, saved as JSON.

    Attributes
    ----------
    target_far_per_hour: the rate that was asked for; ``threshold`` is ``threshold_at`` this rate.
    extrapolated: the rate is below ``resolvable_rate``, so that the threshold comes from a fitted tail.
    resolvable_rate: one event in all the footage, per hour.
    footage_hours, frames, clips: the judged footage behind all this.
    merge_gap_s, min_event_s: what an event is, as in :func:`vadcore.evaluation.events.find_events`.
    level_events, levels: m and T_m, falling; every m up to ``LEVELS_KEPT``, then in steps of 2 %.
    tail_base, tail_events, tail_scale, tail_shape: generalised Pareto tail of the alarm levels above ``tail_base``,
        which ``tail_events`` events reach.
    scores, above: held-out scores, rising, and how many held-out scores are higher than each.
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
        """(1 + held-out scores >= s) / (1 + held-out scores), for every s of an array of any shape; NaN stays NaN.

        How often a normal frame scores as high or higher. Exact while the held-out scores have at most ``SCORES_KEPT``
        distinct values, and in the upper tail; else never understated, and overstated by at most 1/2048.
        """
        scores = np.asarray(scores, np.float64)
        below = np.searchsorted(self.scores, scores)  # kept scores that are lower
        at_least = np.concatenate(([self.frames], self.above))[below]
        return np.where(np.isnan(scores), np.nan, (1 + at_least) / (1 + self.frames))

    def threshold_at(self, target_far_per_hour: float) -> float:
        """The threshold for a rate of false alarms (events, not frames) per hour; the higher the rate, the lower.

        From ``resolvable_rate`` on: the smallest threshold at which, and above which, the held-out footage has no more
        events an hour. A rate that no threshold exceeds gives the lowest that still keeps below the most events the
        footage ever has. Below ``resolvable_rate``: where the fitted tail has that rate, but no lower than the smallest
        threshold at which the held-out footage has no event.
        """
        _check_rate(target_far_per_hour)
        allowed = math.floor(target_far_per_hour * self.footage_hours + 1e-9)
        # of the kept levels the last with m <= allowed + 1: if m itself was thinned out, a higher level stands in
        at = np.searchsorted(self.level_events, allowed + 1, side="right") - 1
        empirical = math.nextafter(self.levels[at], math.inf)
        if allowed >= 1:
            return empirical
        times = self.tail_events / self.footage_hours / target_far_per_hour  # rarer than the tail's base
        shape = self.tail_shape
        reach = math.log(times) if shape == 0 else (times**shape - 1) / shape
        return max(self.tail_base + self.tail_scale * reach, empirical)

    @property
    def highest_rate(self) -> float:
        """The most events that the footage has at any threshold, per hour: what is asked beyond that changes nothing."""
        return self.level_events[-1] / self.footage_hours

    def to_json(self) -> str:
        """All of it as JSON; floats keep every bit."""
        return self.model_dump_json() + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "calibration.json") -> Calibration:
        """The inverse of :meth:`to_json`. ``name``: what to call the text if it is not a calibration (VadError)."""
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
    """Calibrate on held-out normal footage: clip -> scores ``[T]``, NaN = not judged, smoothed as they will be in use.

    P-values treat frames as exchangeable; neighbouring frames are not, so a p-value speaks of a frame, and the
    threshold, which counts events, of alarms. Raises :class:`VadError` when there is no score or one is infinite.
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
    if not len(levels):  # every judged run is shorter than an event: the highest score stands for the one that may come
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
    """T_1 >= T_2 >= ...: the highest threshold at which ``find_events`` finds at least 1, 2, ... events in all clips.

    Exact, and without trying any threshold. With alarms merged across at most g frames, an event starts at frame p for
    the thresholds above m_p = the highest of the g + 1 scores before p, up to s_p; it lasts at least L frames as long
    as each of the L - 1 windows of g + 1 frames that start after p, p + 1, ... still holds an alarm: up to r_p = the
    lowest of these windows' highest scores. So the number of events at t is the number of p with
    m_p < t <= min(s_p, r_p).
    """
    born, gone = [], []  # the thresholds from which down, and until which, a frame starts an event
    for clip, of_clip in scores.items():
        gap, shortest = event_frames(fps_of(fps, clip), merge_gap_s, min_event_s)
        for first, last in runs(~np.isnan(of_clip)):
            run = np.asarray(of_clip[first : last + 1], np.float64)
            window = min(gap + 1, len(run))
            edge = np.full(window, -np.inf)
            highest = sliding_window_view(np.concatenate((edge, run, edge)), window).max(axis=1)
            before = highest[: len(run)]  # of frames p - window ... p - 1
            after = highest[window + 1 :][: len(run)]  # of frames p + 1 ... p + window
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
    """Positions of the alarm levels to keep: all up to LEVELS_KEPT, then every 2 %, and the last."""
    if count <= LEVELS_KEPT:
        return np.arange(count)
    steps = math.ceil(math.log(count / LEVELS_KEPT) / math.log(1.02)) + 1
    rest = np.geomspace(LEVELS_KEPT, count, steps).round().astype(np.int64) - 1
    return np.unique(np.concatenate((np.arange(LEVELS_KEPT), rest)))


def _fit_tail(levels: np.ndarray, spread: float) -> dict[str, float | int]:
    """Peaks over threshold: the alarm levels are the peaks, declustered by the rule that makes events.

    Generalised Pareto by probability-weighted moments (Hosking & Wallis 1987) over the highest tenth of the levels. Its
    shape is held in 0..0.5: a negative one would promise a score that normal footage never exceeds. With fewer than
    ``SHAPE_LEVELS`` excesses it is 0, an exponential tail; with fewer than ``FEW_LEVELS`` its scale is no less than the
    standard deviation of the scores.
    """
    count = min(len(levels), max(TAIL_LEVELS, len(levels) // 10))
    base = levels[count - 1]
    excess = (levels[: count - 1] - base)[::-1]  # rising
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
    """Distinct scores, rising, and how many are higher than each: the upper half of the kept ones without a gap, the
    lower half so that the count between neighbours is the same everywhere."""
    distinct, counts = np.unique(values, return_counts=True)
    above = len(values) - np.cumsum(counts)
    if len(distinct) > SCORES_KEPT:
        half = SCORES_KEPT // 2
        tail = len(distinct) - half
        wanted = np.linspace(len(values), above[tail], half + 1)
        body = np.searchsorted(-above, -wanted)  # the first score that at most so many exceed
        kept = np.unique(np.concatenate((body, np.arange(tail, len(distinct)))))
        distinct, above = distinct[kept], above[kept]
    return {"scores": tuple(distinct.tolist()), "above": tuple(above.tolist())}
