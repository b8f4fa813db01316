"""Compare ways to read a video: a bare OpenCV loop, a bare PyAV loop, and VideoReader, in CPU time on one core.

    python -m benchmarks.reading [--out benchmarks/results/reading.json]

Each way decodes a generated H.264 video to RGB and resizes the pictures to 128x192. The rounds alternate, so that other load
on the machine affects all ways equally. VideoReader also reads the times of all frames beforehand, and reports missing
frames, which the bare loops do not.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks.result import write_result
from vadcore.data.video import VideoReader
from vadcore.utils.images import resize_picture

SIZE = (128, 192)
VIDEOS = {"160x120": 2000, "640x480": 400, "1920x1080": 100}  # picture size: frames
ROUNDS = 7


def write_video(path: Path, width: int, height: int, frames: int) -> Path:
    """Write a video of a smooth texture that moves, with noise as of a camera."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(128, 400, (height, width + 200, 3)).clip(0, 255), (0, 0), 5)
    noise = rng.normal(0, 2, (height, width, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            first = number % 200
            shown = texture[:, first : first + width] + np.roll(noise, 7 * number, axis=0)
            frame = av.VideoFrame.from_ndarray(shown.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_opencv(path: Path) -> int:
    count, capture = 0, cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while (read := capture.read())[0]:
        resize_picture(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), SIZE)
        count += 1
    return count


def with_pyav(path: Path) -> int:
    return sum(resize_picture(picture, SIZE) is not None for picture in pyav_pictures(path))


def pyav_pictures(path: Path) -> Iterator[np.ndarray]:
    """Decode a video with PyAV on one thread, without any checks: uint8 ``[H, W, 3]`` RGB."""
    reformatter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for frame in container.decode(stream):
            yield reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()


def with_reader(path: Path) -> int:
    os.utime(path)  # the times of an unchanged file are cached
    return sum(resize_picture(picture, SIZE) is not None for picture in VideoReader(path))


WAYS: dict[str, Callable[[Path], int]] = {"opencv": with_opencv, "pyav": with_pyav, "video_reader": with_reader}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reading.json"))
    arguments = parser.parse_args()
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    cv2.setNumThreads(1)
    rows = []
    for size, frames in VIDEOS.items():
        with tempfile.TemporaryDirectory() as folder:
            width, height = map(int, size.split("x"))
            path = write_video(Path(folder) / "clip.mp4", width, height, frames)
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, read in WAYS.items():
                    started = time.process_time()
                    assert read(path) == frames
                    rates[way].append(frames / (time.process_time() - started))
            ratios = {
                f"of_{way}": [a / b for a, b in zip(rates["video_reader"], rates[way], strict=True)] for way in WAYS
            }
            row = {"size": size, "frames": frames, **{way: round(median(found)) for way, found in rates.items()}}
            rows.append(
                row | {key: round(median(found), 3) for key, found in ratios.items() if key != "of_video_reader"}
            )
            print(rows[-1], flush=True)
    write_result(arguments.out, rows, None)


if __name__ == "__main__":
    main()
