"""UCSD Ped1 and Ped2 (Mahadevan et al., CVPR 2010) in the official folder layout.

``UCSDped2/Train/Train001/001.tif``, ``UCSDped2/Test/Test001/001.tif``, labels in ``Test/UCSDped2.m``, masks in
``Test/Test001_gt/*.bmp``, named ``001.bmp`` or ``frame001.bmp``. Ped1 has masks for only some of its test clips.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import PositiveFloat

from vadcore.data.delivery import Layout, check_delivered, deliver, find_folder
from vadcore.data.download import Published
from vadcore.data.formats.base import Clip, StoredConfig, register_format
from vadcore.data.formats.clip_files import (
    checked_masks,
    clip_folders,
    clip_name,
    framed_clip,
    interval_labels,
    one_a_clip,
    pairing,
    read_m_list,
)
from vadcore.data.image_files import frame_number, numbered, read_images
from vadcore.utils.errors import VadError


@register_format
class UcsdConfig(StoredConfig):
    """UCSD Ped1 or Ped2: tif frames, ``_gt`` masks, ``.m`` list of abnormal intervals."""

    format: Literal["ucsd"]
    subset: Literal["UCSDped1", "UCSDped2"] = "UCSDped2"
    frames_per_second: PositiveFloat = 10.0

    @property
    def truth(self) -> str:
        return "intervals (.m list)"


SUBSETS = ("UCSDped1", "UCSDped2")
# The checksum is the one used by anomalib.
ARCHIVE = Published(
    "http://www.svcl.ucsd.edu/projects/anomaly/UCSD_Anomaly_Dataset.tar.gz",
    "2329af326951f5097fdd114c50e853957d3e569493a49d22fc082a9fd791915b",
    "http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm",
)


def _layout(config: UcsdConfig) -> Layout:
    def belongs(path: PurePosixPath) -> bool:
        if any(part in SUBSETS and part != config.subset for part in path.parts):
            return False
        if path.suffix.lower() == ".m":
            return path.stem == config.subset
        return path.suffix.lower() in (".tif", ".tiff", ".bmp") and path.parts[-3:-2] in (("Train",), ("Test",))

    description = f"{config.subset}/Train/Train001/*.tif, {config.subset}/Test/Test001/*.tif, {config.subset}.m"
    return Layout(belongs, description, (ARCHIVE,), frozenset([".tif", ".tiff", ".bmp"]))


def prepare(config: UcsdConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Download, copy or unpack the subset into ``raw``."""
    deliver(config, raw, _layout(config), say)
    root = _root(config, raw)
    listed = _list_file(config, root)
    say(pairing(read_m_list(listed), [clip_name(folder.name) for folder in _test_folders(root)], listed))


def clips(config: UcsdConfig, raw: Path) -> list[Clip]:
    """List the clips. All test clips have labels; those with a ``_gt`` folder also have masks.

    Raises :class:`VadError` if a folder or file is missing or the list does not have one entry per test clip.
    """
    check_delivered(raw)
    root = _root(config, raw)
    trains, tests, listed = clip_folders(root / "Train", "Train*"), _test_folders(root), _list_file(config, root)
    names = [clip_name(folder.name) for folder in tests]
    entries = one_a_clip(read_m_list(listed), names, listed)
    found = [framed_clip("train", folder, config.frames_per_second) for folder in trains]
    for folder, entry, name in zip(tests, entries, names, strict=True):
        labels = partial(interval_labels, entry, listed, name)
        truth = folder.with_name(f"{folder.name}_gt")
        masks = partial(_read_masks, truth) if truth.is_dir() else None
        found.append(framed_clip("test", folder, config.frames_per_second, labels, masks))
    return found


def _test_folders(root: Path) -> list[Path]:
    return [folder for folder in clip_folders(root / "Test", "Test*") if not folder.name.endswith("_gt")]


def _list_file(config: UcsdConfig, root: Path) -> Path:
    return root / "Test" / f"{config.subset}.m"


def _root(config: UcsdConfig, raw: Path) -> Path:
    inside = raw if (raw / "Train").is_dir() else find_folder(raw, f"{config.subset}/Train", _layout(config)).parent
    if not (inside / "Test").is_dir():
        raise VadError(f"{inside}: no folder Test; expected {_layout(config).description}")
    return inside


def _read_masks(folder: Path, length: int) -> np.ndarray:
    """Read the masks of one clip, uint8 0/1 ``[T, H, W]``. Mask i belongs to frame i, counted from 1."""
    files = numbered(folder)
    numbers = [frame_number(path) for path in files]
    if numbers != list(range(1, length + 1)):
        raise VadError(
            f"{folder}: {len(files)} masks, numbers {numbers[0]} to {numbers[-1]}, for {length} frames; "
            "there must be one for every frame: bring the folder again, or delete it to do without its masks"
        )
    return checked_masks(np.stack(list(read_images(files))), length, folder)
