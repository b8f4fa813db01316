"""Compare codecs and chunk lengths for the frame store: compression ratio, write speed and window read speed.

    python -m benchmarks.codec --frames FOLDER [--out benchmarks/results/codec.json]

FOLDER contains one folder of grey pictures per clip (Ped2: ``$VAD_DATA_DIR/ped2/training/frames``). Every candidate
stores the same clips, one shard file per clip, and then reads the same random 16-frame windows, in one process on one
core. Output: stored size over raw size, write speed, and window speed in MB of raw window bytes per second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import zarr
from zarr.codecs import BloscCodec, TransposeCodec, ZstdCodec
from zarr.codecs.numcodecs import Delta

from benchmarks.result import write_result

TIME_LAST = TransposeCodec(order=(1, 2, 3, 0))  # [t,h,w,c] -> [h,w,c,t]: consecutive frames are adjacent in memory
DELTA = Delta(dtype="|u1")


def blosc(cname: str, level: int, shuffle: str) -> BloscCodec:
    return BloscCodec(cname=cname, clevel=level, shuffle=shuffle, typesize=1)


# name -> (filters, compressors)
CODECS = {
    "none": ([], []),
    "lz4 bitshuffle": ([], [blosc("lz4", 5, "bitshuffle")]),
    "zstd-1 bitshuffle": ([], [blosc("zstd", 1, "bitshuffle")]),
    "zstd-3": ([], [ZstdCodec(level=3)]),
    "time last, lz4 bitshuffle": ([TIME_LAST], [blosc("lz4", 5, "bitshuffle")]),
    "time last, zstd-1 bitshuffle": ([TIME_LAST], [blosc("zstd", 1, "bitshuffle")]),
    "time last, zstd-3 bitshuffle": ([TIME_LAST], [blosc("zstd", 3, "bitshuffle")]),
    "time last, delta, zstd-1": ([TIME_LAST, DELTA], [blosc("zstd", 1, "noshuffle")]),
    "time last, delta, zstd-3": ([TIME_LAST, DELTA], [blosc("zstd", 3, "noshuffle")]),
    "time last, delta, zstd-1 bitshuffle": ([TIME_LAST, DELTA], [blosc("zstd", 1, "bitshuffle")]),
}


def measure(clips: list[np.ndarray], chunk: int, filters: list, compressors: list, windows: int) -> dict:
    """Return compression ratio, write MB/s and window MB/s of one candidate."""
    raw = sum(clip.nbytes for clip in clips)
    with tempfile.TemporaryDirectory() as folder:
        arrays = []
        start = time.perf_counter()
        for number, clip in enumerate(clips):
            t, h, w, c = clip.shape
            array = zarr.create_array(
                store=f"{folder}/{number}",
                shape=clip.shape,
                dtype="uint8",
                chunks=(chunk, h, w, c),
                shards=(-(-t // chunk) * chunk, h, w, c),
                filters=filters,
                compressors=compressors or None,
            )
            array[:] = clip
            arrays.append(array)
        write_seconds = time.perf_counter() - start
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        for array, clip in zip(arrays, clips, strict=True):
            if not np.array_equal(array[:], clip):
                raise AssertionError("the codec does not give back what was stored")
        rng = np.random.default_rng(0)
        picks = [
            (n := int(rng.integers(len(clips))), int(rng.integers(len(clips[n]) - 16 + 1))) for _ in range(windows)
        ]
        start = time.perf_counter()
        read = sum(arrays[number][first : first + 16].nbytes for number, first in picks)
        read_seconds = time.perf_counter() - start
    return {
        "ratio": round(stored / raw, 3),
        "write_mb_s": round(raw / write_seconds / 1e6, 1),
        "window_mb_s": round(read / read_seconds / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, required=True, help="a folder of clip folders of pictures")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--windows", type=int, default=150)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    folders = sorted(folder for folder in arguments.frames.iterdir() if folder.is_dir())[: arguments.clips]
    clips = [
        np.stack([cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE) for picture in sorted(folder.iterdir())])[..., None]
        for folder in folders
    ]
    rows = []
    for name, (filters, compressors) in CODECS.items():
        for chunk in (8, 16):
            row = {"codec": name, "chunk": chunk, **measure(clips, chunk, filters, compressors, arguments.windows)}
            rows.append(row)
            print(
                f"{name:38s} chunk {chunk:2d}  ratio {row['ratio']:.3f}  write {row['write_mb_s']:7.1f} MB/s"
                f"  windows {row['window_mb_s']:7.1f} MB/s",
                flush=True,
            )
    if arguments.out:
        write_result(arguments.out, rows, profile=None)


if __name__ == "__main__":
    main()
