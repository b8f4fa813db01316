"""Cut moving objects out of normal footage: pictures, soft masks and paths over several frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vadcore.utils.spaced import spaced

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

LENGTH = 24  # largest number of frames of an object
HOP = 8  # distance between the starts of two stretches of footage, frames
STRETCHES = 300  # largest number of stretches in which objects are searched, evenly spaced over all footage
MOST = 1_500  # largest number of objects; with more, a random choice
FAINT, CLEAR = 8.0, 18.0  # difference from the background, in grey levels, at which the soft mask is 0 and 1
LARGEST = (0.8, 0.5)  # largest height and width of an object, as shares of the picture's
PATCHES = 64  # number of patches in place of objects, for footage without motion
MARGIN = 3  # pixels around an object
CHANGE = 1.8  # largest factor by which the area of an object may change while it is tracked


@dataclass(frozen=True)
class Cutout:
    """A moving object over ``T`` frames.

    pictures: uint8 ``[T, h, w, C]``. alpha: uint8 ``[T, h, w]``, the soft mask. path: float32 ``[T, 2]``, row and column
    of the patch's centre. height: height of the object without margin, pixels. speed: mean speed, pixels per frame.
    """

    pictures: np.ndarray
    alpha: np.ndarray
    path: np.ndarray
    height: int
    speed: float

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def width(self) -> int:
        """Width of the object without margin, pixels. The margin is the same on all sides."""
        return self.pictures.shape[2] - (self.pictures.shape[1] - self.height)

    @property
    def row(self) -> float:
        """Row of the object's centre in the middle of its path."""
        return float(self.path[len(self.path) // 2, 0])


def cut_out(footage: ClipLoader, shortest: int, every: int = 1) -> list[Cutout]:
    """Cut out at most :data:`MOST` objects of at least ``shortest`` frames, in the order of the footage.

    If nothing moves in the footage, returns :data:`PATCHES` random patches of it instead. every: distance between the
    frames that are used.
    """
    starts = [
        (number, start)
        for number, length in enumerate(footage.lengths)
        for start in range(0, length - (shortest - 1) * every, HOP * every)
    ]
    rng = np.random.default_rng(3)
    found: list[Cutout] = []
    for number, start in (starts[place] for place in spaced(len(starts), STRETCHES)):
        count = min(LENGTH, (footage.lengths[number] - start - 1) // every + 1)
        stretch = read_frames(footage, number, start, count, every)
        found += cut_of_stretch(stretch, still_scene(footage, number, start), shortest)
    if not found:
        return [_patch(footage, shortest, rng) for _ in range(PATCHES)]
    return [found[n] for n in sorted(rng.permutation(len(found))[:MOST])]


def _patch(footage: ClipLoader, length: int, rng: np.random.Generator) -> Cutout:
    """Make an object from a random round patch, a sixth of the picture high, that moves to the left or right."""
    number = int(rng.integers(len(footage.lengths)))
    (picture,) = read_frames(footage, number, int(rng.integers(footage.lengths[number])), 1)
    tall = max(4, round(picture.shape[0] / 6))
    wide = min(tall, picture.shape[1])
    row, column = (int(rng.integers(full - part + 1)) for full, part in zip(picture.shape, (tall, wide), strict=False))
    y, x = np.mgrid[-1 : 1 : tall * 1j, -1 : 1 : wide * 1j]
    alpha = (np.clip(4 * (1 - np.hypot(y, x)), 0, 1) * 255).astype(np.uint8)
    speed = rng.uniform(0, 0.05) * rng.choice((-1, 1))
    path = np.array([row + tall / 2, column + wide / 2]) + np.arange(length)[:, None] * np.array([0, speed * tall])
    piece = picture[row : row + tall, column : column + wide]
    pictures, alphas = (np.broadcast_to(part, (length, *part.shape)) for part in (piece, alpha))
    return Cutout(pictures, alphas, path.astype(np.float32), tall, abs(speed) * tall)


def read_frames(footage: ClipLoader, number: int, start: int, count: int, stride: int = 1) -> np.ndarray:
    """Read ``count`` frames of segment ``number``, ``stride`` apart: uint8 ``[count, H, W, C]``."""
    pictures, _ = footage.raw(np.array([[number, start, stride]]), count)
    return np.ascontiguousarray(pictures[0].cpu().numpy().transpose(0, 2, 3, 1))


def still_scene(footage: ClipLoader, number: int, start: int) -> np.ndarray:
    """Background of the window of segment ``number`` that begins at frame ``start``: uint8 ``[H, W, C]``."""
    return np.ascontiguousarray(footage.background(number, start).transpose(1, 2, 0))


def soft_masks(frames: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Soft masks of what differs from the background.

    frames: ``[T, H, W, C]``. still: the background, ``[H, W, C]``. Returns float32 ``[T, H, W]`` in 0..1.
    """
    blurred = np.stack([_blurred(frame) for frame in frames]) - _blurred(still)
    return np.clip((np.abs(blurred).max(-1) - FAINT) / (CLEAR - FAINT), 0, 1)


def _blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 1.0).reshape(picture.shape).astype(np.float32)


def cut_of_stretch(frames: np.ndarray, still: np.ndarray, shortest: int) -> list[Cutout]:
    """Cut out the objects of the first of ``frames`` ``[T, H, W, C]`` that can be tracked for ``shortest`` frames."""
    masks = soft_masks(frames, still)
    pieces = [_pieces(mask) for mask in masks]
    _, stats = pieces[0]
    followed = (_follow(frames, masks, pieces, n) for n in range(1, len(stats)) if _is_object(stats[n], masks[0].shape))
    return [cutout for cutout in followed if len(cutout) >= shortest]


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and OpenCV's statistics of the connected components of a soft mask ``[H, W]``; 0 is the background."""
    solid = cv2.morphologyEx((mask > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    return labels, stats


def object_centres(mask: np.ndarray) -> list[tuple[float, float]]:
    """Row and column of the centre of each object in a soft mask ``[H, W]``, as shares of the picture's height and width."""
    _, stats = _pieces(mask)
    height, width = mask.shape
    return [
        ((top + tall / 2) / height, (left + wide / 2) / width)
        for left, top, wide, tall, _ in (one.tolist() for one in stats[1:] if _is_object(one, mask.shape))
    ]


def _is_object(stats: np.ndarray, size: tuple[int, int]) -> bool:
    left, top, wide, tall, area = stats.tolist()
    inside = left > 0 and top > 0 and left + wide < size[1] and top + tall < size[0]
    fits = tall >= 6 and wide >= 3 and tall <= LARGEST[0] * size[0] and wide <= LARGEST[1] * size[1]
    return inside and fits and area >= 0.2 * tall * wide


def _follow(frames: np.ndarray, masks: np.ndarray, pieces: list[tuple[np.ndarray, np.ndarray]], label: int) -> Cutout:
    """Track the component ``label`` of the first frame: in each frame, the components that overlap it in the frame before.

    Tracking ends when the area changes too much (objects merge or split) or the object leaves the picture.
    """
    height, width = masks[0].shape
    left, top, wide, tall, area = pieces[0][1][label].tolist()
    margin = MARGIN + round(0.15 * tall)
    size = np.array([tall, wide]) + 2 * margin
    pictures, alphas, path = [], [], []
    labels, stats = pieces[0]
    found = np.array([label])
    box, own = _inside(labels, stats, found)
    offset = None  # from the centroid of the object to the patch's corner
    for number, frame in enumerate(frames):
        if number:
            labels, stats = pieces[number]
            found = np.unique(labels[box][own])
            found = found[found > 0]
            if not area / CHANGE <= stats[found, cv2.CC_STAT_AREA].sum() <= area * CHANGE:
                break
            box, own = _inside(labels, stats, found)
        y, x = np.nonzero(own)
        centroid = np.array([box[0].start + y.mean(), box[1].start + x.mean()])
        offset = np.array([top, left]) - margin - centroid if offset is None else offset
        row, column = np.rint(centroid + offset).astype(int)
        if row < 0 or column < 0 or row + size[0] > height or column + size[1] > width:
            break
        view = np.s_[row : row + size[0], column : column + size[1]]
        near = cv2.dilate(np.isin(labels[view], found).astype(np.uint8), np.ones((3, 3), np.uint8))
        pictures.append(frame[view])
        alphas.append((masks[number][view] * near * 255).astype(np.uint8))
        path.append(centroid + offset + (size - 1) / 2)
    if not path:
        return Cutout(frames[:0], frames[:0, ..., 0], np.zeros((0, 2), np.float32), tall, 0.0)
    way = np.array(path, np.float32)
    speed = float(np.linalg.norm(way[-1] - way[0])) / max(1, len(way) - 1)
    return Cutout(np.stack(pictures), np.stack(alphas), way, tall, speed)


def _inside(labels: np.ndarray, stats: np.ndarray, found: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Bounding box of the components ``found``, as slices of rows and columns, and the mask of their pixels in it."""
    lefts, tops, widths, heights, _ = stats[found].T
    box = slice(tops.min(), (tops + heights).max()), slice(lefts.min(), (lefts + widths).max())
    return box, np.isin(labels[box], found)
