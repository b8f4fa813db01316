"""The empty scene: a paved walkway between two lawns, a hedge and a wall behind, lamp posts, a tree, a bench, a bin.

The camera does not move, so its picture is the same in all clips with the same seed and size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.texture import octaves, sample

HALF_WALKWAY = 4.0  # m; people keep right: they walk to the right on the near half (b < 0), to the left on the far half
KERB = 0.25  # m wide
HEDGE, HEDGE_HEIGHT = 7.6, 1.25  # m
WALL = 9.2  # m
SUN = (0.55, -0.30)  # m of shadow in (a, b) per metre of height
FINE = 4  # supersampling: FINE x FINE rays per pixel


@dataclass(frozen=True)
class Prop:
    """A static object that can occlude people.

    Attributes
    ----------
    rows, columns: rows and columns of its patch in the picture.
    alpha: float32 ``[h, w, 1]``, covered share of each pixel.
    depth: distance from the camera to its foot, metres.
    """

    rows: slice
    columns: slice
    alpha: np.ndarray
    depth: float


@dataclass(frozen=True)
class Site:
    """The empty scene.

    Attributes
    ----------
    camera: the camera.
    picture: float32 ``[H, W, 3]``, RGB in 0..255.
    props: static objects that can occlude people.
    shade: float32 ``[H, W]``, brightness in (0..1] of a person whose feet are at that pixel.
    """

    camera: Camera
    picture: np.ndarray
    props: tuple[Prop, ...]
    shade: np.ndarray


def build_site(camera: Camera, seed: int) -> Site:
    """Create the scene. The same camera and seed give the same picture."""
    rng = np.random.default_rng([seed, 101])
    picture, shade = _surfaces(camera, rng)
    props = []
    for shapes in _props(rng):
        colour, alpha, depth = _draw(camera, shapes, rng)
        picture = picture * (1 - alpha) + colour
        props.append(_cut(alpha, depth))
    # Lens effects: dark corners, and a blur of about one pixel.
    y, x = np.mgrid[-1 : 1 : camera.height * 1j, -1 : 1 : camera.width * 1j]
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.35) * (1 - 0.07 * (x**2 + y**2))[..., None]
    return Site(camera, picture.astype(np.float32), tuple(props), shade)


def _surfaces(camera: Camera, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Render ground, hedge and wall by ray casting: the average of ``FINE`` x ``FINE`` rays per pixel."""
    at = (np.arange(FINE) + 0.5) / FINE - 0.5
    xs = (np.arange(camera.width)[:, None] + at).ravel()
    ys = (np.arange(camera.height)[:, None] + at).ravel()
    rays = camera.rays(*np.meshgrid(xs, ys))
    eye = camera.position
    coarse, fine, grain = octaves(rng, 256, 4, 6), octaves(rng, 256, 16, 5), octaves(rng, 256, 64, 2)

    # Intersection of each ray with the ground. Rays that point up do not hit the ground, they hit the wall.
    falls = rays[..., 2] < -1e-3
    to_ground = np.where(falls, -eye[2] / np.where(falls, rays[..., 2], -1.0), 1e4)
    a, b = eye[0] + to_ground * rays[..., 0], eye[1] + to_ground * rays[..., 1]
    cloudy, rough, sandy = sample(coarse, a / 14, b / 14), sample(fine, a / 5, b / 5), sample(grain, a / 3, b / 3)

    lawn = np.array([92.0, 118.0, 62.0]) * (1 + 0.10 * cloudy + 0.10 * rough + 0.10 * sandy)[..., None]
    lawn = lawn + (8 * cloudy)[..., None] * np.array([1.0, 0.35, 0.1])  # dry spots
    slab_a, slab_b = np.floor(a / 1.0 + 0.5 * (np.floor(b / 0.8) % 2)), np.floor(b / 0.8)
    tone = sample(grain, slab_a * 0.1373, slab_b * 0.2171)
    in_slab = np.maximum(
        np.abs(np.mod(a + 0.5 * (slab_b % 2), 1.0) - 0.5) - 0.5, (np.abs(np.mod(b / 0.8, 1.0) - 0.5) - 0.5) * 0.8
    )
    joint = np.clip(1 + in_slab / 0.035, 0, 1)  # 1 on the joint, 0 at a distance of 3.5 cm and more
    paving = (
        np.array([168.0, 160.0, 148.0]) * (1 + 0.045 * tone + 0.05 * cloudy + 0.045 * rough + 0.03 * sandy)[..., None]
    )
    paving = paving * (1 - 0.28 * joint)[..., None]
    kerb = np.array([188.0, 184.0, 176.0]) * (1 + 0.04 * rough)[..., None]
    ground = np.where((np.abs(b) < HALF_WALKWAY)[..., None], paving, lawn)
    ground = np.where((np.abs(np.abs(b) - HALF_WALKWAY - KERB / 2) < KERB / 2)[..., None], kerb, ground)

    # Dappled shadow of the tree on the ground.
    crown = np.hypot((a + 4.2) / 3.4, (b - 1.6) / 2.6) + 0.16 * sample(fine, a / 9, b / 9)
    leaves = sample(fine, a / 6 + 0.3, b / 6)
    shadow = 0.45 * np.clip((1.0 - crown) * 5, 0, 1) * np.clip(0.75 + 0.6 * leaves, 0, 1)
    hedge_foot = np.clip((b - HEDGE + 0.9) / 0.9, 0, 1) * (b < HEDGE)
    ground = ground * (1 - shadow)[..., None] * (1 - 0.45 * hedge_foot)[..., None]

    colour = ground
    for plane, painter in ((WALL, _wall), (HEDGE, _hedge)):
        distance = (plane - eye[1]) / rays[..., 1]
        along, up = eye[0] + distance * rays[..., 0], eye[2] + distance * rays[..., 2]
        painted, top = painter(along, up, fine, grain)
        colour = np.where((falls & (b < plane) | (up > top))[..., None], colour, painted)
    small = cv2.resize(colour.astype(np.float32), (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    met = cv2.resize((1 - 0.8 * shadow).astype(np.float32), (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return small, cv2.GaussianBlur(met, (0, 0), camera.height / 40)


def _wall(a: np.ndarray, up: np.ndarray, fine: np.ndarray, grain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A brick wall with windows. Returns the colour and the height (m) of the wall for each ray."""
    course = np.floor(up / 0.24)
    brick_a = a / 0.6 + 0.5 * (course % 2)
    tone = sample(grain, np.floor(brick_a) * 0.1737, course * 0.2371)
    mortar = (np.mod(brick_a, 1) < 0.06) | (np.mod(up / 0.24, 1) < 0.14)
    brick = np.array([164.0, 122.0, 100.0]) * (1 + 0.08 * tone + 0.06 * sample(fine, a / 9, up / 9))[..., None]
    brick = np.where(mortar[..., None], np.array([172.0, 158.0, 142.0]), brick)
    cell, rise = np.mod(a + 0.8, 3.4) - 1.7, up - 2.5
    window = (np.abs(cell) < 0.85) & (np.abs(rise) < 0.8)
    frame = window & ((np.abs(cell) > 0.75) | (np.abs(rise) > 0.7) | (np.abs(cell) < 0.05))
    glass = np.array([66.0, 82.0, 98.0]) + (26 * (cell * 0.5 + rise) + 10 * sample(fine, a / 8, up / 8))[..., None]
    sill = (np.abs(cell) < 1.0) & (np.abs(rise + 0.88) < 0.08)
    colour = np.where(window[..., None], glass, brick)
    colour = np.where(frame[..., None] | sill[..., None], np.array([206.0, 203.0, 196.0]), colour)
    return colour * 0.92, np.full(a.shape, np.inf)


def _hedge(a: np.ndarray, up: np.ndarray, fine: np.ndarray, grain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A trimmed hedge with an uneven top. Returns the colour and the height (m) of the hedge for each ray."""
    leaf = sample(grain, a / 2.2, up / 2.2)
    light = 0.62 + 0.42 * np.clip(up / HEDGE_HEIGHT, 0, 1) + 0.20 * leaf + 0.10 * sample(fine, a / 4, up / 4)
    top = HEDGE_HEIGHT + 0.07 * sample(fine, a / 7, np.full_like(a, 0.4))
    return np.array([58.0, 86.0, 46.0]) * light[..., None], top


def _props(rng: np.random.Generator) -> list[list[tuple[np.ndarray, tuple[float, float, float]]]]:
    """Return the static objects as lists of (corners ``[n, 3]`` in metres, colour), far objects first."""

    def post(a: float, b: float, y0: float, y1: float, r0: float, r1: float, colour: tuple) -> tuple:
        return np.array([[a - r0, b, y0], [a + r0, b, y0], [a + r1, b, y1], [a - r1, b, y1]]), colour

    trunk, iron, wood, green = (84.0, 70.0, 56.0), (58.0, 62.0, 66.0), (128.0, 92.0, 60.0), (52.0, 78.0, 64.0)
    tree = [post(-6.0, 5.4, 0, 4.5, 0.22, 0.15, trunk)]
    for _ in range(60):  # clumps of leaves, darker at the bottom
        angle, out = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
        a, y = -6.0 + 2.5 * out * np.cos(angle), 4.5 + 1.35 * out * np.sin(angle)
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        size = rng.uniform(0.25, 0.5, 8)
        corners = np.stack([a + size * np.cos(turn), np.full(8, 5.3), y + size * np.sin(turn)], axis=-1)
        light = 0.75 + 0.2 * (y - 3.8) + rng.uniform(-0.15, 0.2)
        tree.append((corners, (66 * light, 96 * light, 50 * light)))
    bench = [post(a, 4.75, 0.0, 0.45, 0.05, 0.05, iron) for a in (0.8, 2.2)]
    bench += [post(1.5, 4.75, 0.40, 0.50, 0.95, 0.95, wood), post(1.5, 5.0, 0.62, 0.90, 0.95, 0.95, wood)]
    far_lamp = [post(4.6, 4.6, 0, 6, 0.07, 0.05, iron), post(4.6, 4.6, 0, 0.5, 0.12, 0.10, iron)]
    litter = [post(-3.2, -4.6, 0, 0.85, 0.24, 0.28, green), post(-3.2, -4.6, 0.80, 0.92, 0.30, 0.30, iron)]
    near_lamp = [post(2.6, -4.7, 0, 6, 0.075, 0.055, iron), post(2.6, -4.7, 0, 0.5, 0.13, 0.11, iron)]
    return [tree, bench, far_lamp, litter, near_lamp]


def _draw(camera: Camera, shapes: list, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Render one object: colour times alpha float32 ``[H, W, 3]``, alpha ``[H, W, 1]``, and its depth in metres."""
    size = (camera.height * FINE, camera.width * FINE)
    layer: np.ndarray = np.zeros((*size, 4), np.float32)
    for corners, colour in shapes:
        pixels = (camera.project(corners) + 0.5) * FINE - 0.5
        cv2.fillPoly(layer, [np.round(pixels).astype(np.int32)], (*colour, 1.0))
    grain = cv2.GaussianBlur(rng.standard_normal(size).astype(np.float32), (0, 0), FINE / 2)
    layer[..., :3] *= 1 + 0.35 * grain[..., None]
    layer = cv2.resize(layer, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    foot = shapes[0][0][0] * [1, 1, 0]
    return layer[..., :3], layer[..., 3:], float(camera.depth(foot))


def _cut(alpha: np.ndarray, depth: float) -> Prop:
    """Crop the coverage ``alpha [H, W, 1]`` of the whole picture to the patch of the prop."""
    rows, columns = np.nonzero(alpha[..., 0] > 0)
    if len(rows) == 0:  # the prop is outside a narrow picture
        return Prop(slice(0, 0), slice(0, 0), alpha[:0, :0], depth)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return Prop(*box, np.ascontiguousarray(alpha[box]), depth)
