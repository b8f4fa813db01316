"""Error maps on disk: those of an hour would fill the memory. Written once, in order, then read anywhere."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SMOOTH = 0.04  # sigma of the Gaussian that a map is smoothed with before a place is looked for, in picture heights
SHARE = 0.5  # of the highest value: what still belongs to the place
SAMPLES = 240  # maps that the scale of colours is taken from


class Maps:
    """float16 ``[T, h, w]`` in a file; NaN where no window judged a frame. Read by seeking, not mapped: mapped pages would
    count as memory of the process."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("w+b")
        self.count = 0
        self.shape: tuple[int, int] = (0, 0)

    def append(self, maps: np.ndarray) -> None:
        """The maps of the next frames, ``[n, h, w]``."""
        self.shape = maps.shape[1:]
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(maps, np.float16).data)
        self.count += len(maps)

    def __getitem__(self, frame: int) -> np.ndarray:
        """float32 ``[h, w]``."""
        size = 2 * int(np.prod(self.shape))
        self._file.seek(frame * size)
        return np.frombuffer(self._file.read(size), np.float16).reshape(self.shape).astype(np.float32)

    def close(self) -> None:
        """The file goes away."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def place(error: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Where the error is highest: (x, y, width, height) in pixels of a picture of ``size`` [height, width].

    error: ``[h, w]``, of the same picture; None where it says nothing (not judged, or the same everywhere). The place is
    what hangs together with the highest point of the smoothed map and has at least half of its value.
    """
    if not np.isfinite(error).all() or error.max() <= error.min():
        return None
    smoothed = cv2.GaussianBlur(error.astype(np.float32), (0, 0), max(0.3, SMOOTH * error.shape[0]))
    peak = np.unravel_index(int(smoothed.argmax()), smoothed.shape)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((smoothed >= SHARE * smoothed[peak]).astype(np.uint8))
    x, y, width, height = boxes[labels[peak]][:4]
    down, right = size[0] / error.shape[0], size[1] / error.shape[1]
    left, top = int(x * right), int(y * down)
    return left, top, min(size[1], round((x + width) * right)) - left, min(size[0], round((y + height) * down)) - top


def for_the_eye(error: np.ndarray) -> np.ndarray:
    """A map ``[h, w]`` smoothed a little: single pixels do not show in a video."""
    return cv2.GaussianBlur(error, (0, 0), max(0.3, SMOOTH / 2 * error.shape[0]))


def colour_scale(maps: Maps, usual: np.ndarray) -> tuple[float, float]:
    """(low, high) of the heat over a video, whose maps are smoothed :func:`for_the_eye`: from what its usual frames hardly
    reach to what stands out most.

    usual: bool ``[T]``, the judged frames outside events. One scale for the whole video, so that a quiet one stays dark:
    ``high`` is at least three times ``low``.
    """
    every = np.arange(maps.count)
    quiet = _values(maps, every[usual] if usual.any() else every)
    low = float(np.percentile(quiet, 98)) if quiet.size else 0.0
    striking = _values(maps, every[~usual])
    high = float(np.percentile(striking, 99.9)) if striking.size else 0.0
    return low, max(3 * low, high, 1e-12)


def _values(maps: Maps, numbers: np.ndarray) -> np.ndarray:
    """What the maps of some of these frames hold, evenly spread, as one array."""
    if not len(numbers):
        return np.empty(0, np.float32)
    taken = numbers[np.unique(np.linspace(0, len(numbers) - 1, SAMPLES).astype(int))]
    return np.concatenate([error[np.isfinite(error)] for error in (for_the_eye(maps[n]) for n in taken)])
