"""Zarr stores of clips. Only this module depends on the layout of a store.

A store has one array per clip at ``{split}/{clip}/{kind}`` (kind: ``frames``, ``flow`` or ``masks``). The array attributes
hold the metadata of the clip. A clip of up to 512 frames takes three files in two folders: the group, the array metadata
and one shard. Longer clips and larger pictures have more shards. Shards are named ``c.0.0.0.0`` instead of being in
nested folders: this reduces the number of folders to a third, which speeds up tools that list a store of thousands of
clips (DVC does so several times per stage).

============ ======= ======================= ==================================================================
kind         dtype   shape                   meaning
============ ======= ======================= ==================================================================
``frames``   uint8   ``[T, H, W, C]``        grey (C = 1) or RGB (C = 3) pictures
``flow``     int16   ``[T-1, 2, H, W]``      motion from frame t to t+1, right and down, in 1/64 px
``masks``    uint8   ``[T, H, W]``           1 where a pixel is abnormal
``times``    float64 ``[T]``                 time of every frame in seconds, beside ``frames``, unless it is k / fps
============ ======= ======================= ==================================================================

Clips are written atomically: the attribute ``complete`` is written last. A clip without it is not listed and is written
again. Zarr writes each file under a temporary name and renames it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec, TransposeCodec
from zarr.core.sync import sync

from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of, sweep_partial
from vadcore.utils.times import shown

Kind = Literal["frames", "flow", "masks"]
SPLITS = ("train", "test")
CHUNK_FRAMES = 8  # random 16-frame windows are read faster than with 16, at the same size (benchmarks/codec.py)
SHARD_BYTES = 64 << 20  # limits the memory of a writer, which writes a shard at once
FLOW_UNIT = 64  # stored flow is in 1/64 px
_DIMENSIONS = {
    "frames": ("frame", "y", "x", "channel"),
    "flow": ("frame", "uv", "y", "x"),
    "masks": ("frame", "y", "x"),
}
_DTYPES = {"frames": "uint8", "flow": "int16", "masks": "uint8"}


@dataclass(frozen=True, order=True)
class ClipId:
    """Split and name of a clip in a data set."""

    split: str
    name: str

    def __str__(self) -> str:
        return f"{self.split}/{self.name}"


class ClipStore:
    """Store of the frames, flow or masks of one data set.

    Parameters
    ----------
    url: folder or fsspec URL (``memory://...``, ``s3://...``).
    kind: ``frames``, ``flow`` or ``masks``.
    write: open for writing: create the store and remove the temporary files of interrupted writers. If False, the store
        must exist; otherwise :class:`VadError` is raised.
    sweep: pass False in parallel writers of a store that was opened with ``write=True`` before. It is then neither
        created nor cleaned up.
    """

    def __init__(self, url: str | Path, kind: Kind, write: bool = False, sweep: bool = True):
        self.url, self.kind = str(url), kind
        local = "://" not in self.url
        if write:
            if sweep:
                if local and Path(self.url).exists():
                    sweep_partial(self.url)
                self.root = zarr.open_group(self.url, mode="a")
                for split in SPLITS:  # created here, before parallel writers need them
                    self.root.require_group(split)
            else:
                self.root = zarr.open_group(self.url, mode="r+")
        else:
            try:
                self.root = zarr.open_group(self.url, mode="r")
            except (FileNotFoundError, ValueError) as error:
                stage = {"flow": "optical_flow"}.get(kind, "extract")
                raise VadError(f"{self.url}: no store of {kind} here; run the {stage} stage first") from error

    def clips(self, split: str | None = None) -> list[ClipId]:
        """List the complete clips, train before test, sorted by name."""
        return list(self.arrays(split))

    def arrays(self, split: str | None = None) -> dict[ClipId, zarr.Array]:
        """Return the arrays of all :meth:`clips`. Use it for several queries: every array is a file to open."""
        splits = SPLITS if split is None else (split,)
        opened = {clip: array for part in splits for clip, array in sync(self._opened(part)).items()}
        return {clip: array for clip, array in opened.items() if array.attrs.get("complete")}

    async def _opened(self, split: str) -> dict[ClipId, zarr.Array]:
        """Open all arrays of a split concurrently, which is five times as fast as one after another."""
        folder = self.root.store_path / split
        names = sorted([name async for name in folder.store.list_dir(folder.path)])
        opening = (zarr.AsyncArray.open(folder / name / self.kind) for name in names)
        results = await asyncio.gather(*opening, return_exceptions=True)
        found = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, zarr.AsyncArray):
                found[ClipId(split, name)] = zarr.Array(result)
            elif not isinstance(result, FileNotFoundError):  # not found: not a clip, or still being written
                raise result
        return found

    def has(self, clip: ClipId, **attributes: Any) -> bool:
        """Whether ``clip`` is complete and has the given attributes."""
        try:
            found = self.array(clip).attrs.asdict()
        except KeyError:
            return False
        return bool(found.get("complete")) and all(found.get(key) == value for key, value in attributes.items())

    def array(self, clip: ClipId) -> zarr.Array:
        """Return the array of ``clip``. Raises KeyError if there is none."""
        return self._array_at(f"{clip}/{self.kind}")

    def _array_at(self, path: str) -> zarr.Array:
        found = self.root[path]
        if not isinstance(found, zarr.Array):
            raise KeyError(path)
        return found

    def attributes(self, clip: ClipId) -> dict[str, Any]:
        """Return the metadata of ``clip``: fps, source, digests, abnormal intervals."""
        return self.array(clip).attrs.asdict()

    def length(self, clip: ClipId) -> int:
        return self.array(clip).shape[0]

    def read(self, clip: ClipId, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read frames ``start`` to ``stop`` (exclusive) of ``clip``, as stored."""
        return np.asarray(self.array(clip)[start:stop])

    def labels(self, clip: ClipId) -> np.ndarray | None:
        """Return the frame labels uint8 ``[T]``, 1 = abnormal, or None for an unlabelled clip."""
        attributes = self.attributes(clip)
        if not attributes["labelled"]:
            return None
        labels = np.zeros(self.length(clip), np.uint8)
        for first, stop in attributes["abnormal"]:
            labels[first:stop] = 1
        return labels

    def has_times(self, clip: ClipId) -> bool:
        """Whether the times of the frames are stored, because they are not ``k / fps``."""
        return f"{clip}/times" in self.root

    def times(self, clip: ClipId) -> np.ndarray:
        """Return the time of every frame in seconds from the start of the footage, float64 ``[T]``."""
        if self.has_times(clip):
            return np.asarray(self._array_at(f"{clip}/times")[:])
        array = self.array(clip)
        attributes: Mapping[str, Any] = array.attrs
        return np.arange(array.shape[0]) / attributes["fps"]

    def own_times(self, clips: Iterable[ClipId]) -> dict[str, np.ndarray]:
        """Return the :meth:`times` of those clips whose frame k is not at ``k / fps``, by name."""
        return {clip.name: self.times(clip) for clip in clips if self.has_times(clip)}

    def seconds(self, clip: ClipId) -> float:
        """Return the duration of ``clip`` in seconds, without the pauses of the recording."""
        fps = self.attributes(clip)["fps"]
        if not self.has_times(clip):
            return self.length(clip) / fps
        starts, stops = shown(self.length(clip), fps, self.times(clip))
        return float((stops - starts).sum() / fps)

    def remove(self, clip: ClipId) -> None:
        """Delete ``clip``, complete or not."""
        sync(self.root.store.delete_dir(f"{self.root.path}/{clip}".lstrip("/")))

    def keep_only(self, wanted: set[ClipId]) -> None:
        """Delete all clips that are not in ``wanted``, complete or not."""
        for split in SPLITS:
            for name in list(self.root.require_group(split).group_keys()):
                if ClipId(split, name) not in wanted:
                    self.remove(ClipId(split, name))

    def digest(self) -> str:
        """Return a digest of the content. It changes with the source files, settings, shape or labels of any clip."""
        return digest_of(
            [[str(clip), list(array.shape), array.attrs.asdict()] for clip, array in self.arrays().items()]
        )

    @contextmanager
    def writer(self, clip: ClipId) -> Iterator[ClipWriter]:
        """Context manager to write ``clip`` from scratch. The clip is complete when the block ends without an exception."""
        self.remove(clip)
        writer = ClipWriter(self, clip)
        try:
            yield writer
            writer.finish()
        except BaseException:
            self.remove(clip)
            raise


class ClipWriter:
    """Write pictures in shards. Memory use is limited to one shard."""

    def __init__(self, store: ClipStore, clip: ClipId):
        self.store, self.clip = store, clip
        self.attributes: dict[str, Any] = {}
        self._array: zarr.Array | None = None
        self._shard: np.ndarray = np.empty(0)  # made with the array
        self._filled = self._written = 0

    def append(self, pictures: np.ndarray) -> None:
        """Append pictures ``[n, ...]`` in the store's dtype and layout."""
        if self._array is None:
            self._create(pictures.shape[1:])
        while len(pictures):
            room = min(len(pictures), len(self._shard) - self._filled)
            self._shard[self._filled : self._filled + room] = pictures[:room]
            self._filled += room
            pictures = pictures[room:]
            if self._filled == len(self._shard):
                self._flush()

    def update(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes. They are written together with ``complete``."""
        self.attributes.update(attributes)

    def set_times(self, seconds: np.ndarray) -> None:
        """Store the time of every frame, float64 ``[T]`` seconds. Without it, frame k is shown at ``k / fps``."""
        zarr.create_array(
            store=self.store.root.store,
            name=f"{self.store.root.path}/{self.clip}/times".lstrip("/"),
            data=np.asarray(seconds, np.float64),
            dimension_names=("frame",),
            chunk_key_encoding={"name": "default", "separator": "."},
        )

    def finish(self) -> None:
        if self._array is None:
            raise VadError(f"{self.clip}: no pictures to store; remove the clip or replace its file")
        self._flush()
        self._array.update_attributes({**self.attributes, "complete": True})

    def _create(self, shape: tuple[int, ...]) -> None:
        kind = self.store.kind
        dtype = np.dtype(_DTYPES[kind])
        chunk_bytes = CHUNK_FRAMES * int(np.prod(shape)) * dtype.itemsize
        shard_frames = CHUNK_FRAMES * max(1, min(SHARD_BYTES // chunk_bytes, 64))
        # Time is the last axis: adjacent values in memory are then adjacent in time, and bit-shuffling compresses better.
        order = (*range(1, len(shape) + 1), 0)
        self._array = zarr.create_array(
            store=self.store.root.store,
            name=f"{self.store.root.path}/{self.clip}/{kind}".lstrip("/"),
            shape=(0, *shape),
            dtype=dtype,
            chunks=(CHUNK_FRAMES, *shape),
            shards=(shard_frames, *shape),
            filters=[TransposeCodec(order=order)],
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=dtype.itemsize)],
            dimension_names=_DIMENSIONS[kind],
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        self._shard = np.empty((shard_frames, *shape), dtype)

    def _flush(self) -> None:
        if self._array is not None and self._filled:
            stop = self._written + self._filled
            self._array.resize((stop, *self._array.shape[1:]))
            self._array[self._written : stop] = self._shard[: self._filled]
            self._written, self._filled = stop, 0


def intervals(labels: np.ndarray) -> list[list[int]]:
    """Return the runs of ones in ``labels`` ``[T]`` as half-open ``[start, stop]`` pairs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(labels) != 0, [0]]).astype(np.int8)))
    return [[int(start), int(stop)] for start, stop in edges.reshape(-1, 2)]


def flow_to_fixed(flow: np.ndarray) -> np.ndarray:
    """Convert flow in pixels to stored int16 in 1/64 px. The error is at most 1/128 px; values are clipped to +-511 px."""
    return clip_to_fixed(flow * FLOW_UNIT)


def clip_to_fixed(fixed: np.ndarray) -> np.ndarray:
    """Round float flow in 1/64 px to int16, clipped to the range of int16. Overwrites ``fixed``."""
    np.rint(fixed, out=fixed)
    return np.clip(fixed, -32768, 32767, out=fixed).astype(np.int16)


def flow_from_fixed(stored: np.ndarray) -> np.ndarray:
    """Convert stored int16 flow to pixels, float32."""
    return stored.astype(np.float32) / FLOW_UNIT
