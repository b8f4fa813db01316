"""Error maps on disk (those of an hour of footage do not fit into memory); location of the anomaly; heat-map scale."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SMOOTH = 0.04  # sigma of the Gaussian that smooths a map before localisation, in picture heights
SHARE = 0.5  # share of the maximum down to which a pixel belongs to the located region
SAMPLES = 240  # number of maps from which the colour scale is estimated


class Maps:
    """Error maps float16 ``[T, h, w]`` in a file; NaN for frames that no window scored.

    Maps are appended in order and can be read in any order. The file is read by seeking, not memory-mapped, because
    mapped pages count as memory of the process.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("w+b")
        self.count = 0
        self.shape: tuple[int, int] = (0, 0)

    def append(self, maps: np.ndarray) -> None:
        """Append the maps of the next n frames, ``[n, h, w]``."""
        self.shape = maps.shape[1:]
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(maps, np.float16).data)
        self.count += len(maps)

    def __getitem__(self, frame: int) -> np.ndarray:
        """Read the map of one frame, float32 ``[h, w]``."""
        size = 2 * int(np.prod(self.shape))
        self._file.seek(frame * size)
        return np.frombuffer(self._file.read(size), np.float16).reshape(self.shape).astype(np.float32)

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def place(error: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Bounding box (x, y, width, height) of the highest error, in pixels of a picture of ``size`` (height, width).

    The box encloses the connected region around the maximum of the smoothed map with at least half of the maximum.

    error: ``[h, w]``, error map of that picture. Returns None if the map is constant or the frame was not scored.
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


def smooth_for_display(error: np.ndarray) -> np.ndarray:
    """Smooth a map ``[h, w]`` slightly for display, so that single pixels do not show in a video."""
    return cv2.GaussianBlur(error, (0, 0), max(0.3, SMOOTH / 2 * error.shape[0]))


def colour_scale(maps: Maps, usual: np.ndarray) -> tuple[float, float]:
    """Error values (low, high) at the ends of the heat-map colours, one scale for a whole video.

    ``low`` is the 98th percentile of the errors in the usual frames. ``high`` is the 99.9th percentile of the errors in
    the other frames, but at least three times ``low``, so that a video without anomalies stays dark. Maps are smoothed by
    :func:`smooth_for_display`.

    usual: bool ``[T]``, the scored frames outside events; if there are none, ``low`` is taken from all frames.
    """
    every = np.arange(maps.count)
    quiet = _values(maps, every[usual] if usual.any() else every)
    low = float(np.percentile(quiet, 98)) if quiet.size else 0.0
    striking = _values(maps, every[~usual])
    high = float(np.percentile(striking, 99.9)) if striking.size else 0.0
    return low, max(3 * low, high, 1e-12)


def _values(maps: Maps, numbers: np.ndarray) -> np.ndarray:
    """Finite values of the maps of at most ``SAMPLES`` frames, evenly spread over ``numbers``, as one array."""
    if not len(numbers):
        return np.empty(0, np.float32)
    taken = numbers[np.unique(np.linspace(0, len(numbers) - 1, SAMPLES).astype(int))]
    return np.concatenate([error[np.isfinite(error)] for error in (smooth_for_display(maps[n]) for n in taken)])
