"""Procedural textures and shape outlines for generated pairs.

All functions are deterministic for a given random generator ``rng``.
"""

from __future__ import annotations

import cv2
import numpy as np

SUPERSAMPLING = 4  # coverage is sampled at 4 x 4 points per pixel
FIXED = 8  # fractional bits of polygon corners in OpenCV


def texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Random texture of noise, leaves or stripes: uint8 RGB ``[side, side, 3]``, mean 128, standard deviation 45."""
    kind = rng.choice(("noise", "leaves", "stripes"), p=(0.4, 0.4, 0.2))
    picture = {"noise": _noise, "leaves": _leaves, "stripes": _stripes}[kind](rng, side)
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * np.float32(rng.uniform(0, 0.6))  # reality is less colourful
    # Band-limit, so that interpolation between pixels gives the same sharpness everywhere.
    picture = cv2.GaussianBlur(picture, (0, 0), 0.7)
    picture = (picture - picture.mean((0, 1))) * (45 / max(1e-3, float(picture.std())))
    return np.clip(np.rint(picture + 128), 0, 255).astype(np.uint8)


def octaves(rng: np.random.Generator, side: int, coarsest: int, persistence: float) -> np.ndarray:
    """Sum of octaves of noise, float32 ``[side, side]``.

    ``coarsest``: number of cells across the picture in the first octave. It doubles with each further octave, down to
    cells of two pixels. ``persistence``: strength of each octave relative to the one before.
    """
    total, strength, cells = np.zeros((side, side), np.float32), 1.0, coarsest
    while cells <= side // 2:
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        total += strength * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        strength, cells = strength * persistence, cells * 2
    return total


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Two noise fields in random colours, similar to plaster, grass or clouds."""
    fields = [octaves(rng, side, int(rng.integers(2, 17)), rng.uniform(0.5, 1.0)) for _ in range(2)]
    return np.stack(fields, axis=2) @ rng.normal(0, 1, (2, 3)).astype(np.float32)


def _leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """Dead-leaves model: overlapping discs and rectangles with power-law radii, similar to natural images."""
    picture = np.full((2 * side, 2 * side, 3), rng.uniform(0, 255), np.float32)
    count = int(rng.integers(400, 1600))
    least, most = 6.0, side / 2
    radii = (least**-2 + rng.random(count) * (most**-2 - least**-2)) ** -0.5  # density ~ r^-3
    for radius in sorted(radii, reverse=True):
        centre, colour = rng.integers(0, 2 * side, 2), rng.uniform(0, 255, 3)
        if rng.random() < 0.6:
            cv2.circle(picture, centre.tolist(), round(radius), colour.tolist(), -1)
        else:
            box = cv2.boxPoints((centre.tolist(), (radius * rng.uniform(0.6, 2), radius), rng.uniform(0, 180)))
            cv2.fillPoly(picture, [box.astype(np.int32)], colour.tolist())
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def _stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Soft stripes or a grid, distorted by low-frequency noise, plus some fine noise."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bend = octaves(rng, side, 2, 0.3) * rng.uniform(0, 6)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 32)
    along = (x * np.cos(angle) + y * np.sin(angle) + bend) * (2 * np.pi / period)
    across = (y * np.cos(angle) - x * np.sin(angle) + bend) * (2 * np.pi / (period * rng.uniform(0.5, 3)))
    hardness = rng.uniform(0.7, 5)
    wave = np.tanh(hardness * np.sin(along))
    if rng.random() < 0.4:
        wave = np.maximum(wave, np.tanh(hardness * (np.sin(across) - 0.7)))
    fine = octaves(rng, side, 16, 0.8)
    return np.stack((wave, 0.3 * fine), axis=2) @ rng.normal(0, 1, (2, 3)).astype(np.float32)


def outline(rng: np.random.Generator, centre: np.ndarray, radius: float) -> list[np.ndarray]:
    """Random shape around ``centre`` (x, y): closed contours, float ``[n, 2]`` in pixels. A second contour is a hole."""
    kind = rng.choice(("ellipse", "polygon", "blob"))
    if kind == "polygon":
        corners = int(rng.integers(3, 9))
        angles: np.ndarray = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * (2 * np.pi / corners)
        lengths = rng.uniform(0.5, 1, corners)
    else:
        angles = np.arange(48) * (2 * np.pi / 48)
        lengths = np.ones(48)
        if kind == "blob":
            for order in (2, 3, 4, 5):
                lengths += rng.normal(0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
            lengths = np.clip(lengths, 0.3, 1.6)
    contour = lengths[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)  # [n, 2]
    contours = [contour]
    if rng.random() < 0.2:
        contours.append(contour * rng.uniform(0.3, 0.7))  # inside the contour, which is star-shaped
    turn = rng.uniform(0, 2 * np.pi)
    stretch = np.array([1.0, rng.uniform(0.35, 1)]) * radius
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [centre + (part * stretch) @ turned for part in contours]


def coverage(contours: list[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, slice, slice] | None:
    """Compute the share of each pixel inside ``contours`` (even-odd rule).

    Returns float32 ``[h, w]`` in 0..1, and its rows and columns in a picture of ``size`` (height, width). Returns None if
    the contours are outside the picture. Pixel centres have integer coordinates.
    """
    points = np.concatenate(contours)
    low = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + 2, size[::-1])
    if (high <= low).any():
        return None
    width, height = high - low
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    corners = [((part - low + 0.5) * SUPERSAMPLING - 0.5) * 2**FIXED for part in contours]
    cv2.fillPoly(fine, [np.rint(part).astype(np.int32) for part in corners], 255, shift=FIXED)
    alpha = cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    return alpha.astype(np.float32) / 255, slice(low[1], high[1]), slice(low[0], high[0])
