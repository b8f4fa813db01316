"""Random textures: sums of several octaves of smooth noise."""

from __future__ import annotations

import cv2
import numpy as np


def octaves(rng: np.random.Generator, size: int, coarsest: int, count: int, persistence: float = 0.55) -> np.ndarray:
    """Tileable noise, float32 ``[size, size]``, mean 0, standard deviation 1.

    ``coarsest``: number of cells across the tile in the first octave. It doubles with each further octave. ``count``:
    number of octaves. ``persistence``: strength of each octave relative to the one before.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(count):
        cells = coarsest * 2**octave
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        at = np.arange(size, dtype=np.float32) * (cells / size) + 2
        xs, ys = np.meshgrid(at, at)
        wrapped = np.pad(grid, 2, mode="wrap")
        total += persistence**octave * cv2.remap(wrapped, xs, ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return (total - total.mean()) / total.std()


def sample(tile: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample the periodic tile at (u, v), in units of tiles. Returns float32 with the shape of ``u``."""
    size = tile.shape[0]
    wrapped = np.pad(tile, ((0, 1), (0, 1)), mode="wrap")
    xs = (np.mod(u, 1.0) * size).astype(np.float32)
    ys = (np.mod(v, 1.0) * size).astype(np.float32)
    return cv2.remap(wrapped, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
