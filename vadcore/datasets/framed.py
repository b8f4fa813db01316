"""Clips that are folders of numbered image files, with the truth that belongs to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from vadcore.errors import VadError

from . import Clip, Split
from .intervals import Intervals, labels_of
from .reading import numbered, read_numbered

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def clip_name(text: str) -> str:
    """``text`` as a clip's name: anything but letters, digits and ``-_.`` becomes ``_``; no dot in front."""
    return _NOT_IN_NAMES.sub("_", text).lstrip(".") or "_"


def clip_folders(parent: Path, pattern: str = "*") -> list[Path]:
    """The clips' folders below ``parent``, sorted by name. Raises :class:`VadError` when there are none."""
    found = sorted(path for path in parent.glob(pattern) if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise VadError(f"{parent}: holds no clip folders ({pattern}); bring the frames or correct dataset.*.source")
    return found


def framed_clip(
    split: Split,
    folder: Path,
    fps: float,
    labels: Callable[[int], np.ndarray] | None = None,
    masks: Callable[[int], np.ndarray] | None = None,
) -> Clip:
    """The clip in ``folder``; ``labels`` and ``masks`` are told how many frames it has."""
    files = numbered(folder)
    return Clip(
        split=split,
        name=clip_name(folder.name),
        source=folder,
        fps=fps,
        frames=partial(read_numbered, files),
        labels=labels and partial(labels, len(files)),
        masks=masks and partial(masks, len(files)),
        files=files,
    )


def interval_labels(intervals: Intervals, source: Path, clip: str, length: int) -> np.ndarray:
    """:func:`labels_of` with the length last, for :func:`framed_clip`."""
    return labels_of(intervals, length, source, clip)


def checked_masks(masks: np.ndarray, length: int, source: Path) -> np.ndarray:
    """``masks`` as uint8 0/1 ``[T, H, W]``; a :class:`VadError` when they are not one picture a frame."""
    if masks.ndim != 3 or len(masks) != length:
        raise VadError(
            f"{source}: masks of shape {list(masks.shape)} for {length} frames, expected [{length}, H, W]; "
            "masks and footage must be of the same recording: correct one of them"
        )
    return (masks != 0).astype(np.uint8)


def load_npy(path: Path) -> np.ndarray:
    """An array from a ``.npy`` file; never unpickles. Raises :class:`VadError` when it is missing or unreadable."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise VadError(f"{path}: missing; bring the label files of the data set") from None
    except (ValueError, EOFError, OSError) as error:
        raise VadError(f"{path}: not a readable .npy array ({error}); replace it") from error
