"""Insert synthetic anomalies into normal footage, to evaluate systems without test labels.

Two kinds, possible for any camera: a moving part of the scene on an erratic path, and smoke that spreads. They do not model
real anomalies. They rank systems by whether they detect the anomaly at all at the target false-alarm rate. No system is
trained on them: the pseudo-anomalies of :mod:`vadcore.models.pseudo` move along a line or stay, and are as opaque as the
objects that they are made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Kind = Literal["erratic", "smoke"]
KINDS: tuple[Kind, ...] = ("erratic", "smoke")
SHARE = 0.3  # share of abnormal frames in a clip
HEIGHTS = {"erratic": (0.2, 0.35), "smoke": (0.1, 0.4)}  # of the patch and of the cloud, in picture heights
EDGE = 0.15  # share of the patch size over which it is blended into the picture
STEP = 0.05  # distance that an erratic patch moves per frame, in picture heights
TURN = 4  # frames between its turns
OPAQUE, BRIGHTER = 0.7, 60.0  # smoke: greatest opacity, and how much brighter than the picture's mean, grey levels


@dataclass(frozen=True)
class Altered:
    """Footage with one synthetic anomaly: ``frames`` uint8 ``[T, H, W, C]`` and ``abnormal`` bool ``[T]``."""

    frames: np.ndarray
    abnormal: np.ndarray


def alter(frames: np.ndarray, kind: Kind, seed: int) -> Altered:
    """Insert a synthetic anomaly into a normal clip.

    Parameters
    ----------
    frames: uint8 ``[T, H, W, C]``, T > 5. Not modified.
    kind: "erratic" (lively part of the scene that turns every few frames) or "smoke" (translucent cloud that spreads).
    seed: the same seed gives the same anomaly at the same place.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    length = len(frames)
    count = max(3, round(SHARE * length))
    start = int(rng.integers(1, max(2, length - count)))
    abnormal = np.zeros(length, bool)
    abnormal[start : start + count] = True
    made = frames.copy()
    part = made[abnormal]
    if kind == "smoke":
        _spread(part, rng)
    else:
        patch = _patch(part, rng)
        _draw(part, patch, _path(part.shape, patch.shape[1:3], rng))
    made[abnormal] = part
    return Altered(made, abnormal)


def _patch(source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a moving patch, uint8 ``[n, h, w, C]``, out of a place with much motion."""
    count, height, width = source.shape[:3]
    h = max(4, round(height * rng.uniform(*HEIGHTS["erratic"])))
    w = max(4, min(width // 2, round(h * rng.uniform(0.5, 1.2))))
    grey = source.astype(np.float32).mean(-1)  # [n, H, W]
    lively = np.abs(np.diff(grey, axis=0)).mean(0) if count > 1 else grey[0]
    best = cv2.boxFilter(lively, -1, (w, h), anchor=(0, 0), borderType=cv2.BORDER_ISOLATED)[: height - h, : width - w]
    # random choice among the best 2 % of the places
    places = np.argsort(best, axis=None)[-max(1, best.size // 50) :]
    y, x = np.unravel_index(int(rng.choice(places)), best.shape)
    return source[:, y : y + h, x : x + w].copy()


def _path(shape: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Row and column of the patch's corner in each frame, int ``[m, 2]``; footage ``[m, H, W, C]``, patch ``size``."""
    free = np.array(shape[1:3]) - size
    first = rng.uniform([0.3, 0.05], [1.0, 0.95]) * free
    angles = np.repeat(rng.uniform(0, 2 * np.pi, -(-shape[0] // TURN)), TURN)[: shape[0]]
    way = first + np.cumsum(STEP * shape[1] * np.stack([np.sin(angles), np.cos(angles)], axis=1), axis=0)
    return (free - np.abs(way % (2 * np.maximum(free, 1)) - free)).clip(0).astype(int)  # reflected at the borders


def _draw(frames: np.ndarray, patch: np.ndarray, path: np.ndarray) -> None:
    """Draw ``patch`` ``[n, h, w, C]`` along ``path`` into ``frames`` ``[m, H, W, C]``, in place."""
    h, w = patch.shape[1:3]
    fade = np.minimum.outer(_ramp(h), _ramp(w))[..., None]  # [h, w, 1], 1 inside, 0 at the border
    for number, (y, x) in enumerate(path):
        place = frames[number, y : y + h, x : x + w]
        place[...] = np.round(fade * patch[number % len(patch)] + (1 - fade) * place).astype(np.uint8)


def _ramp(length: int) -> np.ndarray:
    """Blending weights ``[length]``: rise from both borders to 1 over a share ``EDGE`` of the length."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.clip(distance / max(1, round(EDGE * length)), 0, 1).astype(np.float32)


def _spread(frames: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a cloud that grows from its centre into ``frames`` ``[m, H, W, C]``, in place."""
    count, height, width = frames.shape[:3]
    colour = min(255.0, frames.mean() + BRIGHTER)
    uneven = cv2.resize(rng.uniform(0.4, 1, (5, 7)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    row, column = rng.uniform(0.3, 0.8) * height, rng.uniform(0.2, 0.8) * width
    y, x = np.mgrid[:height, :width]
    away = np.hypot(y - row, x - column)
    for number, radius in enumerate(np.linspace(*HEIGHTS["smoke"], count) * height):
        opacity = (OPAQUE * uneven * np.exp(-((away / radius) ** 2)))[..., None]
        frames[number] = np.round(opacity * colour + (1 - opacity) * frames[number]).clip(0, 255).astype(np.uint8)
