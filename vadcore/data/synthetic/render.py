"""Render the actors over the scene, from far to near, and record the ground truth of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.data.synthetic.actor import Actor
from vadcore.data.synthetic.site import Prop, Site

FLOW_UNIT = 1 / 64  # px per step of the stored integers
COVERED = 0.5  # a pixel belongs to the nearest piece that covers at least this share of it
SHADOW = 0.42  # share of the light removed by a shadow
Affine = np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A piece prepared for rendering.

    Attributes
    ----------
    levels: the sprite's pictures at decreasing resolutions.
    level: ``[T]``, the level to use in each frame.
    warps: ``[T, 2, 3]``, affine maps from sprite pixels to picture pixels.
    boxes: ``[T, 4]``, bounding boxes x0 y0 x1 y1.
    motion: ``[T, 2, 3]``, where the displacement to the next frame is motion @ (x, y, 1).
    """

    levels: tuple[np.ndarray, ...]
    level: np.ndarray
    warps: np.ndarray
    boxes: np.ndarray
    motion: np.ndarray


class Painter:
    """Render the frames of the given actors in a scene. Object ``i + 1`` is ``actors[i]``."""

    def __init__(self, site: Site, actors: list[Actor]):
        self._site, self._actors = site, actors
        size = self.size
        self._pieces = [[_prepare(piece, size) for piece in actor.pieces] for actor in actors]
        self._order = [np.argsort([-piece.depth for piece in a.pieces], axis=0, kind="stable").T for a in actors]
        # Number all pieces; 0 is the static scene.
        firsts = np.cumsum([1] + [len(pieces) for pieces in self._pieces])
        self._firsts = firsts[:-1]
        self._owner = np.zeros(firsts[-1], np.uint16)
        self._owner[1:] = np.repeat(np.arange(len(actors)) + 1, [len(p) for p in self._pieces])
        self._motions = [np.stack([piece.motion for piece in pieces], axis=1) for pieces in self._pieces]
        self._seen = [_near_picture(pieces, size) for pieces in self._pieces]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        return self._site.picture.shape[:2]

    def paint(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Render frame t without light and noise: picture float32 ``[H, W, 3]``, piece number of each pixel ``[H, W]``."""
        here = self._here(t)
        frame = self._site.picture.copy()
        shadow = self._shadows(here, t)
        if shadow is not None:
            frame *= (1 - SHADOW * shadow)[..., None]
        numbers = np.zeros(frame.shape[:2], np.int32)
        layers: list[tuple[float, int | Prop]] = [(self._actors[i].depth[t - self._actors[i].first], i) for i in here]
        layers += [(prop.depth, prop) for prop in self._site.props]
        for _, layer in sorted(layers, key=lambda item: -item[0]):
            if isinstance(layer, Prop):
                self._paint_prop(layer, frame, numbers)
            else:
                self._paint_actor(layer, t, frame, numbers)
        return frame, numbers

    def owners(self, numbers: np.ndarray) -> np.ndarray:
        """Convert piece numbers ``[H, W]`` to object numbers uint16 ``[H, W]``, 0 = background."""
        return self._owner[numbers]

    def flow(self, t: int, numbers: np.ndarray) -> np.ndarray:
        """True optical flow of the pixels of frame t to frame t + 1: int16 ``[2, H, W]`` in units of ``FLOW_UNIT``."""
        flow = np.zeros((2, *numbers.shape), np.int16)
        ys, xs = np.nonzero(numbers)
        if len(ys):
            table = np.zeros((len(self._owner), 2, 3))
            for i in self._here(t):
                motions = self._motions[i][t - self._actors[i].first]
                table[self._firsts[i] : self._firsts[i] + len(motions)] = motions
            motion = table[numbers[ys, xs]]  # [pixels, 2, 3]
            moved = motion[:, :, 0] * xs[:, None] + motion[:, :, 1] * ys[:, None] + motion[:, :, 2]
            flow[:, ys, xs] = np.round(moved.T / FLOW_UNIT).astype(np.int16)
        return flow

    def _here(self, t: int) -> list[int]:
        """Return the indices of the actors that may be visible in frame t."""
        found = []
        for i, actor in enumerate(self._actors):
            if actor.covers(t) and self._seen[i][t - actor.first]:
                found.append(i)
        return found

    def _paint_actor(self, i: int, t: int, frame: np.ndarray, numbers: np.ndarray) -> None:
        t -= self._actors[i].first
        x, y = self._actors[i].feet[t]
        height, width = numbers.shape
        shade = self._site.shade[int(np.clip(round(y), 0, height - 1)), int(np.clip(round(x), 0, width - 1))]
        for k in self._order[i][t]:
            piece = self._pieces[i][k]
            x0, y0, x1, y1 = piece.boxes[t]
            if x0 >= x1 or y0 >= y1:
                continue
            warp = piece.warps[t].copy()
            warp[:, 2] -= (x0, y0)
            patch = cv2.warpAffine(
                piece.levels[piece.level[t]], warp, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR
            )
            alpha = patch[..., 3:]
            region = frame[y0:y1, x0:x1]
            region *= 1 - alpha
            region += patch[..., :3] * shade
            numbers[y0:y1, x0:x1][alpha[..., 0] >= COVERED] = self._firsts[i] + k

    def _paint_prop(self, prop: Prop, frame: np.ndarray, numbers: np.ndarray) -> None:
        region = frame[prop.rows, prop.columns]
        region += prop.alpha * (self._site.picture[prop.rows, prop.columns] - region)
        numbers[prop.rows, prop.columns][prop.alpha[..., 0] >= COVERED] = 0

    def _shadows(self, here: list[int], t: int) -> np.ndarray | None:
        """Shadow of the actors on each pixel, float32 ``[H, W]`` in 0..1 (1 = full shadow), with soft edges."""
        mask: np.ndarray = np.zeros(self._site.picture.shape[:2], np.uint8)
        for i in here:
            own = t - self._actors[i].first
            for start, end, thickness in self._actors[i].shadows:
                one, other = (np.round(point[own] * 16).astype(int).tolist() for point in (start, end))  # 1/16 px
                cv2.line(mask, one, other, 255, max(1, round(thickness[own])), cv2.LINE_AA, 4)
        if not mask.any():
            return None
        return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), mask.shape[0] / 140)


def _prepare(piece, size: tuple[int, int]) -> Prepared:
    maps = _square(piece.maps)  # [T, 3, 3]
    scale = np.sqrt(np.abs(np.linalg.det(maps[:, :2, :2])))
    level = np.array([piece.sprite.level_for(s) for s in scale])
    to_metres = np.stack([_square(piece.sprite.pixels_to_metres(k)) for k in range(len(piece.sprite.levels))])
    warps = maps @ to_metres[level]
    sizes = np.array([[picture.shape[1] - 1, picture.shape[0] - 1] for picture in piece.sprite.levels])[level]
    corners = np.stack([[[0, 0], [1, 0], [0, 1], [1, 1]]] * len(level)) * sizes[:, None]  # [T, 4, 2]
    corners = np.einsum("tij,tcj->tci", warps[:, :2, :2], corners) + warps[:, None, :2, 2]
    low = np.clip(np.floor(corners.min(axis=1)), 0, [size[1], size[0]])
    high = np.clip(np.ceil(corners.max(axis=1)) + 1, 0, [size[1], size[0]])
    following = np.concatenate([maps[1:], maps[-1:]])
    motion = following @ np.linalg.inv(maps) - np.eye(3)
    boxes = np.concatenate([low, high], axis=1).astype(int)
    return Prepared(piece.sprite.levels, level, warps[:, :2], boxes, motion[:, :2])


def _square(affine: Affine) -> np.ndarray:
    """Convert affine maps ``[..., 2, 3]`` to ``[..., 3, 3]``."""
    last = np.broadcast_to([0.0, 0.0, 1.0], (*affine.shape[:-2], 1, 3))
    return np.concatenate([affine, last], axis=-2)


def _near_picture(pieces: list[Prepared], size: tuple[int, int]) -> np.ndarray:
    """Whether any piece is in or near the picture, so that the actor or its shadow may be visible: bool ``[T]``."""
    x = np.stack([piece.warps[:, 0, 2] for piece in pieces])
    y = np.stack([piece.warps[:, 1, 2] for piece in pieces])
    near = (x > -size[1] / 4) & (x < 1.25 * size[1]) & (y > -size[0] / 2) & (y < 2 * size[0])
    return np.asarray(near.any(axis=0))
