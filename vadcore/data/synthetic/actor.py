"""Somebody or something that moves: textured pieces with an affine map for every frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.sprites import Sprite


@dataclass(frozen=True)
class Motion:
    """Where somebody is at every frame of the T that it covers.

    Attributes
    ----------
    first: the clip's frame that entry 0 is about.
    position: float ``[T, 2]``, (a, b) in metres.
    heading: float ``[T]``, radians from the walkway's direction.
    distance: float ``[T]``, metres covered.
    pace: float ``[T]``, current speed over usual speed.
    speed: the usual speed, m/s.
    """

    position: np.ndarray
    heading: np.ndarray
    distance: np.ndarray
    pace: np.ndarray
    speed: float
    first: int = 0


@dataclass(frozen=True)
class Piece:
    """A sprite and its maps ``[T, 2, 3]`` from the sprite's metres to picture pixels; ``depth [T]`` in metres."""

    sprite: Sprite
    maps: np.ndarray
    depth: np.ndarray


@dataclass
class Actor:
    """Pieces that belong together.

    Attributes
    ----------
    kind: what it is, as the table of objects names it.
    first: the clip's frame that entry 0 of every array is about; before it and after its T frames it is out of sight.
    depth: float ``[T]``, metres from the camera to where it stands: who is nearer covers who is farther.
    feet: float ``[T, 2]``, the pixel (x, y) where it stands.
    abnormal: bool ``[T]``, the frames in which it is what surveillance looks for.
    shadows: (start ``[T, 2]``, end ``[T, 2]``, thickness ``[T]``) in pixels: the shadow is the union of thick lines.
    """

    kind: str
    first: int
    depth: np.ndarray
    feet: np.ndarray
    abnormal: np.ndarray
    pieces: list[Piece] = field(default_factory=list)
    shadows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def covers(self, t: int) -> bool:
        """Whether the clip's frame t is one of its T frames."""
        return 0 <= t - self.first < len(self.depth)

    def is_abnormal(self, t: int) -> bool:
        """Whether it is abnormal at the clip's frame t."""
        return self.covers(t) and bool(self.abnormal[t - self.first])


def stand(camera: Camera, kind: str, position: np.ndarray, abnormal: np.ndarray | bool, first: int = 0) -> Actor:
    """An actor without pieces that stands at ``position [T, 2]`` from the clip's frame ``first`` on."""
    ground = np.concatenate([position, np.zeros((len(position), 1))], axis=1)
    abnormal = np.broadcast_to(np.asarray(abnormal, bool), len(position)).copy()
    return Actor(kind, first, camera.depth(ground), camera.project(ground), abnormal)


def along_bone(
    camera: Camera, sprite: Sprite, start: np.ndarray, end: np.ndarray, length: float, widen=1.0, nearer: float = 0.0
) -> Piece:
    """A piece that spans two joints: sprite (0, 0) lies on ``start``, (0, length) on ``end``, both ``[T, 3]`` in m.

    Across the bone it is as wide as its place demands, times ``widen`` (a number or ``[T]``). ``nearer``: metres by which
    it counts as nearer to the camera than it is. A bone that points at the camera keeps a third of its length, so that
    its map can be inverted.
    """
    p0, p1 = camera.project(start), camera.project(end)
    scale = camera.scale((start + end) / 2)
    axis = p1 - p0
    seen = np.maximum(np.linalg.norm(axis, axis=-1), 1e-9)
    direction = axis / seen[:, None]
    lengthwise = direction * (np.maximum(seen, length * scale / 3) / length)[:, None]
    across = np.stack([direction[:, 1], -direction[:, 0]], axis=-1) * (scale * widen)[:, None]
    return Piece(sprite, np.stack([across, lengthwise, p0], axis=-1), camera.depth((start + end) / 2) - nearer)


def on_plane(
    camera: Camera, sprite: Sprite, centre: np.ndarray, right: np.ndarray, down: np.ndarray, nearer: float = 0.0
) -> Piece:
    """A flat piece: sprite (0, 0) lies on ``centre``; ``right`` and ``down`` are a sprite metre each, all ``[T, 3]``."""
    columns = [camera.project(centre + axis / 2) - camera.project(centre - axis / 2) for axis in (right, down)]
    maps = np.stack([*columns, camera.project(centre)], axis=-1)
    return Piece(sprite, maps, camera.depth(centre) - nearer)
