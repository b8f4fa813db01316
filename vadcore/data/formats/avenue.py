"""CUHK Avenue (Lu et al., ICCV 2013): ``training_videos/NN.avi``, ``testing_videos/NN.avi``.

There are two label sets. They differ on 441 of 15 324 frames, so a result must name the one it uses:

``masks``
    ``testing_label_mask/N_label.mat``, published with the footage: one mask per frame. A frame is abnormal if any pixel
    is.
``intervals``
    ``avenue.mat``, published with the future-frame prediction model: abnormal intervals of every test clip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from vadcore.data.delivery import Layout, check_delivered, deliver, find_folder
from vadcore.data.download import Published
from vadcore.data.formats.base import Clip, StoredConfig, register_format
from vadcore.data.formats.clip_files import (
    Intervals,
    checked_masks,
    footage_clip,
    labels_of,
    load_mat,
    one_a_clip,
    pairing,
    read_mat,
    videos_in,
)
from vadcore.data.video import VIDEO_ENDINGS
from vadcore.data.video_index import count_frames
from vadcore.utils.errors import VadError


@register_format
class AvenueConfig(StoredConfig):
    """CUHK Avenue: avi clips. There are two label sets, which differ on 441 of 15 324 frames."""

    format: Literal["avenue"]
    label_set: Literal["masks", "intervals"] = "masks"

    @property
    def truth(self) -> str:
        return self.label_set


_SITE = "http://www.cse.cuhk.edu.hk/leojia/projects/detectabnormal"
# The checksums are those used by anomalib.
ARCHIVES = (
    Published(
        f"{_SITE}/Avenue_Dataset.zip",
        "fc9cb8432a11ca79c18aa180c72524011411b69d3b0ff27c8816e41c0de61531",
        f"{_SITE}/dataset.html",
    ),
    Published(
        f"{_SITE}/ground_truth_demo.zip",
        "60fec1728ec8f73a58aad3aeb5729d70a805a47e0b8eb4bf91ab67ef06386d77",
        f"{_SITE}/dataset.html",
    ),
)
INTERVALS = "avenue.mat"


def _belongs(path: PurePosixPath) -> bool:
    folder = path.parts[-2] if len(path.parts) > 1 else ""
    if path.suffix.lower() == ".avi":
        return folder in ("training_videos", "testing_videos")
    return path.name == INTERVALS or (folder == "testing_label_mask" and path.suffix.lower() == ".mat")


LAYOUT = Layout(
    _belongs,
    "training_videos/*.avi, testing_videos/*.avi, testing_label_mask/*_label.mat (or avenue.mat)",
    ARCHIVES,
    VIDEO_ENDINGS,
)


def prepare(config: AvenueConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Download, copy or unpack footage and labels into ``raw``."""
    if config.source == "download" and config.label_set == "intervals":
        raise VadError(
            f"dataset.*.label_set: intervals: {INTERVALS} is not among the published archives; use label_set: masks, or "
            f"set source to a folder that holds {INTERVALS} beside the footage"
        )
    deliver(config, raw, LAYOUT, say)
    if config.label_set == "intervals":
        source = _intervals_file(raw)
        tests = videos_in(find_folder(raw, "testing_videos", LAYOUT))
        say(pairing(read_mat(source), [video.stem for video in tests], source))


def clips(config: AvenueConfig, raw: Path) -> list[Clip]:
    """List the clips. Every test clip with a mask file has masks, for both label sets.

    Raises :class:`VadError` if a folder, a label file or an entry is missing.
    """
    check_delivered(raw)
    trains = videos_in(find_folder(raw, "training_videos", LAYOUT))
    tests = videos_in(find_folder(raw, "testing_videos", LAYOUT))
    mask_files = [_mask_file(raw, video) for video in tests]
    found = [footage_clip("train", video, video.stem) for video in trains]
    labels: list[Callable[[], np.ndarray]]
    if config.label_set == "intervals":
        source = _intervals_file(raw)
        entries = one_a_clip(read_mat(source), [video.stem for video in tests], source)
        labels = [partial(_from_intervals, entry, source, video) for entry, video in zip(entries, tests, strict=True)]
    else:
        missing = [video.stem for video, file in zip(tests, mask_files, strict=True) if file is None]
        if missing:
            raise VadError(
                f"{raw}: no testing_label_mask/N_label.mat for test clips {', '.join(missing)}; "
                "bring ground_truth_demo.zip's content, or use label_set: intervals"
            )
        labels = [partial(_from_masks, file) for file in mask_files if file is not None]
    for video, label, file in zip(tests, labels, mask_files, strict=True):
        found.append(footage_clip("test", video, video.stem, label, partial(_masks, file) if file else None))
    return found


def _mask_file(raw: Path, video: Path) -> Path | None:
    number = video.stem.lstrip("0")
    for name in (f"{number}_label.mat", f"{video.stem}_label.mat"):
        for path in sorted(raw.rglob(f"testing_label_mask/{name}")):
            return path
    return None


def _intervals_file(raw: Path) -> Path:
    found = sorted(raw.rglob(INTERVALS))
    if not found:
        raise VadError(f"{raw / INTERVALS}: missing; put it beside the footage in source, or use label_set: masks")
    return found[0]


def read_volume(path: Path) -> list[np.ndarray]:
    """Read the masks of a ``N_label.mat`` file: its cell array ``volLabel``, one uint8 ``[H, W]`` mask per frame."""
    variables = load_mat(path)
    if "volLabel" not in variables:
        raise VadError(f"{path}: no variable volLabel; replace it by the published file")
    return list(variables["volLabel"].ravel())


def _masks(path: Path) -> np.ndarray:
    masks = read_volume(path)
    return checked_masks(np.stack(masks), len(masks), path)


def _from_masks(path: Path) -> np.ndarray:
    return np.array([mask.any() for mask in read_volume(path)], np.uint8)


def _from_intervals(entry: Intervals, source: Path, video: Path) -> np.ndarray:
    return labels_of(entry, count_frames(video), source, video.stem)
