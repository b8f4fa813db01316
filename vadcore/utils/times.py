"""When the frames of a clip are shown."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

PAUSE = 1.0  # seconds without a frame that count as a pause
_TOLERANCE = 1e-6  # frame periods


def is_pause(seconds: np.ndarray | float, fps: float) -> np.ndarray | bool:
    """Whether the recording pauses between frames ``seconds`` apart: more than 1 s and more than two frame periods."""
    return seconds * fps > max(PAUSE * fps, 2) + _TOLERANCE


def pieces(seconds: np.ndarray, fps: float) -> list[tuple[int, int]]:
    """Divide frames at the pauses: first frame and frame after the last one of each piece.

    seconds: times of the frames, ``[T]``, T > 0. fps: frames per second.
    """
    edges = [0, *(np.flatnonzero(is_pause(np.diff(seconds), fps)) + 1).tolist(), len(seconds)]
    return list(pairwise(edges))


def shown(count: int, fps: float, seconds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return from when to when each frame is shown, ``[count]`` each, in frame periods (units of ``1 / fps``).

    A frame is shown until the next one, but in a pause only for one frame period. seconds: times of the frames; None if
    frame k is at ``k / fps``.
    """
    if seconds is None:
        return np.arange(count), np.arange(1, count + 1)
    starts = np.asarray(seconds, np.float64) * fps
    steps = np.append(np.diff(starts), 1.0)[:count]
    return starts, starts + np.where(is_pause(steps / fps, fps), 1.0, steps)
