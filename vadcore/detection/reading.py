"""Decode a video from any source. Errors of the video (UnreadableVideo) are separated from all other errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from vadcore.data.formats.clip_files import HIGHEST_RATE
from vadcore.data.video import read_video, video_fps
from vadcore.detection.naming import is_text, shown
from vadcore.utils.errors import VadError


class UnreadableVideo(VadError):
    """Video error: the file itself cannot be scored."""


def check_there(video: Path) -> None:
    """Raise :class:`UnreadableVideo` if the file does not exist or its path is not UTF-8, which OpenCV cannot open."""
    if not is_text(video):
        raise UnreadableVideo(f"{shown(str(video))}: a path that is not UTF-8; rename it")
    if not video.is_file():
        raise UnreadableVideo(f"{video}: no such file; correct the path")


class Source:
    """Iterable over the pictures of a video in order, uint8 RGB ``[H, W, 3]``.

    count: pictures read so far. size: height and width of the last one. Iteration raises :class:`UnreadableVideo` if the
    video cannot be decoded.
    """

    def __init__(self, video: Path):
        self.video, self.count, self.size = video, 0, (0, 0)

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for picture in read_video(self.video):
                self.count += 1
                self.size = picture.shape[:2]
                yield picture
        except VadError as error:
            raise UnreadableVideo(str(error)) from error
        except cv2.error as error:
            reason = " ".join(str(error).split())[:200]
            raise UnreadableVideo(
                f"{self.video}: frame {self.count} cannot be decoded ({reason}); convert it"
            ) from error


def rate_of(video: Path) -> float:
    """Frame rate in the header of a video, in frames per second.

    Raises :class:`UnreadableVideo` if the rate is missing or not in 0..``HIGHEST_RATE``.
    """
    try:
        rate = video_fps(video)
    except VadError as error:
        raise UnreadableVideo(str(error)) from error
    if not 0 < rate <= HIGHEST_RATE:
        raise UnreadableVideo(f"{video}: states no frame rate ({rate:g}); give it: --fps FRAMES_A_SECOND")
    return rate
