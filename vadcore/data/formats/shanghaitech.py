"""ShanghaiTech Campus (Luo, Liu and Gao, ICCV 2017).

``training/videos/SS_NNN.avi``, ``testing/frames/SS_NNNN/*.jpg``, ``testing/test_frame_mask/SS_NNNN.npy`` (one label per
frame) and ``testing/test_pixel_mask/SS_NNNN.npy`` (masks ``[T, H, W]``). SS is the scene.
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
from vadcore.data.formats.clip_files import checked_masks, clip_folders, footage_clip, framed_clip, load_npy, videos_in
from vadcore.data.image_files import IMAGE_ENDINGS
from vadcore.utils.errors import VadError


@register_format
class ShanghaiTechConfig(StoredConfig):
    """ShanghaiTech Campus: training videos, test frames, ``.npy`` frame (and pixel) masks."""

    format: Literal["shanghaitech"]
    frames_per_second: PositiveFloat = 24.0  # frame rate of the test frames; image files do not store it

    @property
    def truth(self) -> str:
        return "frame masks (.npy)"


# The direct link given by the authors (StevenLiuWen/ano_pred_cvpr2018, issue 59), with the checksum used by anomalib.
# The server has been reported down since 2024; the page links to the current mirrors.
ARCHIVE = Published(
    "http://101.32.75.151:8181/dataset/shanghaitech.tar.gz",
    "c13a827043b259ccf8493c9d9130486872992153a9d714fe229e523cd4c94116",
    "https://svip-lab.github.io/dataset/campus_dataset.html",
)


def _belongs(path: PurePosixPath) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".avi":
        return path.parts[-3:-1] == ("training", "videos")
    if suffix == ".npy":
        return path.parts[-3:-1] in (("testing", "test_frame_mask"), ("testing", "test_pixel_mask"))
    return suffix in IMAGE_ENDINGS and path.parts[-4:-2] == ("testing", "frames")


LAYOUT = Layout(
    _belongs,
    "training/videos/*.avi, testing/frames/<clip>/*.jpg, testing/test_frame_mask/<clip>.npy",
    (ARCHIVE,),
    IMAGE_ENDINGS,
)


def prepare(config: ShanghaiTechConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Download, copy or unpack the data set into ``raw``."""
    deliver(config, raw, LAYOUT, say)


def clips(config: ShanghaiTechConfig, raw: Path) -> list[Clip]:
    """List the clips. All test clips have labels; those with a ``test_pixel_mask`` file also have masks.

    Raises :class:`VadError` if a folder or the label file of a test clip is missing.
    """
    check_delivered(raw)
    testing = find_folder(raw, "testing/frames", LAYOUT).parent
    found = [
        footage_clip("train", video, video.stem) for video in videos_in(find_folder(raw, "training/videos", LAYOUT))
    ]
    for folder in clip_folders(testing / "frames"):
        labels = testing / "test_frame_mask" / f"{folder.name}.npy"
        masks = testing / "test_pixel_mask" / f"{folder.name}.npy"
        if not labels.is_file():
            raise VadError(f"{labels}: missing; it holds the labels of test clip {folder.name}: bring test_frame_mask")
        found.append(
            framed_clip(
                "test",
                folder,
                config.frames_per_second,
                partial(read_labels, labels),
                partial(_read_masks, masks) if masks.is_file() else None,
            )
        )
    return found


def read_labels(path: Path, length: int) -> np.ndarray:
    """Read labels uint8 ``[length]`` from a ``test_frame_mask`` file. Raises :class:`VadError` if the length differs."""
    labels = load_npy(path)
    if labels.ndim != 1 or len(labels) != length:
        raise VadError(
            f"{path}: labels of shape {list(labels.shape)} for {length} frames; "
            "labels and footage must be of the same recording: correct one of them"
        )
    return (labels != 0).astype(np.uint8)


def _read_masks(path: Path, length: int) -> np.ndarray:
    return checked_masks(load_npy(path), length, path)
