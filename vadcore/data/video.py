"""Decode video files to uint8 pictures with their times, and report the frames that cannot be decoded.

A video is read in two passes. The first reads the packets of the container without decoding them: :class:`VideoIndex` has
the time of every frame in the file. The second decodes: :class:`VideoReader` compares the frames with the index, so that
missing frames are known in every container.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vadcore.data.interlacing import FieldDetector, deinterlaced
from vadcore.data.video_index import (
    END_UNKNOWN,
    HIGHEST_RATE,
    MOST_ERRORS,
    SAME_RATE,
    opened_video,
    packets,
    quoted,
    video_index,
)
from vadcore.utils.errors import VadError

if TYPE_CHECKING:  # PyAV is imported where a video is read: stored frames need no decoder
    import av

# fmt: off
VIDEO_ENDINGS = frozenset([
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dav", ".dv", ".f4v", ".flv", ".h264", ".h265",
    ".hevc", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
])
# fmt: on
MAX_MISSING = 0.1  # share of the frames that may be missing before a video is refused
_RAW = {"rawvideo", "v210", "v410", "r210", "yuv4", "ayuv", "wrapped_avframe"}  # codecs whose packets may be zeros
_REORDERED = 4  # frames by which the order of showing and of decoding differ


class VideoReader:
    """Iterable over the pictures of a video in order, uint8 ``[H, W, 3]`` RGB.

    Frames that cannot be decoded are left out and reported in ``remarks``. Interlaced frames are deinterlaced. The rotation
    in the header is applied.

    Parameters
    ----------
    path: the video file.
    fps: frame rate, if the times in the file are wrong: frame k is shown at ``k / fps``.
    max_missing: share of the frames that may be missing.

    Attributes
    ----------
    fps: frame rate, frames per second.
    length: number of frames in the file, decodable or not.
    times: time of every frame in seconds from the first one, float64 ``[length]``.
    numbers: frame number of each picture so far, from 0.
    remarks: sentences about missing frames and unusual times. Complete after the last picture.

    Raises :class:`VadError` if the file is missing, empty or not a video, has no frame rate, misses too many frames, or
    changes its picture size.
    """

    def __init__(self, path: Path, fps: float | None = None, max_missing: float = MAX_MISSING):
        self.path, self.max_missing = Path(path), max_missing
        self.index = index = video_index(self.path)
        self.fps = fps or index.fps
        if not 0 < self.fps <= HIGHEST_RATE:
            raise VadError(f"{path}: states no frame rate; set dataset.*.frames_per_second (detect: --fps)")
        self.length = len(index.times)
        self.times = np.arange(self.length) / fps if fps else index.times
        self._packets_are_frames = math.isclose(index.tick * index.fps, 1)  # as in AVI
        self.numbers: list[int] = []
        self._damaged: list[int] = []
        time_remarks = index.time_remarks
        if fps and index.fps and abs(index.fps / fps - 1) > SAME_RATE:
            time_remarks = (f"its times say {index.fps:g} frames a second; {fps:g} are used, as set",)
        self.remarks = [f"{self.path.name}: {remark}" for remark in (*time_remarks, *index.remarks)]

    def __iter__(self) -> Iterator[np.ndarray]:
        from av.video.reformatter import VideoReformatter

        self.numbers, self._damaged = [], []
        reformatter, turns, fields = VideoReformatter(), None, FieldDetector()
        with opened_video(self.path) as (container, stream):
            for number, frame in deinterlaced(fields.watch(self._numbered(container, stream), stream), stream):
                self.numbers.append(number)
                if frame.is_corrupt:
                    self._damaged.append(number)
                picture = reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
                if turns is None or frame.key_frame:  # reading it takes 5 % of the time of a small picture
                    turns = frame.rotation // 90 % 4  # counter-clockwise
                yield np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture
        if fields.interlaced:
            self.remarks.append(
                f"{self.path.name}: its frames look interlaced, though the file says that they are not: edges that move are "
                f"combed; deinterlace it with: ffmpeg -i {quoted(self.path)} -vf yadif NEW.mp4"
            )
        self._check()

    def second(self, number: int) -> float:
        """Time of a frame in seconds from the first one."""
        beyond = number - self.length + 1  # a packet can hold more than one frame
        return float(self.times[number]) if beyond <= 0 else float(self.times[-1]) + beyond / self.fps

    def _numbered(self, container, stream) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (frame number, frame), in order. Decoders put frames near damage out of order; these are left out."""
        held, last = None, -1
        for number, frame in self._matched(container, stream):
            if held and number > held[0]:
                yield held
                last = held[0]
            if number > last:  # the frame held so far comes too early if it has not been yielded by now
                held = number, frame
        if held:
            yield held

    def _matched(self, container, stream) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (frame number, frame) as the decoder gives them."""
        stamps = None if self.index.stamps is None else self.index.stamps.tolist()
        moved, by_decoding = self.index.moved, self.index.by_decoding
        number, size = -1, None
        decoded: int | None = None
        shift = 0  # of the places in an AVI file, by packets that its index names and that were not found
        for frame, errors in _decoded(container, stream):
            step = 1 if stamps is not None else 1 + errors
            place = frame.dts if by_decoding else frame.pts
            stamp = place if place is None else moved.get(place, place)
            if by_decoding and stamps is None and place is not None and stamp is not None:
                if (errors or stamp - place != shift) and self._packets_are_frames and decoded is not None:
                    step = max(step, stamp - decoded)  # the decoder gives no frame for some packets after a lost one
                decoded, shift = stamp, stamp - place
            number += step
            if stamps is not None and stamp is not None:
                number = bisect_left(stamps, stamp)
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise VadError(
                    f"{self.path}: frame {number} has {frame.width}x{frame.height} pixels where the first has "
                    f"{size[0]}x{size[1]}; one clip has one picture size: split it at {self.second(number):.2f} s"
                )
            yield number, frame

    def _check(self) -> None:
        """Report the missing frames. Raises :class:`VadError` if there are too many."""
        promised = self.length + self.index.cut_off
        if self._damaged:
            self.remarks.append(
                f"{self.path.name}: {len(self._damaged)} frames are damaged, the first at "
                f"{self.second(self._damaged[0]):.2f} s"
            )
        if not self.numbers:
            raise VadError(
                f"{self.path}: none of its {promised} frames can be decoded ({self.index.codec}); copy it again, or convert "
                "it with the recorder's own software"
            )
        runs = _runs(np.setdiff1d(np.arange(self.length), self.numbers))
        missing = sum(stop - start for start, stop in runs) + self.index.cut_off
        faults = [*self._damaged, *(stop - 1 for _, stop in runs)]
        if self.index.endless and max(faults, default=0) >= self.length - _REORDERED:
            self.remarks.append(f"{self.path.name}: one of its last frames is damaged; {END_UNKNOWN}")
        if not missing:
            return
        places = [f"{stop - start} at {self.times[start]:.2f} s" for start, stop in runs[:3]]
        places += [f"{len(runs) - 3} more places"] if len(runs) > 3 else []
        places += [f"{self.index.cut_off} at the end, which is cut off"] if self.index.cut_off else []
        said = f"{missing} of {promised} frames are missing ({', '.join(places)})"
        if missing > self.max_missing * promised:
            raise VadError(
                f"{self.path}: {said}; copy it again, or read the rest with extract.max_missing: "
                f"{min(1, np.ceil(100 * missing / promised) / 100):g} (now {self.max_missing:g})"
            )
        self.remarks.append(f"{self.path.name}: {said}")


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video in order, uint8 ``[H, W, 3]`` RGB. See :class:`VideoReader`."""
    yield from VideoReader(path)


def _decoded(container, stream) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yield (frame, number of packets since the frame before that could not be decoded)."""
    import av

    # With several threads FFmpeg decodes damaged videos differently every time, and drops more of their frames.
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    decoder, errors = stream.codec_context, 0
    raw = decoder.name in _RAW
    # None: the frames that the decoder still holds
    for packet in chain(packets(container, stream), repeat(None, MOST_ERRORS)):
        if packet is not None and not raw and not any(memoryview(packet)[:64]) and not any(memoryview(packet)):
            errors += 1  # zeros, as a failing disk leaves them; FFV1 decodes them without an error
            continue
        try:
            frames = decoder.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            errors += 1
            continue
        for frame in frames:
            yield frame, errors
            errors = 0


def _runs(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers as half-open pairs."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if len(numbers) else []
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]
