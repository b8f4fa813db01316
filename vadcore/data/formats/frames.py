"""Folders of frames: ``training/frames/<clip>/*.jpg`` and ``testing/frames/<clip>/*.jpg``.

This is the common re-packaging of the benchmark data sets. Optional files in the same folder: a ``.mat`` file with the
abnormal intervals of every test clip, and an ``.npz`` file with the masks of every test clip (array ``Test001`` or
``01`` for clip ``01``).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import PositiveFloat, field_validator

from vadcore.data.delivery import Layout, check_delivered, deliver, find_folder
from vadcore.data.formats.base import Clip, StoredConfig, register_format
from vadcore.data.formats.clip_files import (
    checked_masks,
    clip_folders,
    clip_name,
    framed_clip,
    interval_labels,
    one_a_clip,
    pairing,
    read_mat,
)
from vadcore.data.image_files import IMAGE_ENDINGS
from vadcore.utils.errors import VadError


@register_format
class FramesConfig(StoredConfig):
    """``training/frames/NN/*.jpg``, ``testing/frames/NN/*.jpg``, an optional ``.mat`` of intervals and masks."""

    format: Literal["frames"]
    frames_per_second: PositiveFloat = 10.0  # frame rate; image files do not store it
    # values that become black and white in pictures with more than 8 bits; null: 0 and 65535 for 16 bits, others are refused
    pixel_range: tuple[float, float] | None = None
    labels: str | None = None  # file name inside the folder; null: the only *.mat file, if there is one
    masks: str | None = None  # file name inside the folder; null: pixel_masks.npz if it exists

    @property
    def truth(self) -> str:
        return "intervals (.mat)"

    @field_validator("pixel_range")
    @classmethod
    def _range_is_not_empty(cls, pixel_range):
        if pixel_range is not None and not pixel_range[0] < pixel_range[1]:
            raise ValueError("the first value must be below the second")
        return pixel_range


MASKS = "pixel_masks.npz"


def _layout() -> Layout:
    def belongs(path: PurePosixPath) -> bool:
        if path.suffix.lower() in IMAGE_ENDINGS:
            return len(path.parts) >= 4 and path.parts[-4] in ("training", "testing") and path.parts[-3] == "frames"
        return path.suffix.lower() in (".mat", ".npz")

    return Layout(belongs, "training/frames/<clip>/*.jpg and testing/frames/<clip>/*.jpg", endings=IMAGE_ENDINGS)


def prepare(config: FramesConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Copy or unpack the source into ``raw``."""
    deliver(config, raw, _layout(), say)
    root = _root(raw)
    source = _labels_file(config, root)
    if source:
        names = [clip_name(folder.name) for folder in _test_folders(root)]
        say(pairing(read_mat(source), names, source))
    else:
        say(f"{raw}: no .mat file of labels, the test clips are unlabelled: they are scored, but not evaluated")


def clips(config: FramesConfig, raw: Path) -> list[Clip]:
    """List the clips, with labels and masks if the files exist.

    Raises :class:`VadError` if the number of label entries differs from the number of test clips, or if a test clip has
    no masks in the mask file.
    """
    check_delivered(raw)
    root = _root(raw)
    found = [
        framed_clip("train", folder, config.frames_per_second, pixel_range=config.pixel_range)
        for folder in clip_folders(root / "training" / "frames")
    ]
    tests = _test_folders(root)
    names = [clip_name(folder.name) for folder in tests]
    labels_file, masks_file = _labels_file(config, root), _masks_file(config, root)
    labels: list = [None] * len(tests)
    masks: list = [None] * len(tests)
    if labels_file:
        entries = one_a_clip(read_mat(labels_file), names, labels_file)
        labels = [
            partial(interval_labels, entry, labels_file, name) for entry, name in zip(entries, names, strict=True)
        ]
    if masks_file:
        masks = [partial(_read_masks, masks_file, key) for key in _mask_keys(masks_file, names)]
    for folder, label, mask in zip(tests, labels, masks, strict=True):
        found.append(framed_clip("test", folder, config.frames_per_second, label, mask, config.pixel_range))
    return found


def _root(raw: Path) -> Path:
    return find_folder(raw, "training/frames", _layout()).parents[1]


def _test_folders(root: Path) -> list[Path]:
    return clip_folders(find_folder(root, "testing/frames", _layout()))


def _labels_file(config: FramesConfig, root: Path) -> Path | None:
    if config.labels:
        return _named(root, config.labels, "labels")
    there = sorted(path for path in root.glob("*.mat") if not path.name.startswith("."))
    if len(there) > 1:
        names = ", ".join(path.name for path in there)
        raise VadError(f"{root}: several .mat files ({names}); name the one with the labels in dataset.*.labels")
    return there[0] if there else None


def _masks_file(config: FramesConfig, root: Path) -> Path | None:
    if config.masks:
        return _named(root, config.masks, "masks")
    return root / MASKS if (root / MASKS).is_file() else None


def _named(root: Path, name: str, key: str) -> Path:
    if not (root / name).is_file():
        raise VadError(f"{root / name}: missing; correct dataset.*.{key} or bring the file")
    return root / name


def _mask_keys(path: Path, names: list[str]) -> list[str]:
    """Return the array name of each clip: the array with the same name, else with the same number."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise VadError(f"{path}: not a readable .npz archive ({error}); replace it") from error
    found = []
    for name in names:
        same = [key for key in keys if key == name] or [key for key in keys if _number(key) == _number(name)]
        alike = [other for other in names if _number(other) == _number(name)]
        if len(same) != 1 or (same[0] != name and len(alike) > 1):
            raise VadError(
                f"{path}: {'no' if not same else 'several'} masks for test clip {name} among {', '.join(keys)}; name each "
                "array like its clip"
            )
        found.append(same[0])
    return found


def _number(name: str) -> int | str:
    digits = re.search(r"(\d+)\D*$", name)
    return int(digits[1]) if digits else name


def _read_masks(path: Path, key: str, length: int) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return checked_masks(archive[key], length, Path(f"{path}/{key}"))
