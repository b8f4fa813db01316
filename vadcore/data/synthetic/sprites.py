"""Sprites: flat textured pieces of all moving objects.

A sprite is painted once, in metres, and then moved only by affine maps. This makes the true flow exact: the motion of a
sprite's pixel is given by the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.data.synthetic.texture import octaves

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in metres
# Maps points (x, y) in metres to colours float [..., 3] in 0..255 and the signed distance to the edge, m (< 0 inside)
Paint = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Sprite:
    """Image pyramid of one piece.

    Attributes
    ----------
    levels: float32 ``[h, w, 4]`` each: red, green, blue (0..255, multiplied by alpha), alpha (0..1).
    origin: point (x, y) in metres at the centre of the first pixel of every level.
    resolution: pixels per metre of level 0. Each further level has half the resolution of the level before.
    """

    levels: tuple[np.ndarray, ...]
    origin: tuple[float, float]
    resolution: float

    def level_for(self, scale: float) -> int:
        """Choose the level for ``scale`` picture pixels per metre: 0.85 to 1.7 sprite pixels per picture pixel."""
        wanted = int(np.floor(np.log2(max(self.resolution / scale, 1.0) / 0.85)))
        return min(max(wanted, 0), len(self.levels) - 1)

    def pixels_to_metres(self, level: int) -> np.ndarray:
        """Affine map ``[2, 3]`` from the pixels of a level to metres."""
        step = 2**level / self.resolution
        return np.array([[step, 0.0, self.origin[0]], [0.0, step, self.origin[1]]])


def paint(box: Box, resolution: float, painter: Paint) -> Sprite:
    """Paint a sprite with ``painter`` inside ``box``, with antialiased edges, at ``resolution`` pixels per metre."""
    pad = 3 / resolution  # so that the edge fades to 0 within the picture, also on the next level
    x0, y0, x1, y1 = box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad
    xs = x0 + np.arange(int(np.ceil((x1 - x0) * resolution)) + 1) / resolution
    ys = y0 + np.arange(int(np.ceil((y1 - y0) * resolution)) + 1) / resolution
    x, y = np.meshgrid(xs, ys)
    colour, distance = painter(x, y)
    alpha = np.clip(0.5 - distance * resolution, 0.0, 1.0)[..., None]
    picture = np.concatenate([np.broadcast_to(colour, (*x.shape, 3)) * alpha, alpha], axis=-1).astype(np.float32)
    levels: list[np.ndarray] = [picture]
    while len(levels) < 4 and min(levels[-1].shape[:2]) >= 8:
        levels.append(cv2.pyrDown(levels[-1]))  # pixel i is pixel 2 i of the level before, so the origin is the same
    return Sprite(tuple(levels), (x0, y0), resolution)


@dataclass(frozen=True)
class Cloth:
    """A colour with a random texture of folds and optional stripes across the piece.

    ``seed``: seed of the folds. ``stripe``: colour of the stripes (None: no stripes). ``pitch``: period of the stripes in
    metres. ``rough``: strength of the folds.
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
    """Brightness ``[..., 1]`` of a round body lit from the upper left. ``across``: -1 (left edge) to 1 (right edge)."""
    inside = np.clip(across, -1, 1)
    return (0.72 + 0.36 * np.sqrt(1 - 0.95 * inside**2) - 0.10 * inside)[..., None]


def limb(length: float, r0: float, r1: float, cloth: Cloth, resolution: float, bare: tuple | None = None) -> Sprite:
    """Create a tapered capsule from (0, 0) with radius ``r0`` to (0, length) with radius ``r1``, all in metres.

    ``bare``: (fraction, colour). Beyond this fraction of the length, the skin colour is shown instead of the cloth.
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
    """Create a piece that is symmetric about the vertical axis. ``outline``: (y, half width) in metres, sorted by y."""
    ys, halves = (np.array(column) for column in zip(*outline, strict=True))

    def painter(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = np.interp(y, ys, halves)
        distance = np.maximum(np.abs(x) - half, np.maximum(ys[0] - y, y - ys[-1]))
        return cloth.at(x, y) * round_shade(x / half), distance

    return paint((-halves.max(), ys[0], halves.max(), ys[-1]), resolution, painter)
