"""The fixed camera and its coordinate systems.

World coordinates are ``(a, b, y)`` in metres: ``a`` along the walkway (to the right), ``b`` across it (away from the
camera), ``y`` up. The origin is the middle of the walkway. Pixel coordinates are ``(x, y)``, x to the right and y down,
with the centre of the top left pixel at (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MOUNT_HEIGHT = 5.5  # m above the ground
PITCH = math.radians(16.0)  # downwards
YAW = math.radians(12.0)  # between the walkway and the picture rows: people get smaller to the right
DISTANCE = 16.5  # m on the ground from the camera mast to the middle of the walkway
FOCAL = 2.35  # focal length in picture heights: a vertical field of view of 24 degrees


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on a mast. ``height`` and ``width``: picture size in pixels."""

    height: int
    width: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL * self.height

    def depth(self, places: np.ndarray) -> np.ndarray:
        """Distance along the optical axis in metres: world points ``[..., 3]`` -> ``[...]``."""
        return self._axes(places)[2]

    def project(self, places: np.ndarray) -> np.ndarray:
        """Project world points ``[..., 3]`` to pixels ``[..., 2]`` (x, y). Not valid behind the camera."""
        right, down, depth = self._axes(places)
        centre = (self.width - 1) / 2, (self.height - 1) / 2
        return np.stack([centre[0] + self.focal * right / depth, centre[1] + self.focal * down / depth], axis=-1)

    def scale(self, places: np.ndarray) -> np.ndarray:
        """Scale at world points, in pixels per metre: ``[..., 3]`` -> ``[...]``."""
        return self.focal / self.depth(places)

    def rays(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Viewing directions of the pixels (x, y), ``[..., 3]`` in (a, b, y)."""
        right = (x - (self.width - 1) / 2) / self.focal
        down = (y - (self.height - 1) / 2) / self.focal
        ahead = math.cos(PITCH) - down * math.sin(PITCH)
        up = -math.sin(PITCH) - down * math.cos(PITCH)
        cos, sin = math.cos(YAW), math.sin(YAW)
        return np.stack([right * cos + ahead * sin, -right * sin + ahead * cos, up], axis=-1)

    @property
    def position(self) -> np.ndarray:
        """Position of the camera, ``[3]`` (a, b, y)."""
        return np.array([-DISTANCE * math.sin(YAW), -DISTANCE * math.cos(YAW), MOUNT_HEIGHT])

    @property
    def image_right(self) -> np.ndarray:
        """Direction on the ground along the picture rows, ``[2]`` (a, b)."""
        return np.array([math.cos(YAW), -math.sin(YAW)])

    def visible_span(self, b: float | np.ndarray, margin: float) -> tuple:
        """Visible range (first a, last a) of the ground line at ``b``, plus ``margin`` metres at both ends.

        ``b`` is a number or an array. Both ends have its shape.

        On the ground, x - centre = focal * right / depth. Right and depth are linear in a, so this is solved for a.
        """
        here = np.stack(np.broadcast_arrays(0.0, b, 0.0), axis=-1)
        right0, _, depth0 = self._axes(here)
        right1, _, depth1 = self._axes(here + np.array([1.0, 0.0, 0.0]))
        half = (self.width / 2) / self.focal
        ends = []
        for side in (-half, half):
            ends.append((side * depth0 - right0) / ((right1 - right0) - side * (depth1 - depth0)))
        return ends[0] - margin, ends[1] + margin

    def _axes(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Camera coordinates right, down and forward in metres, each ``[...]``."""
        a, b, up = np.moveaxis(np.asarray(places, np.float64) - self.position, -1, 0)
        right = a * math.cos(YAW) - b * math.sin(YAW)
        ahead = a * math.sin(YAW) + b * math.cos(YAW)
        return (
            right,
            -up * math.cos(PITCH) - ahead * math.sin(PITCH),
            ahead * math.cos(PITCH) - up * math.sin(PITCH),
        )
