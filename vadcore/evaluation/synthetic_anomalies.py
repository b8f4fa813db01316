"""Insert synthetic anomalies into normal footage, to evaluate systems without test labels.

Three kinds, possible for any camera: a foreign object that crosses the picture, a part of the scene that moves much
faster than before, and the whole scene at several times its speed. They do not model real anomalies. They rank systems by
whether they detect the anomaly at all at the target false-alarm rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Kind = Literal["intruder", "runner", "speedup"]
KINDS: tuple[Kind, ...] = ("intruder", "runner", "speedup")
SHARE = 0.3  # share of abnormal frames in a clip
SPEED = 3  # speed-up factor (speedup, runner)
CROSSING = 0.7  # share of the free picture width that an inserted patch crosses
HEIGHTS = (0.2, 0.35)  # range of patch heights, in picture heights
EDGE = 0.15  # share of the patch size over which it is blended into the picture


@dataclass(frozen=True)
class Altered:
    """Footage with one synthetic anomaly: ``frames`` uint8 ``[T, H, W, C]``, ``abnormal`` bool ``[T]``, and its kind."""

    frames: np.ndarray
    abnormal: np.ndarray
    kind: Kind


def alter(frames: np.ndarray, others: np.ndarray, kind: Kind, seed: int) -> Altered:
    """Insert a synthetic anomaly into a normal clip.

    Parameters
    ----------
    frames: uint8 ``[T, H, W, C]``, T > 5. Not modified.
    others: normal footage of the same camera and frame size. Intruders are cut out of it and turned upside down, so that
        they are foreign to the scene.
    kind: "intruder" (foreign object), "runner" (part of the scene moves faster) or "speedup" (whole scene is faster).
    seed: the same seed gives the same anomaly at the same place.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    length = len(frames)
    count = max(3, round(SHARE * length))
    start = int(rng.integers(1, max(2, length - count)))
    stop = min(length, start + count)
    abnormal = np.zeros(length, bool)
    abnormal[start:stop] = True
    made = frames.copy()
    if kind == "speedup":
        # from the first abnormal frame on, play SPEED times as fast; play backwards after the end of the clip
        way = np.arange(stop - start) * SPEED + start
        made[start:stop] = frames[_folded(way, length)]
    else:
        patch = _patch(others if kind == "intruder" else frames[start:stop], kind, rng)
        _cross(made[start:stop], patch, kind, rng)
    return Altered(made, abnormal, kind)


def _folded(way: np.ndarray, length: int) -> np.ndarray:
    """Reflect frame numbers beyond the end of a clip, so that its end does not appear as a jump."""
    period = max(1, 2 * (length - 1))
    way = way % period
    return np.where(way < length, way, period - way)


def _patch(source: np.ndarray, kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Cut out the patch to insert, uint8 ``[n, h, w, C]``.

    Runner: a moving patch from a place with much motion. Intruder: one still picture, upside down, from a place that
    differs much from its surroundings.
    """
    count, height, width = source.shape[:3]
    h = max(4, round(height * rng.uniform(*HEIGHTS)))
    w = max(4, min(width // 2, round(h * rng.uniform(0.5, 1.2))))
    grey = source.astype(np.float32).mean(-1)  # [n, H, W]
    if kind == "runner":
        lively = np.abs(np.diff(grey, axis=0)).mean(0) if count > 1 else grey[0]
        frame = slice(None)
    else:
        number = int(rng.integers(count))
        lively = np.abs(grey[number] - cv2.GaussianBlur(grey[number], (0, 0), h / 2))
        frame = slice(number, number + 1)
    best = cv2.boxFilter(lively, -1, (w, h), anchor=(0, 0), borderType=cv2.BORDER_ISOLATED)[: height - h, : width - w]
    # random choice among the best 2 % of the places
    places = np.argsort(best, axis=None)[-max(1, best.size // 50) :]
    y, x = np.unravel_index(int(rng.choice(places)), best.shape)
    cut = source[frame, y : y + h, x : x + w]
    return cut[:, ::-1] if kind == "intruder" else cut


def _cross(frames: np.ndarray, patch: np.ndarray, kind: Kind, rng: np.random.Generator) -> None:
    """Draw ``patch`` ``[n, h, w, C]`` moving horizontally through ``frames`` ``[m, H, W, C]``, in place."""
    count, height, width = frames.shape[:3]
    h, w = patch.shape[1:3]
    fade = np.minimum.outer(_ramp(h), _ramp(w))[..., None]  # [h, w, 1], 1 inside, 0 at the border
    y = rng.uniform(0.3, 1.0) * (height - h)
    span = CROSSING * (width - w)
    first = rng.uniform(0, width - w - span)
    way = first + span * np.linspace(0, 1, count)
    if kind == "runner":  # back and forth, so that it covers the span SPEED times
        way = first + span * np.abs((np.linspace(0, SPEED, count) + 1) % 2 - 1)
    if rng.random() < 0.5:
        way = width - w - way
    for number in range(count):
        x, part = round(float(way[number])), patch[number % len(patch)].astype(np.float32)
        place = frames[number, int(y) : int(y) + h, x : x + w]
        place[...] = np.round(fade * part + (1 - fade) * place).astype(np.uint8)


def _ramp(length: int) -> np.ndarray:
    """Blending weights ``[length]``: rise from both borders to 1 over a share ``EDGE`` of the length."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.clip(distance / max(1, round(EDGE * length)), 0, 1).astype(np.float32)
