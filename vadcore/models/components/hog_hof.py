"""HOG and HOF descriptors of dense spatio-temporal cuboids.

Descriptors are those of dense trajectories (Wang et al. 2013). A cuboid has 2 x 2 x 3 cells. Each cell has a histogram of 8
directions of the brightness gradient (HOG, 96 numbers per cuboid), and one of 8 directions of the optical flow plus a bin
for pixels at rest (HOF, 108 numbers). Here, cuboids lie on a grid, one cell apart, and do not follow trajectories.
"""

from __future__ import annotations

import cv2
import numpy as np

DIRECTIONS = 8  # of 45 degrees each; bin 0 points right, bin 2 down (rows count downwards)
SPATIAL, TEMPORAL = 2, 3  # cells of a cuboid along height and width, and in time
HOG = SPATIAL**2 * TEMPORAL * DIRECTIONS  # 96
HOF = SPATIAL**2 * TEMPORAL * (DIRECTIONS + 1)  # 108
LEAST_GRADIENT = 10.0  # grey levels/pixel: a HOG weaker than this (sensor noise) is not scaled up to unit length


def orientation_histograms(x: np.ndarray, y: np.ndarray, cell: int, rest: float | None = None) -> np.ndarray:
    """Compute a histogram of directions for each cell of a vector field, weighted by vector length.

    Parameters
    ----------
    x, y: components to the right and downwards, float32 ``[N, H, W]``; H and W multiples of ``cell``.
    cell: side of a cell, pixels.
    rest: vectors up to this length add 1 to a ninth bin instead of their length to two directions; None: no such bin.

    Returns
    -------
    float32 ``[N, H / cell, W / cell, 8 or 9]``: mean over the pixels of each cell. The length of a vector is split between
    the two nearest of the 8 directions, linearly in the angle.
    """
    n, height, width = x.shape
    rows, columns = height // cell, width // cell
    length, angle = cv2.cartToPolar(x.reshape(n * height, width), y.reshape(n * height, width))
    bins = DIRECTIONS + (rest is not None)
    row = np.arange(n * height) // cell
    place = row[:, None] * columns + np.arange(width) // cell  # [N*H, W]: index of the cell
    place *= bins
    at = angle * np.float32(DIRECTIONS / (2 * np.pi))
    low = at.astype(np.int64)
    share = (at - low) * length
    length = length - share
    low %= DIRECTIONS
    size = n * rows * columns * bins
    if rest is not None:
        still = length + share <= rest
        length[still], share[still] = 1, 0
        low = np.where(still, DIRECTIONS, low)
    high = np.where(low == DIRECTIONS, 0, (low + 1) % DIRECTIONS)
    total = np.bincount((place + low).ravel(), length.ravel(), size)
    total += np.bincount((place + high).ravel(), share.ravel(), size)
    return (total / cell**2).astype(np.float32).reshape(n, rows, columns, bins)


def gradients(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness gradient of uint8 ``[N, H, W]`` to the right and downwards, float32 ``[N, H, W]`` in grey levels/pixel."""
    pairs = [
        (cv2.Sobel(f, cv2.CV_32F, 1, 0, ksize=1, scale=0.5), cv2.Sobel(f, cv2.CV_32F, 0, 1, ksize=1, scale=0.5))
        for f in frames
    ]
    return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


def describe(frames: np.ndarray, flow: np.ndarray, cell: int, rest: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the descriptors of all cuboids of one window.

    Parameters
    ----------
    frames: uint8 ``[T, H, W]``; T a multiple of 3, H and W multiples of ``cell``.
    flow: float32 ``[T, 2, H, W]``, px/frame.
    cell: side of a cell, pixels; a cuboid is 2 cells wide and high and T frames long.
    rest: pixels with flow up to this, px/frame, count as at rest.

    Returns
    -------
    descriptors: float32 ``[rows, columns, 204]``, HOG then HOF, each of about unit length. The order within each is time,
    row, column, bin.
    moving: float32 ``[rows, columns]`` in 0..1, share of moving pixels in each cuboid.
    """
    t = len(frames)
    hog = orientation_histograms(*gradients(frames), cell)  # [T, h, w, 8]
    hof = orientation_histograms(
        np.ascontiguousarray(flow[:, 0], np.float32), np.ascontiguousarray(flow[:, 1], np.float32), cell, rest
    )  # [T, h, w, 9]
    hog, hof = (x.reshape(TEMPORAL, t // TEMPORAL, *x.shape[1:]).mean(1) for x in (hog, hof))  # [3, h, w, bins]
    moving = 1 - _cuboids(hof[..., DIRECTIONS:]).mean(-1)
    hog, hof = _cuboids(hog), _cuboids(hof)  # [h - 1, w - 1, 96 and 108]
    hog = hog / np.maximum(np.linalg.norm(hog, axis=-1, keepdims=True), LEAST_GRADIENT)
    hof = hof / np.linalg.norm(hof, axis=-1, keepdims=True)  # never 0: pixels at rest count in the ninth bin
    return np.concatenate([hog, hof], axis=-1), moving


def _cuboids(cells: np.ndarray) -> np.ndarray:
    """Collect the cells of each cuboid: ``[3, h, w, bins]`` to ``[h - 1, w - 1, 12 * bins]``."""
    h, w = cells.shape[1:3]
    parts = [cells[:, r : h - 1 + r, c : w - 1 + c] for r in range(SPATIAL) for c in range(SPATIAL)]
    stacked = np.stack(parts, axis=1)  # [3, 4, h - 1, w - 1, bins]
    return np.moveaxis(stacked, (0, 1), (2, 3)).reshape(h - 1, w - 1, -1)
