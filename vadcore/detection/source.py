"""Read a video for detection: the pictures that bring it to the frame rate of the training footage, with their times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vadcore.data.sampling import Subsampling, peak_rate
from vadcore.data.video import MAX_MISSING, VideoReader
from vadcore.data.video_index import HIGHEST_RATE, SAME_RATE, video_fps, video_index
from vadcore.detection.naming import is_text, printable
from vadcore.utils.errors import VadError
from vadcore.utils.times import is_pause


class UnreadableVideo(VadError):
    """Video error: the file itself cannot be scored. All other errors are those of the machine or the system."""


def check_there(video: Path) -> None:
    """Raise :class:`UnreadableVideo` if the file does not exist or its path is not UTF-8, which PyAV cannot open."""
    if not is_text(video):
        raise UnreadableVideo(f"{printable(str(video))}: a path that is not UTF-8; rename it")
    if not video.is_file():
        raise UnreadableVideo(f"{video}: no such file; correct the path")


class VideoSource:
    """Iterable over the sampled pictures of a video in order, uint8 RGB ``[H, W, 3]``.

    Parameters
    ----------
    video: path of the video.
    sampling: which frames are sampled.
    stated: frame rate of the video, if its times are wrong.
    max_missing: share of the frames that may be missing.

    Attributes
    ----------
    count: pictures read so far. size: height and width of the last one.
    numbers, seconds: frame number and time of each sampled picture so far. The time counts from the first frame.
    length: number of frames in the video, decodable or not. duration: in seconds, with pauses.
    remarks: sentences about missing frames and unusual times. Complete at the end.

    Iteration raises :class:`UnreadableVideo` if the video cannot be decoded.
    """

    def __init__(self, video: Path, sampling: Sampling, stated: float | None = None, max_missing: float = MAX_MISSING):
        with _faults_of_the_video():
            self._reader = VideoReader(video, stated, max_missing)
            self._sampling, self.count, self.size = sampling, 0, (0, 0)
        self.numbers: list[int] = []
        self.seconds: list[float] = []

    @property
    def paused(self) -> bool:
        """Whether there is a pause before the last picture."""
        return len(self.seconds) > 1 and bool(is_pause(self.seconds[-1] - self.seconds[-2], self._sampling.fps))

    @property
    def length(self) -> int:
        return max(self._reader.length, self._reader.numbers[-1] + 1)

    @property
    def duration(self) -> float:
        return self._reader.second(self.length)

    @property
    def remarks(self) -> list[str]:
        varies = self._chosen().remark
        return [*self._reader.remarks, *([f"{self._reader.path.name}: {varies}"] if varies else [])]

    @property
    def is_constant(self) -> bool:
        """Whether the pictures are those of a video with a constant rate and no missing frames."""
        return self._chosen().is_constant(self.numbers, self.seconds)

    def _chosen(self) -> Subsampling:
        return Subsampling(self._sampling.video_fps, self._sampling.wanted, self._reader.times)

    def __iter__(self) -> Iterator[np.ndarray]:
        sampling = self._chosen()
        self.numbers, self.seconds = [], []
        with _faults_of_the_video():
            for picture in self._reader:
                self.count += 1
                self.size = picture.shape[:2]
                number = self._reader.numbers[-1]
                second = self._reader.second(number)
                if sampling.takes(second):
                    self.numbers.append(number)
                    self.seconds.append(second)
                    yield picture

    def interval(self, first: int, last: int) -> tuple[float, float, int]:
        """Start and end in seconds, and last frame number, of the sampled frames ``first`` to ``last``.

        A frame is shown until the next one, but in a pause only as long as at the frame rate.
        """
        following = last + 1
        end, stop = self.duration, self.length
        if following < len(self.numbers):
            end, stop = self.seconds[following], self.numbers[following]
        if is_pause(end - self.seconds[last], self._sampling.fps):
            end = self.seconds[last] + 1 / self._sampling.fps
        return self.seconds[first], end, stop - 1


@contextmanager
def _faults_of_the_video() -> Iterator[None]:
    try:
        yield
    except VadError as error:
        raise UnreadableVideo(str(error)) from error


@dataclass(frozen=True)
class Sampling:
    """Temporal subsampling of a video, see :class:`vadcore.data.sampling.Subsampling`.

    video_fps: usual frames per second of the video. fps: those of the sampled frames. every: ratio of the two. wanted:
    frames per second to which faster stretches are brought; None: all frames are sampled.
    """

    video_fps: float
    fps: float
    every: float
    wanted: float | None = None


def sampling_of(path: Path, fps: float, stated: float | None = None) -> Sampling:
    """Choose the subsampling that brings a video to ``fps``.

    Frames are only dropped, never interpolated: a slower video keeps its rate.

    stated: frame rate of the video, if its header has none or a wrong one. Raises :class:`UnreadableVideo` if the video
    has no frame rate in 0..``HIGHEST_RATE``.
    """
    times = None
    if stated is None:
        try:
            stated, times = video_fps(path), video_index(path).times
        except VadError as error:
            raise UnreadableVideo(str(error)) from error
        if not 0 < stated <= HIGHEST_RATE:
            raise UnreadableVideo(f"{path}: states no frame rate ({stated:g}); give it: --fps FRAMES_A_SECOND")
    peak = stated if times is None else peak_rate(times, stated)
    if peak <= fps * (1 + SAME_RATE):
        return Sampling(stated, stated, 1.0)
    if stated <= fps * (1 + SAME_RATE):
        return Sampling(stated, stated, 1.0, fps)
    return Sampling(stated, fps, stated / fps, fps)
