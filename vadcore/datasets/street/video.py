"""Reads the generated video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from vadcore.errors import VadError


def read_video(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a video in order, uint8 ``[H, W, 3]`` RGB. Raises :class:`VadError` where it has none."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        read, picture = capture.read()
        if not read:
            raise VadError(f"{path}: no picture can be read; delete it and run prepare again")
        while read:
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            read, picture = capture.read()
    finally:
        capture.release()
