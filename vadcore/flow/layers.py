"""What generated pairs are made of: procedural textures and the outlines of shapes.

Everything is a pure function of the generator ``rng`` that is handed in.
"""

from __future__ import annotations

import cv2
import numpy as np

SUPERSAMPLING = 4  # a pixel's coverage is counted on 4 x 4 points
FIXED = 8  # fractional bits of OpenCV's polygon corners


def texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """A random texture, uint8 RGB ``[side, side, 3]``: noise, leaves or stripes, of mean 128 and standard deviation 45."""
    kind = rng.choice(("noise", "leaves", "stripes"), p=(0.4, 0.4, 0.2))
    picture = {"noise": _noise, "leaves": _leaves, "stripes": _stripes}[kind](rng, side)
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * np.float32(rng.uniform(0, 0.6))  # the world is less colourful than chance
    # Band-limited, so that sampling between its pixels keeps it as sharp wherever it falls.
    picture = cv2.GaussianBlur(picture, (0, 0), 0.7)
    picture = (picture - picture.mean((0, 1))) * (45 / max(1e-3, float(picture.std())))
    return np.clip(np.rint(picture + 128), 0, 255).astype(np.uint8)


def octaves(rng: np.random.Generator, side: int, coarsest: int, persistence: float) -> np.ndarray:
    """Noise float32 ``[side, side]``: ``coarsest`` cells across in the first octave, twice as many in each next one up to
    cells of two pixels, each ``persistence`` times as strong as the one before."""
    total, strength, cells = np.zeros((side, side), np.float32), 1.0, coarsest
    while cells <= side // 2:
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        total += strength * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        strength, cells = strength * persistence, cells * 2
    return total


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Two noise fields in random colours: plaster, grass, clouds."""
    fields = [octaves(rng, side, int(rng.integers(2, 17)), rng.uniform(0.5, 1.0)) for _ in range(2)]
    return np.stack(fields, axis=2) @ rng.normal(0, 1, (2, 3)).astype(np.float32)


def _leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """The dead-leaves model: discs and rectangles that hide each other, radii by a power law, as in natural pictures."""
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
    """Soft stripes or a grid, bent by slow noise, over some fine noise."""
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
    """A random shape about ``centre`` (x, y): its closed contours, float ``[n, 2]`` pixels; a second one is a hole."""
    kind = rng.choice(("ellipse", "polygon", "blob"))
    if kind == "polygon":
        corners = int(rng.integers(3, 9))
        angles = (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * (2 * np.pi / corners)
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
        contours.append(contour * rng.uniform(0.3, 0.7))  # star-shaped, so the smaller one lies inside
    turn = rng.uniform(0, 2 * np.pi)
    stretch = np.array([1.0, rng.uniform(0.35, 1)]) * radius
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [centre + (part * stretch) @ turned for part in contours]


def coverage(contours: list[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, slice, slice] | None:
    """How much of each pixel lies inside ``contours`` (even-odd): float32 0..1 ``[h, w]``, and its rows and columns in a
    picture of ``size`` (height, width). Pixel centres are whole numbers. None where nothing lies in the picture."""
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
