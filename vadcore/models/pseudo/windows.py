"""Training windows with pseudo-anomalies in them: normal footage, objects pasted as they were, and altered objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from vadcore.models.pseudo.alterations import Alteration, altered, as_it_was, draw
from vadcore.models.pseudo.cutouts import Cutout, read_frames, soft_masks, still_scene

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

NEIGHBOURS = 200  # objects by row, among which the most frequent size is looked for
SPREAD = (0.22, 0.35)  # log of height and of width: how far an object of typical size may be from the most frequent one
FEWEST = 20  # objects of typical size; with fewer all objects are used
MIDDLE = 128  # grey level that a gain leaves as it is
SLIP = 0.05  # standard deviation of the row that an object is pasted at around its own, in picture heights
DARKER, LIGHTER = 0.08, 8.0  # standard deviations of the gain, and of the offset in grey levels, of a window's light
FIELD = 0.06  # of the range: standard deviation of a smooth light field over the picture
RAMP, NOISE = 3.0, 1.5  # grey levels: standard deviations of its change over a window, and of the pixels' noise


@dataclass
class PastedBatch:
    """Windows on the model's device.

    frames: float ``[B, T, C, H, W]`` in 0..1. background: float ``[B, C, H, W]``, the still scene. rows: float ``[B, 2]``,
    where the windows begin and end in the picture, in picture heights. target: float ``[B, h, w]``, share of each place
    that altered objects cover in the judged frame. moving: float ``[B, h, w]`` in 0..1, where something moves or was pasted.
    """

    frames: Tensor
    background: Tensor
    rows: Tensor
    target: Tensor
    moving: Tensor


@dataclass(frozen=True)
class Pasting:
    """What is pasted.

    crop: height and width of the windows, in pixels of the footage. map_size: of target and moving. length: frames of a
    window. judged: the position of the judged one. every: the distance between two of them in the footage. unaltered,
    altered: objects of either kind in a window, at most. weights: how often each alteration is drawn. least: altered
    objects in a window.
    """

    crop: tuple[int, int]
    map_size: tuple[int, int]
    length: int
    judged: int
    every: int
    unaltered: int
    altered: int
    weights: Mapping[Alteration, float]
    least: int = 0


class PastedWindows:
    """Windows of ``footage`` with pasted objects; stands in place of the footage in training.

    A window depends on its pick (segment, start, unused, number) and ``seed`` alone: a resumed training goes on with the
    same windows. usual_speed: a high speed of objects, in usual heights of their row a frame.
    """

    def __init__(self, footage: ClipLoader, cutouts: list[Cutout], pasting: Pasting, seed: int):
        self.footage, self.pasting = footage, pasting
        self.seed, self.lengths, self.device = seed, footage.lengths, footage.device
        typical, heights = typical_sizes(cutouts)
        if typical.sum() < FEWEST:
            typical[:] = True
        self.cutouts = [cutout for cutout, is_typical in zip(cutouts, typical, strict=True) if is_typical]
        self._heights = heights[typical]
        self.usual_speed = float(
            np.quantile([c.speed / h for c, h in zip(self.cutouts, self._heights, strict=True)], 0.9)
        )
        self._kinds = [kind for kind, weight in pasting.weights.items() if weight > 0]
        weights = np.array([pasting.weights[kind] for kind in self._kinds])
        self._shares = weights / weights.sum()

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[PastedBatch]:
        """A batch for every entry of ``plan``, made ahead by threads."""
        from vadcore.data.loader import made_ahead

        for _, parts in made_ahead(plan, self._batch):
            yield PastedBatch(*(torch.from_numpy(part).to(self.device, non_blocking=True) for part in parts))

    def _batch(self, picks: np.ndarray) -> list[np.ndarray]:
        return [np.stack(part) for part in zip(*map(self.make, picks), strict=True)]

    def make(self, pick: np.ndarray) -> tuple[np.ndarray, ...]:
        """The window ``pick``, as in :class:`PastedBatch` but for the first dimension."""
        pasting, (number, start, _, drawn) = self.pasting, pick.tolist()
        rng = np.random.default_rng([self.seed, 4, drawn])
        whole = read_frames(self.footage, number, start, pasting.length, pasting.every)
        still = still_scene(self.footage, number, start)
        corner = [int(rng.integers(full - part + 1)) for full, part in zip(still.shape, pasting.crop, strict=False)]
        view = tuple(slice(first, first + side) for first, side in zip(corner, pasting.crop, strict=True))
        window, still = whole[:, *view].astype(np.float32), still[view]
        moving = soft_masks(whole[pasting.judged : pasting.judged + 1, *view], still)[0]
        target = np.zeros_like(moving)
        abnormal = np.repeat(
            [False, True], rng.integers([0, pasting.least], [pasting.unaltered + 1, pasting.altered + 1])
        )
        for wrong in rng.permutation(abnormal):
            alpha = self._paste(window, bool(wrong), corner[0], whole.shape[1], rng)
            moving, target = np.maximum(moving, alpha), target * (1 - alpha)
            if wrong:
                target = np.maximum(target, alpha)
        _relight(window, rng)
        size = pasting.map_size[::-1]
        rows = np.array([view[0].start, view[0].stop], np.float32) / whole.shape[1]
        return (
            np.ascontiguousarray(window.transpose(0, 3, 1, 2)),
            np.ascontiguousarray(still.transpose(2, 0, 1)).astype(np.float32) / 255,
            rows,
            *(cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (target, moving)),
        )

    def _paste(self, window: np.ndarray, wrong: bool, top: int, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a random object, altered if ``wrong``; its soft mask in the judged frame."""
        pasting = self.pasting
        chosen = int(rng.integers(len(self.cutouts)))
        cutout, height = self.cutouts[chosen], self._heights[chosen]
        row = np.clip(cutout.row + rng.normal(0, SLIP * rows), top + 4, top + window.shape[1] - 4)
        paste = as_it_was(cutout, pasting.length, pasting.judged, rng.uniform(0.92, 1.08), rng)
        if wrong:
            count = min(1 + int(rng.random() < 0.4), len(self._kinds))
            kinds = [self._kinds[n] for n in rng.choice(len(self._kinds), count, replace=False, p=self._shares)]
            paste = altered(paste, kinds, pasting.judged, self.usual_speed * height, self.cutouts, rng)
        return draw(window, paste, (row - top, rng.uniform(0, window.shape[2])), pasting.judged)


def typical_sizes(cutouts: list[Cutout]) -> tuple[np.ndarray, np.ndarray]:
    """Which objects have a typical size for their row, bool ``[n]``, and the usual height in their row, ``[n]`` in pixels.

    The usual size is the most frequent one among the :data:`NEIGHBOURS` objects that are nearest by row: size depends on the
    row. Groups of objects and parts of objects are not typical. Pasted unaltered, they would teach the network that any
    shape is normal.
    """
    order = np.argsort([cutout.row for cutout in cutouts], kind="stable")
    sizes = np.log([[cutouts[n].height, cutouts[n].width] for n in order]) / SPREAD  # [n, 2]
    typical, heights = np.zeros(len(order), bool), np.zeros(len(order))
    for place, number in enumerate(order):
        first = np.clip(place - NEIGHBOURS // 2, 0, max(0, len(order) - NEIGHBOURS))
        near = sizes[first : first + NEIGHBOURS]
        close = np.abs(near[:, None] - near).max(-1) < 0.7  # [m, m]
        most_frequent = near[close.sum(1).argmax()]
        typical[number] = (np.abs(sizes[place] - most_frequent) < 1).all()
        heights[number] = np.exp(most_frequent[0] * SPREAD[0])
    return typical, heights


def _relight(window: np.ndarray, rng: np.random.Generator) -> None:
    """Vary the light of ``window`` ``[T, h, w, C]`` in 0..255 as it varies from day to day and within a second, add noise,
    and bring it to 0..1; in place."""
    length, height, width, _ = window.shape
    if rng.random() < 0.7:
        field = cv2.resize(rng.standard_normal((3, 4)).astype(np.float32), (width, height))
        field = field * (255 * FIELD * rng.random())
        ramp = np.linspace(-1, 1, length)[:, None, None] * RAMP * rng.standard_normal() * (field / 255 / FIELD + 1)
        window -= MIDDLE
        window *= 1 + DARKER * rng.standard_normal()
        window += (MIDDLE + LIGHTER * rng.standard_normal() + field + ramp).astype(np.float32)[..., None]
    noise = _noise(max(1 << 22, 2 * window[0].size))
    for frame in window:
        first = int(rng.integers(len(noise) - frame.size))
        frame += noise[first : first + frame.size].reshape(frame.shape)
    np.clip(window, 0, 255, out=window)
    window /= 255


@cache
def _noise(size: int) -> np.ndarray:
    """``size`` values of Gaussian noise to take pieces of: drawing it anew takes half of the time of a window."""
    return NOISE * np.random.default_rng(0).standard_normal(size, dtype=np.float32)
