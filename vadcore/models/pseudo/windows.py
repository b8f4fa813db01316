"""Training windows with pseudo-anomalies: normal footage with pasted objects, some of them altered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from vadcore.models.pseudo.alterations import Alteration, Paste, altered, as_it_was, draw, relit
from vadcore.models.pseudo.cutouts import Cutout, read_frames, soft_masks, still_scene
from vadcore.models.pseudo.scene import RARE, Scene

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

NEIGHBOURS = 200  # number of objects nearest by row that determine the most frequent size
SPREAD = (
    0.22,
    0.35,
)  # largest difference of a typical size from the most frequent one: logarithm of height and of width
ONE_WAY = 0.2  # windows are mirrored only if at least this share of the objects moves to each side
EDGE = 4.0  # smallest distance from the border to the centre of an unaltered object, pixels
INSIDE = 0.4  # the same for an altered object, in object heights; objects cut off by the border are ambiguous
CROWDED = 0.3  # share of the objects that are pasted next to the previous one
PLACES = 16  # number of random places tried for an object
ABSORBED = 0.5  # share of the objects without motion that are also drawn into the background
GHOSTS = 0.2  # share of the windows with an object that is drawn into the background only
FEWEST = 20  # with fewer objects of typical size, all objects are used
MIDDLE = 128  # grey level that a gain does not change
SLIP = 0.1  # scale of the distance from an object's own row (Student's t, 2 degrees of freedom), picture heights
SMALLEST, LARGEST = 0.5, 2.0  # range of the perspective's scale factor
DARKER, LIGHTER = 0.08, 8.0  # standard deviations of a window's gain, and of its offset in grey levels
FIELD = 0.06  # largest standard deviation of a smooth light field over the picture, as a share of the value range
RAMP, NOISE = 3.0, 1.5  # standard deviations of the light field's change over a window and of pixel noise, grey levels


@dataclass
class PastedBatch:
    """Windows on the model's device.

    frames: float ``[B, T, C, H, W]`` in 0..1. background: float ``[B, C, H, W]``, of the window. usual: float
    ``[B, C, H, W]``, background of all training footage. view: float ``[B, 4]``, top, bottom, left and right of the
    windows, in picture heights and widths. target: float ``[B, T, h, w]``, share of each place that altered objects cover.
    moving: float ``[B, T, h, w]`` in 0..1, where something moves or was pasted.
    """

    frames: Tensor
    background: Tensor
    usual: Tensor
    view: Tensor
    target: Tensor
    moving: Tensor


@dataclass(frozen=True)
class Pasting:
    """Settings of the windows and of the pasted objects.

    crop: height and width of the windows, in pixels of the footage. map_size: height and width of target and moving. length:
    number of frames in a window. middle: position of the middle frame. every: distance between frames in the footage.
    unaltered, altered: largest number of such objects in a window. weights: relative frequency of each alteration. least:
    smallest number of altered objects in a window.
    """

    crop: tuple[int, int]
    map_size: tuple[int, int]
    length: int
    middle: int
    every: int
    unaltered: int
    altered: int
    weights: Mapping[Alteration, float]
    least: int = 0


@dataclass
class _Canvas:
    """Target of drawing.

    window: float32 ``[T, h, w, C]`` in 0..255. background: its background, ``T`` = 1. corner: row and column of the window's
    top left corner in the picture. size: height and width of the picture. last: place of the previous object, or None.
    """

    window: np.ndarray
    background: np.ndarray
    corner: np.ndarray
    size: np.ndarray
    rng: np.random.Generator
    last: tuple[float, float] | None = None


class PastedWindows:
    """Source of windows of ``footage`` with pasted objects.

    A window depends only on its pick (segment, start, unused, number) and ``seed``, so a resumed training continues with the
    same windows. usual_speed: 90th percentile of the objects' speeds, in usual heights of their row per frame.
    """

    def __init__(self, footage: ClipLoader, cutouts: list[Cutout], scene: Scene, pasting: Pasting, seed: int):
        self.footage, self.scene, self.pasting = footage, scene, pasting
        self.seed, self.lengths, self.device = seed, footage.lengths, footage.device
        typical, heights = typical_sizes(cutouts)
        if typical.sum() < FEWEST:
            typical[:] = True
        self.cutouts = [cutout for cutout, is_typical in zip(cutouts, typical, strict=True) if is_typical]
        self._heights = heights[typical]
        self.usual_speed = float(
            np.quantile([c.speed / h for c, h in zip(self.cutouts, self._heights, strict=True)], 0.9)
        )
        moves = np.array([(c.path[-1] - c.path[0])[1] > 0 for c in self.cutouts])
        self.mirrored = ONE_WAY < moves.mean() < 1 - ONE_WAY
        self._kinds = [kind for kind, weight in pasting.weights.items() if weight > 0]
        weights = np.array([pasting.weights[kind] for kind in self._kinds])
        self._shares = weights / weights.sum()

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[PastedBatch]:
        """Yield a batch for every entry of ``plan``, prepared ahead in threads."""
        from vadcore.data.loader import made_ahead

        for _, parts in made_ahead(plan, self._batch):
            yield PastedBatch(*(torch.from_numpy(part).to(self.device, non_blocking=True) for part in parts))

    def _batch(self, picks: np.ndarray) -> list[np.ndarray]:
        return [np.stack(part) for part in zip(*map(self.make, picks), strict=True)]

    def make(self, pick: np.ndarray) -> tuple[np.ndarray, ...]:
        """Create the window ``pick``: the arrays of :class:`PastedBatch` without their first dimension."""
        pasting, (number, start, _, drawn) = self.pasting, pick.tolist()
        rng = np.random.default_rng([self.seed, 4, drawn])
        whole = read_frames(self.footage, number, start, pasting.length, pasting.every)
        still = still_scene(self.footage, number, start)
        size = still.shape[:2]
        corner = [int(rng.integers(full - part + 1)) for full, part in zip(size, pasting.crop, strict=True)]
        view = tuple(slice(first, first + side) for first, side in zip(corner, pasting.crop, strict=True))
        moving = soft_masks(whole[:, *view], still[view])  # [T, h, w]
        target = np.zeros_like(moving)
        canvas = _Canvas(
            whole[:, *view].astype(np.float32),
            still[None, *view].astype(np.float32),
            np.array(corner),
            np.array(size),
            rng,
        )
        usual = self.scene.background[None, *view].astype(np.float32)
        if rng.random() < GHOSTS:
            moving = np.maximum(moving, self._ghost(canvas))
        abnormal = np.repeat(
            [False, True], rng.integers([0, pasting.least], [pasting.unaltered + 1, pasting.altered + 1])
        )
        for wanted in rng.permutation(abnormal):
            alpha, wrong = self._paste(canvas, bool(wanted))
            moving, target = np.maximum(moving, alpha), target * (1 - alpha)
            if wrong:
                target = np.maximum(target, alpha)
        _relight(canvas.window, rng)
        _relight(usual, rng)
        where = [edge / full for side, full in zip(view, size, strict=True) for edge in (side.start, side.stop)]
        map_size = pasting.map_size[::-1]
        planes = [
            np.stack([cv2.resize(of_frame, map_size, interpolation=cv2.INTER_AREA) for of_frame in plane])
            for plane in (target, moving)
        ]  # [T, h, w] each
        pictures = canvas.window, canvas.background[0] / 255, usual[0]
        parts = [np.moveaxis(part, -1, -3) for part in pictures]  # [T, C, h, w], [C, h, w], [C, h, w]
        if self.mirrored and rng.random() < 0.5:
            parts, planes = ([part[..., ::-1] for part in group] for group in (parts, planes))
            where[2:] = where[:1:-1]
        return *map(np.ascontiguousarray, parts), np.array(where, np.float32), *map(np.ascontiguousarray, planes)

    def _ghost(self, canvas: _Canvas) -> np.ndarray:
        """Draw a random object into the background only, as if it had stood there and left. Returns its mask."""
        cutout = self.cutouts[int(canvas.rng.integers(len(self.cutouts)))]
        middle = self.pasting.middle
        place, _ = self._place(canvas, cutout, EDGE)
        paste = as_it_was(cutout, self.pasting.length, middle, _perspective(canvas, cutout, place), canvas.rng)
        return draw(canvas.background, _one_frame(paste, middle), place)

    def _paste(self, canvas: _Canvas, wanted: bool) -> tuple[np.ndarray, bool]:
        """Draw a random object, altered if ``wanted``. Returns its soft mask ``[T, h, w]`` and whether it is altered."""
        pasting, rng = self.pasting, canvas.rng
        chosen = int(rng.integers(len(self.cutouts)))
        cutout, height = self.cutouts[chosen], self._heights[chosen]
        kinds: list[Alteration] = []
        if wanted:
            count = min(1 + int(rng.random() < 0.4), len(self._kinds))
            kinds = [self._kinds[n] for n in rng.choice(len(self._kinds), count, replace=False, p=self._shares)]
        place, is_rare = self._place(canvas, cutout, INSIDE * cutout.height if kinds else EDGE, "misplaced" in kinds)
        if "misplaced" in kinds and not is_rare:
            kinds.remove("misplaced")
        scale = rng.uniform(0.9, 1.1) * _perspective(canvas, cutout, place)
        paste = as_it_was(cutout, pasting.length, pasting.middle, scale, rng)
        paste = relit(altered(paste, kinds, pasting.middle, self.usual_speed * height, self.cutouts, rng), rng)
        if "left" in kinds and rng.random() < ABSORBED:
            draw(canvas.background, _one_frame(paste, pasting.middle), place)
        return draw(canvas.window, paste, place), bool(kinds)

    def _place(
        self, canvas: _Canvas, cutout: Cutout, margin: float, rare: bool = False
    ) -> tuple[tuple[float, float], bool]:
        """Choose row and column in the window for the centre of an object. Also returns whether motion is rare there.

        Tries :data:`PLACES` random places near the object's own row, or near the previous object in :data:`CROWDED` of the
        cases. Takes the place with the lowest occupancy if ``rare``, otherwise the first one that is not rare. margin:
        smallest distance from the window's border.
        """
        rng, (height, width) = canvas.rng, canvas.window.shape[1:3]
        slip = SLIP * (2 if rare else 1) * canvas.size[0]
        rows = cutout.row - canvas.corner[0] + slip * rng.standard_t(2, PLACES)
        columns = rng.uniform(0, width, PLACES)
        if not rare and canvas.last is not None and rng.random() < CROWDED:
            rows = canvas.last[0] + rng.normal(0, 0.2 * cutout.height, PLACES)
            columns = canvas.last[1] + rng.normal(0, 0.5 * cutout.height, PLACES)
        rows, columns = (
            part.clip(min(margin, side / 2), max(side - margin, side / 2))
            for part, side in ((rows, height), (columns, width))
        )
        usual = self.scene.at((rows + canvas.corner[0]) / canvas.size[0], (columns + canvas.corner[1]) / canvas.size[1])
        best = int(usual.argmin() if rare else np.minimum(usual, RARE).argmax())
        canvas.last = float(rows[best]), float(columns[best])
        return canvas.last, bool(usual[best] < RARE)


def _perspective(canvas: _Canvas, cutout: Cutout, place: tuple[float, float]) -> float:
    """Scale factor for an object that is moved from its own row to the row of ``place``.

    On a plane, sizes are proportional to the distance from the row of the horizon. Footage with objects in only a few rows
    does not determine that row, so it is drawn at random, from the top of the picture to infinitely far above it.
    """
    row = float(place[0] + canvas.corner[0])
    ratio = np.clip(row / max(cutout.row, 1.0), SMALLEST, LARGEST)
    return float(1 + canvas.rng.random() * (ratio - 1))


def _one_frame(paste: Paste, middle: int) -> Paste:
    """Reduce ``paste`` to the middle frame."""
    return replace(paste, numbers=paste.numbers[middle : middle + 1], path=paste.path[middle : middle + 1])


def typical_sizes(cutouts: list[Cutout]) -> tuple[np.ndarray, np.ndarray]:
    """Find objects with a typical size for their row, bool ``[n]``, and the usual height in their row, ``[n]`` in pixels.

    The usual size is the most frequent one among the :data:`NEIGHBOURS` objects nearest by row. Groups of objects and parts
    of objects are not typical. If they were pasted unaltered, the network would learn that any shape is normal.
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
    """Vary the light of ``window`` ``[T, h, w, C]``, between windows and over time, and add noise. In place.

    Converts the value range from 0..255 to 0..1.
    """
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
    """``size`` values of Gaussian noise, created once: drawing noise for every window would take half of its time."""
    return NOISE * np.random.default_rng(0).standard_normal(size, dtype=np.float32)
