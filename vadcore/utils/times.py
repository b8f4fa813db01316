"""When the frames of a clip are shown."""

from __future__ import annotations

import numpy as np

PAUSE = 1.0  # seconds without a frame that count as a pause


def shown(count: int, fps: float, seconds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return from when to when each frame is shown, ``[count]`` each, in frame periods (units of ``1 / fps``).

    A frame is shown until the next one, but in a pause only for one frame period. seconds: times of the frames; None if
    frame k is at ``k / fps``.
    """
    if seconds is None:
        return np.arange(count), np.arange(1, count + 1)
    starts = np.asarray(seconds, np.float64) * fps
    steps = np.append(np.diff(starts), 1.0)[:count]
    return starts, starts + np.where(steps > max(PAUSE * fps, 2), 1.0, steps)
