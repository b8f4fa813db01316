"""Generated pairs of pictures with exact optical flow, to train FlowNet.

Textured shapes move in front of a textured background, each by its own affine map. Displacements are small, as in
ChairsSDHom, the training set of FlowNet2-SD. The background is often static, as with a fixed camera. Brightness, contrast,
gamma and colours vary, and noise is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from vadcore.flow.layers import coverage, outline, texture

TEXTURES = 96
TEXTURE_SIDE = 256  # texels
NOISE = 1 << 21  # number of precomputed noise values
HELD_OUT_SEED = 1_000_000  # seed of the validation pairs for checkpoint selection; not used for training
TEST_SEED = 2_000_000  # seed of the test pairs; not used for training or selection
STILL = 0.15  # share of the shapes that do not move relative to the background


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures with their flow.

    Attributes
    ----------
    frames: uint8 RGB ``[N, 2, H, W, 3]``.
    flow: float32 ``[N, 2, H, W]``, motion (right, down) in pixels of each pixel of the first frame.
    layers: uint8 ``[N, 2, H, W]``, layer of each pixel: 0 is the background, n is the n-th shape.
    """

    frames: np.ndarray
    flow: np.ndarray
    layers: np.ndarray


class PairGenerator:
    """Generator of numbered pairs. Pair ``n`` depends only on the settings and ``n``.

    Parameters
    ----------
    size: height and width in pixels.
    seed: random seed.
    motion: mean displacement of a shape relative to the background, pixels. Displacements are exponentially distributed.
    still: share of the pairs with a static background.
    """

    def __init__(self, size: tuple[int, int], seed: int, motion: float = 3.0, still: float = 0.25):
        self.size, self.seed, self.motion, self.still = size, seed, motion, still
        self.textures, self.noise = _textures_and_noise(seed)

    def batch(self, numbers: np.ndarray) -> Pairs:
        """Generate the pairs with the numbers ``numbers`` ``[N]``."""
        pairs = [self.pair(int(number)) for number in numbers]
        return Pairs(*(np.stack(part) for part in zip(*pairs, strict=True)))

    def pair(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Generate one pair: frames ``[2, H, W, 3]``, flow ``[2, H, W]``, layers ``[2, H, W]``; see :class:`Pairs`."""
        rng = np.random.default_rng([self.seed, 1, number])
        height, width = self.size
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        camera = np.eye(3)
        if rng.random() >= self.still:
            camera = affine(rng, middle, rng.exponential(self.motion / 2), turn=0.5, zoom=0.01)
        frames, layers = np.empty((2, height, width, 3), np.uint8), np.zeros((2, height, width), np.uint8)
        paint = self._paint(rng, middle)
        flow = displacement(camera, slice(0, height), slice(0, width))
        for n, motion in enumerate((np.eye(3), camera)):
            frames[n] = paint(motion, slice(0, height), slice(0, width))
        for number_of_shape in range(1, int(rng.integers(3, 13)) + 1):
            centre = rng.uniform(-0.05, 1.05, 2) * (width, height)
            radius = min(height, width) * np.exp(rng.uniform(np.log(0.04), np.log(0.35)))
            contours = outline(rng, centre, radius)
            own = np.eye(3)
            if rng.random() >= STILL:
                own = affine(rng, centre, rng.exponential(self.motion), turn=2.0, zoom=0.02)
            motion = camera @ own
            paint = self._paint(rng, centre)
            for n, moved in enumerate((np.eye(3), motion)):
                covered = coverage([part @ moved[:2, :2].T + moved[:2, 2] for part in contours], self.size)
                if covered is None:
                    continue
                alpha, rows, columns = covered
                region = frames[n, rows, columns]
                frames[n, rows, columns] = cv2.blendLinear(paint(moved, rows, columns), region, alpha, 1 - alpha)
                inside = alpha >= 0.5
                layers[n, rows, columns][inside] = number_of_shape
                if n == 0:
                    flow[:, rows, columns][:, inside] = displacement(motion, rows, columns)[:, inside]
        return self._film(rng, frames), flow, layers

    def _paint(self, rng: np.random.Generator, centre: np.ndarray):
        """Choose a random texture, position and colours.

        Returns a function of (motion, rows, columns) that renders the moved texture, uint8 ``[h, w, 3]``.
        """
        source = self.textures[rng.integers(len(self.textures))]
        turn, at = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1, 2) * source.shape[1::-1]  # x, y
        contrast = rng.uniform(0.15, 1.1) * rng.uniform(0.8, 1.2, 3)
        base = rng.uniform(40, 215) + rng.normal(0, 20, 3)
        colours = np.column_stack((np.eye(3)[rng.permutation(3)] * contrast[:, None], base - 128 * contrast))
        scale = np.exp(rng.uniform(np.log(0.4), np.log(1.2)))  # texels per pixel
        flip = rng.choice((-1, 1))
        to_texel = np.eye(3)
        to_texel[:2, :2] = scale * rotation(turn) * (flip, 1)
        to_texel[:2, 2] = at - to_texel[:2, :2] @ centre

        def paint(motion: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
            here = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]])
            look_up = to_texel @ np.linalg.inv(motion) @ here  # pixel of the region -> texel
            size = (columns.stop - columns.start, rows.stop - rows.start)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            looked_up = cv2.warpAffine(source, look_up[:2], size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
            return cv2.transform(looked_up, colours)

        return paint

    def _film(self, rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
        """Simulate the camera: random brightness, contrast, gamma, colours and noise; small changes within a pair."""
        levels = np.linspace(0, 1, 256)[:, None]
        gamma, contrast, light = np.exp(rng.normal(0, 0.15)), rng.uniform(0.7, 1.2), rng.normal(0, 0.06)
        balance = np.exp(rng.normal(0, 0.06, 3))
        saturation = 0.0 if rng.random() < 0.3 else rng.uniform(0.3, 1)  # 0: a grey camera
        sigma = rng.uniform(0, 5)  # grey levels
        filmed = np.empty_like(frames)
        for n in range(2):
            change = np.exp(rng.normal(0, 0.015)) if n else 1.0
            curve = (((levels**gamma - 0.5) * contrast + 0.5 + light) * balance * change * 255).clip(0, 255)
            frame = cv2.LUT(frames[n], np.rint(curve).astype(np.uint8)[None])
            mixing = saturation * np.eye(3) + (1 - saturation) * np.array([[0.299, 0.587, 0.114]] * 3)
            start = int(rng.integers(0, NOISE - frame.size + 1))
            noise = self.noise[start : start + frame.size].reshape(frame.shape)
            if saturation == 0:
                noise = noise[..., :1]
            frame = cv2.transform(frame, mixing).astype(np.float32) + noise * np.float32(sigma)
            filmed[n] = np.rint(frame).clip(0, 255)
        return filmed


@lru_cache(maxsize=2)  # one for training pairs, one for validation pairs
def _textures_and_noise(seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Create the textures and the noise of all pairs of a generator."""
    rng = np.random.default_rng([seed, 0])
    return [texture(rng, TEXTURE_SIDE) for _ in range(TEXTURES)], rng.standard_normal(NOISE, dtype=np.float32)


def rotation(angle: float) -> np.ndarray:
    """Rotation matrix ``[2, 2]`` for ``angle`` in radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def affine(rng: np.random.Generator, centre: np.ndarray, length: float, turn: float, zoom: float) -> np.ndarray:
    """Random affine motion ``[3, 3]`` of homogeneous pixel coordinates.

    ``centre`` (x, y) moves by ``length`` pixels in a random direction. ``turn``: standard deviation of the rotation about
    ``centre``, degrees. ``zoom``: standard deviation of the scale, as a fraction; that of the shear is half of it.
    """
    direction = rng.uniform(0, 2 * np.pi)
    grow, shear = rng.normal(0, zoom), rng.normal(0, zoom / 2)
    linear = rotation(np.radians(rng.normal(0, turn))) @ np.array([[1 + grow, shear], [shear, 1 + grow]])
    motion = np.eye(3)
    motion[:2, :2] = linear
    motion[:2, 2] = centre + length * np.array([np.cos(direction), np.sin(direction)]) - linear @ centre
    return motion


def displacement(motion: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Displacement of each pixel of a region by ``motion``: float32 ``[2, h, w]``, right and down."""
    y, x = np.mgrid[rows, columns]
    moved = motion[:2] @ np.stack((x.ravel(), y.ravel(), np.ones(x.size)))  # [2, h * w]
    return (moved.reshape(2, *x.shape) - (x, y)).astype(np.float32)
