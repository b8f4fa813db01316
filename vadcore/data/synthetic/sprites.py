"""Flat textured pieces that everything that moves is made of.

A sprite is painted once, in metres, and then only moved by affine maps. That is what makes the true flow exact: a
pixel of a sprite moves as its map does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.data.synthetic.texture import octaves

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in metres
# Paints points (x, y) in metres: colours float [..., 3] in 0..255, and signed distance to the edge in metres, < 0 inside
Paint = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Sprite:
    """Pictures of one piece at falling resolutions.

    Attributes
    ----------
    levels: float32 ``[h, w, 4]`` each: red, green, blue (0..255, multiplied by alpha), alpha (0..1).
    origin: the point (x, y) in metres at the centre of every level's first pixel.
    resolution: pixels a metre of level 0; each next level has half.
    """

    levels: tuple[np.ndarray, ...]
    origin: tuple[float, float]
    resolution: float

    def level_for(self, scale: float) -> int:
        """The level to show at ``scale`` picture pixels a metre: 0.85 to 1.7 sprite pixels for each of them."""
        wanted = int(np.floor(np.log2(max(self.resolution / scale, 1.0) / 0.85)))
        return min(max(wanted, 0), len(self.levels) - 1)

    def pixels_to_metres(self, level: int) -> np.ndarray:
        """Affine map ``[2, 3]`` from this level's pixels to metres."""
        step = 2**level / self.resolution
        return np.array([[step, 0.0, self.origin[0]], [0.0, step, self.origin[1]]])


def paint(box: Box, resolution: float, painter: Paint) -> Sprite:
    """Paint what ``painter`` describes inside ``box``, edges antialiased, at ``resolution`` pixels a metre."""
    pad = 3 / resolution  # so that the edge fades to nothing inside the picture, on the next level too
    x0, y0, x1, y1 = box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad
    xs = x0 + np.arange(int(np.ceil((x1 - x0) * resolution)) + 1) / resolution
    ys = y0 + np.arange(int(np.ceil((y1 - y0) * resolution)) + 1) / resolution
    x, y = np.meshgrid(xs, ys)
    colour, distance = painter(x, y)
    alpha = np.clip(0.5 - distance * resolution, 0.0, 1.0)[..., None]
    picture = np.concatenate([np.broadcast_to(colour, (*x.shape, 3)) * alpha, alpha], axis=-1).astype(np.float32)
    levels = [picture]
    while len(levels) < 4 and min(levels[-1].shape[:2]) >= 8:
        levels.append(cv2.pyrDown(levels[-1]))  # its pixel i is pixel 2 i of the level before: same origin
    return Sprite(tuple(levels), (x0, y0), resolution)


@dataclass(frozen=True)
class Cloth:
    """A colour with weave, folds and, perhaps, stripes across the piece.

    ``seed`` makes the folds; ``stripe`` is the colour of the stripes (None: plain), ``pitch`` their distance in metres.
    """

    colour: tuple[float, float, float]
    seed: int
    stripe: tuple[float, float, float] | None = None
    pitch: float = 0.12
    rough: float = 0.10

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours float ``[..., 3]`` at (x, y) in metres."""
        colour = np.broadcast_to(np.array(self.colour), (*x.shape, 3))
        if self.stripe is not None:
            striped = np.mod(y, self.pitch) < self.pitch / 2
            colour = np.where(striped[..., None], np.array(self.stripe), colour)
        return colour * (1 + self.rough * self._folds(x, y))[..., None]

    def _folds(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        tile = octaves(np.random.default_rng(self.seed), 32, 4, 3)
        rows = (np.mod(y / 0.6, 1) * 32).astype(np.float32) % 32
        columns = (np.mod(x / 0.6 + 0.5, 1) * 32).astype(np.float32) % 32
        return cv2.remap(tile, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def round_shade(across: np.ndarray) -> np.ndarray:
    """Brightness of a round body lit from the upper left; ``across`` runs from -1 (left edge) to 1. ``[..., 1]``"""
    inside = np.clip(across, -1, 1)
    return (0.72 + 0.36 * np.sqrt(1 - 0.95 * inside**2) - 0.10 * inside)[..., None]


def limb(length: float, r0: float, r1: float, cloth: Cloth, resolution: float, bare: tuple | None = None) -> Sprite:
    """A tapering capsule from (0, 0), radius ``r0``, to (0, length), radius ``r1``, all in metres.

    ``bare``: (fraction, colour): beyond that fraction of the length the skin (or shoe) shows instead of the cloth.
    """

    def painter(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        along = np.clip(y, 0, length)
        radius = r0 + (r1 - r0) * along / length
        colour = cloth.at(x, y)
        if bare is not None:
            colour = np.where((y > bare[0] * length)[..., None], np.array(bare[1], float), colour)
        return colour * round_shade(x / radius), np.hypot(x, y - along) - radius

    widest = max(r0, r1)
    return paint((-widest, -r0, widest, length + r1), resolution, painter)


def spindle(outline: list[tuple[float, float]], cloth: Cloth, resolution: float) -> Sprite:
    """A piece with a vertical axis of symmetry: ``outline`` lists (y, half width) in metres, y rising."""
    ys, halves = (np.array(column) for column in zip(*outline, strict=True))

    def painter(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = np.interp(y, ys, halves)
        distance = np.maximum(np.abs(x) - half, np.maximum(ys[0] - y, y - ys[-1]))
        return cloth.at(x, y) * round_shade(x / half), distance

    return paint((-halves.max(), ys[0], halves.max(), ys[-1]), resolution, painter)
