"""Load windows of stored footage as tensors on the model's device."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import psutil
import torch
import zarr
from torch import Tensor

from vadcore.data.store import FLOW_UNIT, ClipId, ClipStore, clip_to_fixed
from vadcore.data.windows import BACKGROUND_SAMPLES, Batch, Segment, background_frames, median_picture
from vadcore.utils.errors import VadError
from vadcore.utils.images import resize_flow, resize_picture, to_color

if TYPE_CHECKING:
    from vadcore.models.base import Model

BACKGROUNDS = 256  # number of cached backgrounds
MOTION = 2.0  # grey levels, see ClipLoader.moving
LOOKED_AT = 5_000  # frames at most that are read to find motion
PREFETCH = 4  # number of batches that threads prepare ahead, such as when streaming
Entry = TypeVar("Entry")
Made = TypeVar("Made")


def check_one_size(frames: ClipStore, arrays: Mapping[ClipId, zarr.Array]) -> None:
    """Raise :class:`VadError` if clips of a store have different picture sizes. arrays: the clips."""
    sizes = {array.shape[1:3]: clip for clip, array in arrays.items()}
    if len(sizes) > 1:
        said = ", ".join(f"{width}x{height} in {clip}" for (height, width), clip in sorted(sizes.items()))
        raise VadError(f"{frames.url}: clips of several sizes ({said}); set dataset.*.size or model.*.image_size")


class ClipLoader:
    """Load windows from segments of a store, at one size and colour.

    cache: ``device`` and ``ram`` keep all footage in GPU memory or RAM, as uint8 frames (and int16 flow). ``stream`` reads
    each window from Zarr when it is needed. ``auto`` uses the first of the three that fits into half of the free memory.
    background: as in :class:`~vadcore.data.windows.Windows`.
    """

    def __init__(
        self,
        frames: ClipStore,
        segments: list[Segment],
        size: tuple[int, int] | None = None,
        channels: int = 1,
        flow: ClipStore | None = None,
        device: torch.device | str = "cpu",
        cache: str = "auto",
        background: int = 0,
    ):
        self.frames, self.flow, self.segments = frames, flow, segments
        self.channels, self.device, self.reach = channels, torch.device(device), background
        self._background = lru_cache(maxsize=BACKGROUNDS)(self._median)
        self._arrays: dict[tuple[str, ClipId], zarr.Array] = {}
        arrays = {segment.clip: self._array(frames, segment.clip) for segment in segments}
        if size is None:
            check_one_size(frames, arrays)
        stored = next(iter(arrays.values())).shape[1:] if arrays else (1, 1, 1)
        if channels > stored[2]:
            raise VadError(f"{frames.url}: holds grey frames, the model wants rgb; set dataset.*.color to rgb")
        height, width = size or stored[:2]
        self.size = (height, width)
        self.lengths = [len(segment) for segment in segments]
        self.cache = self._choose(cache)
        if self.cache != "stream":
            self._load()

    @classmethod
    def for_model(cls, model: Model, frames: ClipStore, segments: list[Segment], flow: ClipStore | None, **where):
        """Create a loader with the size, channels, flow and background that ``model`` needs."""
        config, flow = model.config, flow if model.config.needs_flow else None
        where["background"] = model.windows.background
        return cls(frames, segments, config.image_size, config.channels, flow, **where)

    @property
    def nbytes(self) -> int:
        """Size of all footage in memory, in bytes."""
        pixels = sum(self.lengths) * self.size[0] * self.size[1]
        return pixels * self.channels + (pixels * 4 if self.flow else 0)

    def _choose(self, cache: str) -> str:
        if cache != "auto":
            return cache
        if self.device.type == "cuda" and self.nbytes < torch.cuda.mem_get_info(self.device)[0] / 2:
            return "device"
        return "ram" if self.nbytes < psutil.virtual_memory().available / 2 else "stream"

    def _array(self, store: ClipStore, clip: ClipId) -> zarr.Array:
        """Return the array of a clip. It is opened only once."""
        if (store.kind, clip) not in self._arrays:
            self._arrays[store.kind, clip] = store.array(clip)
        return self._arrays[store.kind, clip]

    def _read_frames(self, segment: Segment, start: int, stop: int, stride: int = 1) -> np.ndarray:
        """Read frames uint8 ``[n, C, H, W]`` at the model's size and colour. Frame numbers are relative to the segment."""
        array = self._array(self.frames, segment.clip)
        stored = np.asarray(array[segment.start + start : segment.start + stop])[::stride]
        pictures = [resize_picture(to_color(picture, self.channels), self.size) for picture in stored]
        return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))

    def _read_flow(self, flow: ClipStore, segment: Segment, start: int, stop: int) -> np.ndarray:
        """Read flow int16 ``[n, 2, H, W]`` in 1/64 px at the model's size."""
        stored = np.asarray(self._array(flow, segment.clip)[segment.start + start : segment.start + stop])
        if stored.shape[2:] == self.size:
            return stored
        return clip_to_fixed(np.stack([resize_flow(field, self.size) for field in stored]))

    def _load(self) -> None:
        h, w = self.size
        where = self.device if self.cache == "device" else torch.device("cpu")
        self._pictures = torch.empty((sum(self.lengths), self.channels, h, w), dtype=torch.uint8, device=where)
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])[:-1].astype(np.int64)
        if self.flow:
            # One unused field at the end of each segment, so that frames and flow have the same index.
            self._fields = torch.zeros((sum(self.lengths), 2, h, w), dtype=torch.int16, device=where)
        for segment, offset in zip(self.segments, self._offsets, strict=True):
            n = len(segment)
            self._pictures[offset : offset + n] = torch.from_numpy(self._read_frames(segment, 0, n))
            if self.flow and n > 1:
                self._fields[offset : offset + n - 1] = torch.from_numpy(self._read_flow(self.flow, segment, 0, n - 1))

    def raw(self, picks: np.ndarray, length: int) -> tuple[Tensor, Tensor | None]:
        """Return the windows ``picks`` as uint8 ``[B, T, C, H, W]`` and their flow int16 ``[B, T-1, 2, H, W]`` or None.

        The tensors are on the device of the cache. ``length``: T, frames per window.
        """
        if self.cache == "stream":
            windows, fields = [], []
            for clip, start, stride in picks[:, :3]:
                segment = self.segments[clip]
                windows.append(self._read_frames(segment, start, start + (length - 1) * stride + 1, stride))
                if self.flow:
                    fields.append(self._read_flow(self.flow, segment, start, start + length - 1))
            flow = torch.from_numpy(np.stack(fields)) if self.flow else None
            return torch.from_numpy(np.stack(windows)), flow
        starts = self._offsets[picks[:, 0]] + picks[:, 1]  # [B]
        if len(picks) == 1:  # no copy
            first, stride = int(starts[0]), int(picks[0, 2])
            pictures = self._pictures[None, first : first + (length - 1) * stride + 1 : stride]
            return pictures, self._fields[None, first : first + length - 1] if self.flow else None
        index = torch.from_numpy(starts[:, None] + picks[:, 2:3] * np.arange(length))  # [B, T]
        index = index.to(self._pictures.device)
        pictures = self._pictures[index]
        return pictures, self._fields[index[:, :-1]] if self.flow else None

    def moving(self) -> list[np.ndarray]:
        """Frames in which something moves, for each segment: bool ``[T]``.

        Something moves if a block of 8 x 8 pixels changes by :data:`MOTION` grey levels more from one frame to the next than
        the median block, which changes by noise and light. At most :data:`LOOKED_AT` frames are read, evenly spread; the
        others are like the one before them.
        """
        every = -(-sum(self.lengths) // LOOKED_AT)
        found = []
        for number, length in enumerate(self.lengths):
            starts = range(0, length - 1, every)
            moves = [self._moves(number, start) for start in starts]
            found.append(np.repeat(np.array(moves, bool), every)[:length] if moves else np.zeros(length, bool))
            found[-1] = np.pad(found[-1], (0, length - len(found[-1])), mode="edge")
        return found

    def _moves(self, number: int, start: int) -> bool:
        pair = self.raw(np.array([[number, start, 1]]), 2)[0][0].cpu().numpy()  # [2, C, H, W]
        change = cv2.absdiff(*pair.transpose(0, 2, 3, 1)).reshape(*self.size, -1).max(-1)
        blocks = cv2.resize(
            change.astype(np.float32), [max(1, side // 8) for side in self.size[::-1]], interpolation=cv2.INTER_AREA
        )
        return bool(blocks.max() - np.median(blocks) > MOTION)

    def background(self, number: int, start: int) -> np.ndarray:
        """Return the background uint8 ``[C, H, W]`` of a window of segment ``number`` that begins at frame ``start``."""
        return self._background(number, *background_frames(start, self.lengths[number], self.reach)[[0, -1]].tolist())

    def _median(self, number: int, first: int, last: int) -> np.ndarray:
        every = max(1, self.reach // BACKGROUND_SAMPLES)
        picks = np.array([[number, frame, 1] for frame in range(first, last + 1, every)])
        return median_picture(self.raw(picks, 1)[0][:, 0].cpu().numpy())

    def batch(self, picks: np.ndarray, length: int) -> Batch:
        """Return the windows ``picks`` ``[B, 3 or 4]`` (segment, start, stride, unused) of ``length`` frames each."""
        pictures, fields = self.raw(picks, length)
        return self._on_device(picks, length, pictures, fields)

    def _on_device(self, picks: np.ndarray, length: int, pictures: Tensor, fields: Tensor | None) -> Batch:
        frames = pictures.to(self.device, non_blocking=True).float().div_(255)
        flow = None if fields is None else fields.to(self.device, non_blocking=True).float().div_(FLOW_UNIT)
        starts = np.array([self.segments[clip].start for clip in picks[:, 0]]) + picks[:, 1]
        numbers = starts[:, None] + picks[:, 2:3] * np.arange(length)
        background = None
        if self.reach:
            still = np.stack([self.background(number, start) for number, start in picks[:, :2].tolist()])
            background = torch.from_numpy(still).to(self.device).float().div_(255)
        return Batch(frames, torch.from_numpy(picks[:, 0].copy()), torch.from_numpy(numbers), flow, background)

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[Batch]:
        """Yield a batch for every entry of ``plan``. Streamed footage is prefetched."""
        if self.cache != "stream":
            for picks in plan:
                yield self.batch(picks, length)
            return
        for picks, read in made_ahead(plan, lambda picks: self.raw(picks, length)):
            yield self._on_device(picks, length, *read)


def made_ahead(plan: Iterable[Entry], make: Callable[[Entry], Made]) -> Iterator[tuple[Entry, Made]]:
    """Yield each entry of ``plan`` with the result of ``make``, in order. Threads prepare :data:`PREFETCH` entries ahead."""
    with ThreadPoolExecutor(max_workers=min(PREFETCH, os.cpu_count() or 1)) as pool:
        ahead: deque = deque()
        for picks in plan:
            ahead.append((picks, pool.submit(make, picks)))
            if len(ahead) > PREFETCH:
                ready, made = ahead.popleft()
                yield ready, made.result()
        for ready, made in ahead:
            yield ready, made.result()
