"""Extract original footage into the frames store: decode, resample, convert, resize and compress each clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vadcore.data.formats.base import Clip, DatasetConfig
from vadcore.data.sampling import Subsampling
from vadcore.data.store import ClipId, ClipStore, Kind, intervals
from vadcore.data.video import MAX_MISSING, VideoReader
from vadcore.data.video_index import SAME_RATE
from vadcore.utils.code import code_digest
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of, sha256_files
from vadcore.utils.images import resize_picture, to_color

BLOCK = 64  # pictures passed from the decoder to the compressor at a time


@dataclass(frozen=True)
class Extracted:
    """Result of the extraction of one clip.

    kept: the store already had it, from the same files and settings. remarks: what is unusual about the footage.
    """

    clip: ClipId
    frames: int
    masks: bool
    kept: bool
    remarks: tuple[str, ...] = ()


def extract_clip(
    clip: Clip,
    settings: DatasetConfig,
    frames_url: str | Path,
    masks_url: str | Path,
    max_missing: float = MAX_MISSING,
) -> Extracted:
    """Write ``clip`` into the frames and masks stores, unless they have it already.

    max_missing: share of the frames of a video that may be missing.

    Raises :class:`VadError` if the footage cannot be read completely, or labels or masks do not match its length.
    """
    frames, masks = _open(frames_url, "frames"), _open(masks_url, "masks")
    name = ClipId(clip.split, clip.name)
    labels = clip.labels() if clip.labels else None  # before decoding, to find errors early
    identity = {
        "source_sha256": sha256_files(clip.files or (clip.source,)),
        "extraction": digest_of(
            [
                code_digest(["vadcore.data.extract"]),
                *(settings.size, settings.color, settings.fps, getattr(settings, "pixel_range", None)),
                *(clip.fps, clip.group, max_missing),
            ]
        ),
        "truth": digest_of(None if labels is None else intervals(labels)) + ("+masks" if clip.masks else ""),
    }
    has_masks = masks.has(name, **identity) or not clip.masks
    if frames.has(name, **identity) and has_masks:
        remarks = tuple(frames.attributes(name)["remarks"])
        return Extracted(name, frames.length(name), clip.masks is not None, kept=True, remarks=remarks)

    kept = _Kept(clip, settings, max_missing)
    with frames.writer(name) as writer, ThreadPoolExecutor(max_workers=1) as compressor:
        pending = None
        for block in _blocks(iter(kept)):
            if pending:
                pending.result()
            pending = compressor.submit(writer.append, block)  # runs while the next block is decoded
        if pending:
            pending.result()
        numbers, length = kept.numbers, kept.length
        if labels is not None and len(labels) != length:
            raise VadError(
                f"{clip.source}: {len(labels)} labels for {length} frames (clip {name}); "
                "labels and footage must be of the same recording: correct one of them"
            )
        kept_labels = np.zeros(len(numbers), np.uint8) if labels is None else labels[numbers]
        remarks = (*kept.remarks, *([] if labels is None else _lost(intervals(labels), numbers, clip.source.name)))
        if not kept.sampling.is_constant(kept.numbers, kept.seconds):
            writer.set_times(np.array(kept.seconds))
        writer.update(
            {
                "fps": kept.sampling.fps,
                "source": clip.source.name,
                "size": settings.size,
                "color": settings.color,
                "group": clip.group,
                "pixels": getattr(kept.source, "pixels", None),
                # Training footage is normal by definition; test footage may have no labels.
                "labelled": labels is not None or clip.split == "train",
                "abnormal": intervals(kept_labels),
                "remarks": list(remarks),
                **identity,
            }
        )
    if clip.masks:
        _write_masks(clip, name, masks, frames.array(name).shape[1:3], numbers, length, identity)
    return Extracted(name, len(numbers), clip.masks is not None, kept=False, remarks=remarks)


def _lost(marked: list[list[int]], numbers: list[int], source: str) -> list[str]:
    """Return a sentence about the labelled intervals without a frame among ``numbers``, or nothing."""
    lost = [(start, stop) for start, stop in marked if np.diff(np.searchsorted(numbers, (start, stop))) == 0]
    if not lost:
        return []
    return [
        f"{source}: {len(lost)} of {len(marked)} labelled intervals have no frame in the store, the first is frames "
        f"{lost[0][0]} to {lost[0][1] - 1}: dataset.*.fps drops them, or they are missing"
    ]


def compared(frames: ClipStore, clips: Iterable[Clip] = ()) -> list[str]:
    """Return sentences about clips that differ in frame rate, picture size or type of pixels, or have equal content.

    clips: the clips of the data set, whose content is compared. Those that are not in the store are ignored.
    """
    rates: dict[float, list[ClipId]] = {}
    sizes: dict[tuple[int, ...], list[ClipId]] = {}
    pixels: dict[str, list[ClipId]] = {}
    arrays = frames.arrays()
    for name, array in arrays.items():
        attributes: Mapping[str, Any] = array.attrs
        rates.setdefault(attributes["fps"], []).append(name)
        sizes.setdefault(array.shape[1:3], []).append(name)
        if attributes.get("pixels"):
            pixels.setdefault(attributes["pixels"], []).append(name)
    remarks = []
    if rates and max(rates) > min(rates) * (1 + SAME_RATE):
        said = _counted({f"{rate:g} frames a second": rates[rate] for rate in sorted(rates)})
        remarks.append(
            f"clips have different frame rates: {said}; in slower clips everything looks faster, so expect false alarms "
            f"there: set dataset.*.fps: {min(rates):g} to bring all clips to one rate"
        )
    if len(sizes) > 1:
        said = _counted({f"{width}x{height}": sizes[height, width] for height, width in sorted(sizes)})
        height, width = max(sizes, key=lambda size: len(sizes[size]))
        remarks.append(
            f"clips have different picture sizes: {said}; systems without an image_size need one size: set dataset.*.size: "
            f"[{height}, {width}]"
        )
    if len(pixels) > 1:
        remarks.append(
            f"clips have different types of pixels: {_counted(pixels)}; uint8 is taken as it is, others are scaled by "
            "dataset.*.pixel_range (without it uint16 by 0 and 65535): save all clips with one type"
        )
    contents: dict[str, dict[Path, ClipId]] = {}
    sources = {ClipId(clip.split, clip.name): clip.source for clip in clips}
    for name in filter(sources.get, arrays):
        contents.setdefault(str(arrays[name].attrs["source_sha256"]), {}).setdefault(sources[name], name)
    for same in contents.values():
        if len(same) > 1:
            names = list(same.values())
            mixed = len({name.split for name in names}) > 1
            why = "test footage must not be in the training footage" if mixed else "their content counts several times"
            remarks.append(f"clips with equal content: {_listed(names)}; {why}: remove the copies")
    return remarks


def _counted(clips: Mapping[str, list[ClipId]]) -> str:
    """Return how many clips have each property, and the names except those of the most frequent property."""
    usual = max(clips, key=lambda value: len(clips[value]))
    others = [f"{value} in {len(clips[value])} ({_listed(clips[value])})" for value in clips if value != usual]
    return ", ".join([f"{usual} in {len(clips[usual])} clips", *others])


def _listed(clips: list[ClipId]) -> str:
    return ", ".join(map(str, clips[:3])) + (", ..." if len(clips) > 3 else "")


def _open(url: str | Path, kind: Kind) -> ClipStore:
    return ClipStore(url, kind, write=True, sweep=False)


class _Kept:
    """Iterable over the pictures to store, uint8 ``[H, W, C]``.

    Attributes
    ----------
    sampling: which frames are kept.
    numbers: number of each kept frame in the footage.
    seconds: time of each kept frame in seconds.
    length: number of frames in the footage, decodable or not. Known at the end.
    remarks: what is unusual about the footage. Complete at the end.
    """

    def __init__(self, clip: Clip, settings: DatasetConfig, max_missing: float):
        self.clip, self.settings, self.length = clip, settings, 0
        self.numbers: list[int] = []
        self.seconds: list[float] = []
        self.source = clip.frames()
        self.video = self.source if isinstance(self.source, VideoReader) else None
        if self.video is not None:
            self.video.max_missing = max_missing
        fps = clip.fps if self.video is None else self.video.fps
        if fps is None:
            raise VadError(
                f"{clip.source}: pictures without a frame rate; name it in the configuration of the data set"
            )
        self.fps = fps
        self.sampling = Subsampling(fps, settings.fps, None if self.video is None else self.video.times)

    @property
    def remarks(self) -> list[str]:
        varies = self.sampling.remark
        return [*getattr(self.source, "remarks", ()), *([f"{self.clip.source.name}: {varies}"] if varies else [])]

    def __iter__(self) -> Iterator[np.ndarray]:
        channels = 1 if self.settings.color == "grey" else 3
        number = -1
        for count, picture in enumerate(self.source):
            number = count if self.video is None else self.video.numbers[-1]
            second = number / self.fps if self.video is None else self.video.second(number)
            if not self.sampling.takes(second):
                continue
            self.numbers.append(number)
            self.seconds.append(second)
            if picture.ndim == 2:
                picture = picture[..., None]
            if picture.shape[2] < channels:
                picture = np.repeat(picture, channels, axis=2)  # grey footage, rgb requested
            picture = to_color(picture, channels)
            yield resize_picture(picture, self.settings.size) if self.settings.size else picture
        self.length = max(number + 1, 0 if self.video is None else self.video.length)


def _blocks(pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield stacks of at most ``BLOCK`` pictures, ``[n, H, W, C]``."""
    block: list[np.ndarray] = []
    for picture in pictures:
        block.append(picture)
        if len(block) == BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)


def _write_masks(clip, name, store, size, numbers, length, identity) -> None:
    """Store the masks of the clip at the frame size. A pixel is abnormal if at least half of its area is."""
    masks = clip.masks()
    if len(masks) != length:
        raise VadError(
            f"{clip.source}: {len(masks)} masks for {length} frames (clip {name}); "
            "masks and footage must be of the same recording: correct one of them"
        )
    with store.writer(name) as writer:
        for first in range(0, len(numbers), BLOCK):
            block = (np.asarray(masks[numbers[first : first + BLOCK]]) != 0).astype(np.uint8)  # [n, H, W]
            if block.shape[1:] != size:
                resized = [resize_picture((mask * 255)[..., None], size)[..., 0] for mask in block]
                block = (np.stack(resized) >= 128).astype(np.uint8)
            writer.append(block)
        writer.update(identity)
