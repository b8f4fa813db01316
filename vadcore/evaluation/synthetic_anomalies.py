"""Artificial anomalies put into normal footage: how well a system finds what it was not shown, without any test label.

Three kinds that any camera could see: something foreign that crosses the picture, a part of the scene that moves much faster
than it did, and the whole scene at several times its speed. They are no model of real anomalies; they rank systems by
whether they notice at all, at the false-alarm rate that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Kind = Literal["intruder", "runner", "speedup"]
KINDS: tuple[Kind, ...] = ("intruder", "runner", "speedup")
SHARE = 0.3  # of a clip's frames that are abnormal
SPEED = 3  # times: of what was seen (speedup, runner)
CROSSING = 0.7  # of the picture's width that an intruder crosses
HEIGHTS = (0.2, 0.35)  # of the picture's: what is put in
EDGE = 0.15  # of a patch, over which it fades into the picture


@dataclass(frozen=True)
class Altered:
    """Footage with one artificial anomaly: frames uint8 ``[T, H, W, C]``, and which are abnormal, bool ``[T]``."""

    frames: np.ndarray
    abnormal: np.ndarray
    kind: Kind


def alter(frames: np.ndarray, others: np.ndarray, kind: Kind, seed: int) -> Altered:
    """Put an anomaly into a normal clip.

    Parameters
    ----------
    frames: uint8 ``[T, H, W, C]``, T > 5. Not changed.
    others: normal footage of the same camera and size, where intruders are cut out, upside down, so that they are foreign.
    seed: the same one puts the same anomaly at the same place.
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
        # from the first abnormal frame on the footage runs SPEED times as fast, and back again where it ends
        way = np.arange(stop - start) * SPEED + start
        made[start:stop] = frames[_folded(way, length)]
    else:
        patch = _patch(others if kind == "intruder" else frames[start:stop], kind, rng)
        _cross(made[start:stop], patch, kind, rng)
    return Altered(made, abnormal, kind)


def _folded(way: np.ndarray, length: int) -> np.ndarray:
    """Frame numbers beyond the end come back from it: footage has no end that would show as a jump."""
    period = max(1, 2 * (length - 1))
    way = way % period
    return np.where(way < length, way, period - way)


def _patch(source: np.ndarray, kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """What is put in, uint8 ``[n, h, w, C]``: of a runner where most moves, as it moves; of an intruder one still picture,
    upside down, from where most differs from its surroundings."""
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
    # one of the best places, not always the same
    places = np.argsort(best, axis=None)[-max(1, best.size // 50) :]
    y, x = np.unravel_index(int(rng.choice(places)), best.shape)
    cut = source[frame, y : y + h, x : x + w]
    return cut[:, ::-1] if kind == "intruder" else cut


def _cross(frames: np.ndarray, patch: np.ndarray, kind: Kind, rng: np.random.Generator) -> None:
    """Move ``patch`` ``[n, h, w, C]`` through ``frames`` ``[m, H, W, C]``, in place."""
    count, height, width = frames.shape[:3]
    h, w = patch.shape[1:3]
    fade = np.minimum.outer(_ramp(h), _ramp(w))[..., None]  # [h, w, 1], 1 inside, 0 at the border
    y = rng.uniform(0.3, 1.0) * (height - h)
    span = CROSSING * (width - w)
    first = rng.uniform(0, width - w - span)
    way = first + span * np.linspace(0, 1, count)
    if kind == "runner":  # there and back, as often as makes it fast
        way = first + span * np.abs((np.linspace(0, SPEED, count) + 1) % 2 - 1)
    if rng.random() < 0.5:
        way = width - w - way
    for number in range(count):
        x, part = round(float(way[number])), patch[number % len(patch)].astype(np.float32)
        place = frames[number, int(y) : int(y) + h, x : x + w]
        place[...] = np.round(fade * part + (1 - fade) * place).astype(np.uint8)


def _ramp(length: int) -> np.ndarray:
    """Rises from the borders to 1 over ``EDGE`` of the length."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.clip(distance / max(1, round(EDGE * length)), 0, 1).astype(np.float32)
