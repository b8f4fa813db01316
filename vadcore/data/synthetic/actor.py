"""Moving objects (people, vehicles, bags): textured pieces with an affine map for every frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.sprites import Sprite


@dataclass(frozen=True)
class Motion:
    """Path of an object over T frames.

    Attributes
    ----------
    position: float ``[T, 2]``, (a, b) in metres.
    heading: float ``[T]``, radians from the direction of the walkway.
    distance: float ``[T]``, distance covered, metres.
    pace: float ``[T]``, current speed divided by the usual speed.
    speed: usual speed, m/s.
    first: frame of the clip for entry 0.
    """

    position: np.ndarray
    heading: np.ndarray
    distance: np.ndarray
    pace: np.ndarray
    speed: float
    first: int = 0


@dataclass(frozen=True)
class Piece:
    """A sprite, its affine maps ``[T, 2, 3]`` from sprite metres to picture pixels, and its ``depth [T]`` in metres."""

    sprite: Sprite
    maps: np.ndarray
    depth: np.ndarray


@dataclass
class Actor:
    """A moving object made of pieces.

    Attributes
    ----------
    kind: kind of object, as in the table of objects.
    first: frame of the clip for entry 0 of every array. The object is not visible outside its T frames.
    depth: float ``[T]``, distance from the camera in metres. Nearer objects occlude farther ones.
    feet: float ``[T, 2]``, pixel (x, y) where the object stands.
    abnormal: bool ``[T]``, frames in which the object is abnormal.
    pieces: the pieces of the object.
    shadows: (start ``[T, 2]``, end ``[T, 2]``, thickness ``[T]``) in pixels. The shadow is the union of these thick lines.
    """

    kind: str
    first: int
    depth: np.ndarray
    feet: np.ndarray
    abnormal: np.ndarray
    pieces: list[Piece] = field(default_factory=list)
    shadows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def covers(self, t: int) -> bool:
        """Whether frame t of the clip is one of the object's T frames."""
        return 0 <= t - self.first < len(self.depth)

    def is_abnormal(self, t: int) -> bool:
        """Whether the object is abnormal at frame t of the clip."""
        return self.covers(t) and bool(self.abnormal[t - self.first])


def stand(camera: Camera, kind: str, position: np.ndarray, abnormal: np.ndarray | bool, first: int = 0) -> Actor:
    """Create an actor without pieces at ``position [T, 2]``, starting at frame ``first`` of the clip."""
    ground = np.concatenate([position, np.zeros((len(position), 1))], axis=1)
    abnormal = np.broadcast_to(np.asarray(abnormal, bool), len(position)).copy()
    return Actor(kind, first, camera.depth(ground), camera.project(ground), abnormal)


def along_bone(
    camera: Camera, sprite: Sprite, start: np.ndarray, end: np.ndarray, length: float, widen=1.0, nearer: float = 0.0
) -> Piece:
    """Create a piece that connects two joints: sprite point (0, 0) is at ``start``, (0, length) at ``end``.

    ``start``, ``end``: ``[T, 3]`` in m. ``widen``: factor for the width of the piece, a number or ``[T]``. ``nearer``:
    metres to subtract from its depth. A bone that points at the camera keeps a third of its length, so that its map can
    be inverted.
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
    """Create a flat piece with sprite point (0, 0) at ``centre``.

    ``right`` and ``down`` are the vectors of one sprite metre in each direction. All three are ``[T, 3]``. ``nearer``:
    metres to subtract from its depth.
    """
    columns = [camera.project(centre + axis / 2) - camera.project(centre - axis / 2) for axis in (right, down)]
    maps = np.stack([*columns, camera.project(centre)], axis=-1)
    return Piece(sprite, maps, camera.depth(centre) - nearer)
