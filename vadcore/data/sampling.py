"""Temporal subsampling: choose the frames that bring footage to a lower frame rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FASTER = 1.1  # a stretch this much faster than the usual rate makes a rate vary
_STRETCH = 5  # least number of frame periods over which a rate is measured, so that single uneven steps do not count


def peak_rate(times: np.ndarray, fps: float) -> float:
    """Return the rate of the fastest second of a video, frames per second, or ``fps`` where that is about the same.

    times: seconds of every frame, float64 ``[T]``, in order. fps: the usual frame rate, the median.
    """
    periods = max(_STRETCH, round(fps))
    if len(times) <= periods:
        return fps
    shortest = float((times[periods:] - times[:-periods]).min())
    fastest = periods / max(shortest, 1e-6)
    return fastest if fastest > FASTER * fps else fps


class Subsampling:
    """Choose the frames that bring footage of ``fps`` frames per second to ``wanted`` or fewer, in order of time.

    Of footage with a constant rate, these are the frames ``floor(k * every + 0.5)``, k = 0, 1, ..., with ``every`` = ``fps /
    wanted``. Where stretches of the footage are faster than ``fps``, a frame is chosen when its time reaches the next
    multiple of ``1 / wanted``, within half the time since the frame before. Frames are only dropped: footage with a lower
    rate keeps it.

    Parameters
    ----------
    fps: usual frame rate of the footage.
    wanted: frames per second to choose. None: all frames.
    times: seconds of every frame, float64 ``[T]``. None: the rate is constant.

    Attributes
    ----------
    fps: usual rate of the chosen frames.
    every: ratio of the usual rates, at least 1.
    remark: sentence about a rate that varies, or None.
    """

    def __init__(self, fps: float, wanted: float | None = None, times: np.ndarray | None = None):
        self.every = 1.0 if wanted is None else max(1.0, fps / wanted)
        self.fps = fps if wanted is None else min(fps, wanted)
        peak = fps if times is None else peak_rate(times, fps)
        self.remark = None
        if peak > fps:
            self.remark = f"its frame rate varies: mostly {fps:.3g} frames a second, up to {peak:.3g}"
        self._wanted = wanted if wanted is not None and peak > max(fps, wanted) else None  # set: chosen by time
        self._source_fps, self._next, self._before = fps, 0, 0.0

    def frame(self, k: int) -> int:
        """Number of the k-th chosen frame, if the rate is constant."""
        return math.floor(k * self.every + 0.5)

    def is_constant(self, numbers: Sequence[int], seconds: Sequence[float]) -> bool:
        """Whether these frames are the chosen ones of footage with a constant rate and no missing frames."""
        return all(
            number == self.frame(k) and abs(second * self._source_fps - number) < 1e-6
            for k, (number, second) in enumerate(zip(numbers, seconds, strict=True))
        )

    def takes(self, second: float) -> bool:
        """Whether the frame shown at ``second`` is chosen. Call it for all frames in order."""
        if self._wanted is not None:
            return self._takes_by_time(second, self._wanted)
        if self.every == 1.0:
            return True
        slot = round(second * self._source_fps)
        if slot < self.frame(self._next):
            return False
        self._next = max(self._next + 1, int(slot / self.every))
        while self.frame(self._next) <= slot:
            self._next += 1
        return True

    def _takes_by_time(self, second: float, wanted: float) -> bool:
        early = min(second - self._before, 1 / wanted) / 2
        self._before = second
        if (second + early) * wanted < self._next - 1e-6:
            return False
        self._next = max(self._next, math.floor(second * wanted + 1e-6)) + 1
        return True
