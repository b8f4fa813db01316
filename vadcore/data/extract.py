"""Extract original footage into the frames store: decode, resample, convert, resize and compress each clip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vadcore.data.formats.base import Clip, DatasetConfig
from vadcore.data.store import ClipId, ClipStore, intervals
from vadcore.utils.code import code_digest
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of, sha256_files
from vadcore.utils.images import resize_picture, to_color

BLOCK = 64  # pictures passed from the decoder to the compressor at a time


@dataclass(frozen=True)
class Extracted:
    """Result of the extraction of one clip. ``kept``: the store already had it, from the same files and settings."""

    clip: ClipId
    frames: int
    masks: bool
    kept: bool


def extract_clip(clip: Clip, settings: DatasetConfig, frames_url: str | Path, masks_url: str | Path) -> Extracted:
    """Write ``clip`` into the frames and masks stores, unless they have it already.

    Raises :class:`VadError` if the footage cannot be read completely, or labels or masks do not match its length.
    """
    frames, masks = _open(frames_url, "frames"), _open(masks_url, "masks")
    name = ClipId(clip.split, clip.name)
    labels = clip.labels() if clip.labels else None  # before decoding, to find errors early
    identity = {
        "source_sha256": sha256_files(clip.files or (clip.source,)),
        "extraction": digest_of(
            [code_digest(["vadcore.data.extract"]), settings.size, settings.color, settings.fps, clip.fps, clip.group]
        ),
        "truth": digest_of(None if labels is None else intervals(labels)) + ("+masks" if clip.masks else ""),
    }
    has_masks = masks.has(name, **identity) or not clip.masks
    if frames.has(name, **identity) and has_masks:
        return Extracted(name, frames.length(name), clip.masks is not None, kept=True)

    numbers: list[int] = []
    with frames.writer(name) as writer, ThreadPoolExecutor(max_workers=1) as compressor:
        pending = None
        for block in _blocks(_pictures(clip, settings, numbers)):
            if pending:
                pending.result()
            pending = compressor.submit(writer.append, block)  # runs while the next block is decoded
        if pending:
            pending.result()
        decoded = numbers.pop() if numbers else 0  # the last entry is the number of decoded frames
        if labels is not None and len(labels) != decoded:
            raise VadError(
                f"{clip.source}: {len(labels)} labels for {decoded} frames (clip {name}); "
                "labels and footage must be of the same recording: correct one of them"
            )
        kept_labels = np.zeros(len(numbers), np.uint8) if labels is None else labels[numbers]
        fps = clip.fps if settings.fps is None else min(clip.fps, settings.fps)
        writer.update(
            {
                "fps": fps,
                "source": clip.source.name,
                "size": settings.size,
                "color": settings.color,
                "group": clip.group,
                # Training footage is normal by definition; test footage may have no labels.
                "labelled": labels is not None or clip.split == "train",
                "abnormal": intervals(kept_labels),
                **identity,
            }
        )
    if clip.masks:
        _write_masks(clip, name, masks, frames.array(name).shape[1:3], numbers, decoded, identity)
    return Extracted(name, len(numbers), clip.masks is not None, kept=False)


def _open(url: str | Path, kind: str) -> ClipStore:
    return ClipStore(url, kind, write=True, sweep=False)


def _pictures(clip: Clip, settings: DatasetConfig, numbers: list[int]) -> Iterator[np.ndarray]:
    """Yield the pictures to store, uint8 ``[H, W, C]``.

    Appends the number of each yielded frame to ``numbers``, and finally the total number of decoded frames.
    """
    channels = 1 if settings.color == "grey" else 3
    every = 1.0 if settings.fps is None else max(1.0, clip.fps / settings.fps)
    count = 0
    for number, picture in enumerate(clip.frames()):
        count += 1
        if number != math.floor(len(numbers) * every + 0.5):
            continue
        numbers.append(number)
        if picture.ndim == 2:
            picture = picture[..., None]
        if picture.shape[2] < channels:
            picture = np.repeat(picture, channels, axis=2)  # grey footage, rgb requested
        picture = to_color(picture, channels)
        yield resize_picture(picture, tuple(settings.size)) if settings.size else picture
    numbers.append(count)


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


def _write_masks(clip, name, store, size, numbers, decoded, identity) -> None:
    """Store the masks of the clip at the frame size. A pixel is abnormal if at least half of its area is."""
    masks = clip.masks()
    if len(masks) != decoded:
        raise VadError(
            f"{clip.source}: {len(masks)} masks for {decoded} frames (clip {name}); "
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
