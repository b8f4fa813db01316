"""A video with its error maps as heat over it, and a bar below that tells the time and when an event lasts.

VP8 in WebM: of what OpenCV writes everywhere it is what browsers play and what is fast enough (MPEG-4 is faster, but no
browser plays it; VP9 takes eight times as long). To encode is most of the work of a film, so it is small and at most 15
frames a second: of the frames that were looked at, every one, every second, ...
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from vadcore.detection.frames import ahead
from vadcore.detection.reading import Source
from vadcore.detection.scan import Scanned
from vadcore.detection.timeline import clock
from vadcore.evaluation.maps import colour_scale, for_the_eye
from vadcore.utils.errors import VadError
from vadcore.utils.files import LEAST_FREE
from vadcore.utils.render import HEAT_OPACITY, heat

WIDEST = 480  # pixels; wider videos are reduced to it
TALLEST = 1200  # taller ones to this
MOST_RATE = 15  # frames a second
NARROWEST = 320  # narrower ones are enlarged by a whole factor, so that the bar can be read
BAR = 24  # pixels below the picture
GRAIN = 12  # grey levels: where a pixel differs less from what is shown, it is noise
SETTLE = 0.1  # share of such a pixel that is taken over, so that slow changes of the light still come through
BOX_SECONDS = 0.5  # the box of an event shows so long before and after its peak
QUIET, LOUD, WHITE = (40, 40, 40), (40, 40, 200), (255, 255, 255)  # BGR


def write_film(path: Path, scanned: Scanned) -> None:
    """Write the film of ``scanned`` to ``path`` (``*.webm``).

    Raises :class:`VadError` where this OpenCV cannot write VP8, and OSError (ENOSPC) where the disk is full.
    """
    size = film_size(scanned.size)
    step = math.ceil(scanned.sampling.fps / MOST_RATE)
    painter = _Painter(scanned, size)
    with muted_stderr():  # OpenCV remarks there that WebM has no four-letter codes
        writer = cv2.VideoWriter(
            str(path),
            cv2.CAP_FFMPEG,
            cv2.VideoWriter_fourcc(*"VP80"),
            scanned.sampling.fps / step,
            (size[1], size[0] + BAR),
        )
    if not writer.isOpened():
        raise VadError(
            f"{path}: OpenCV cannot write VP8 video of {size[1]}x{size[0] + BAR} there; install opencv-python, or set "
            "detect.film false"
        )
    way = cv2.INTER_AREA if min(size[0] / scanned.size[0], size[1] / scanned.size[1]) < 1 else cv2.INTER_NEAREST
    looked_at = islice(scanned.sampling.of(Source(scanned.video)), 0, None, step)
    small = (cv2.resize(picture, size[::-1], interpolation=way) for picture in looked_at)
    with ThreadPoolExecutor(1) as encoder:  # one picture is encoded while the next is painted
        written = None
        for number, picture in enumerate(ahead(small)):
            painted = painter.paint(number * step, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            if written:
                written.result()
            written = encoder.submit(writer.write, painted)
        if written:
            written.result()
    writer.release()
    if shutil.disk_usage(path.parent).free < LEAST_FREE:  # the writer itself says nothing
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def film_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, both even, of the pictures in the film of a video of ``size``."""
    height, width = size
    scale = WIDEST / width if width > WIDEST else max(1, -(-NARROWEST // width))
    scale = min(scale, TALLEST / height)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


class _Painter:
    """Paints frame by frame, in order."""

    def __init__(self, scanned: Scanned, size: tuple[int, int]):
        self.maps, self.size = scanned.maps, size
        frames = scanned.frames
        self.seconds, self.event = frames["seconds"].to_numpy(), frames["event"].to_numpy()
        self.events = list(scanned.events.itertuples())
        self.scale = size[1] / scanned.size[1], size[0] / scanned.size[0]  # across, down
        self.low, self.high = colour_scale(self.maps, (self.event == 0) & frames["score"].notna().to_numpy())
        self.shown: np.ndarray | None = None

    def paint(self, number: int, picture: np.ndarray) -> np.ndarray:
        """uint8 BGR ``[H + BAR, W, 3]`` of frame ``number``."""
        painted = self._heated(number, self._calm(picture))
        moment, event = float(self.seconds[number]), int(self.event[number])
        for found in self.events:
            if abs(found.peak_seconds - moment) <= BOX_SECONDS and pd.notna(found.x):
                self._box(painted, found)
        bar = np.full((BAR, self.size[1], 3), LOUD if event else QUIET, np.uint8)
        said = clock(moment)
        if event:
            said += f"   event {event}   p {self.events[event - 1].p_value:.2g}"
        cv2.putText(bar, said, (8, BAR - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
        return np.concatenate([painted, bar])

    def _calm(self, picture: np.ndarray) -> np.ndarray:
        """Without the sensor's grain, which costs the encoder several times the time and the space of all the rest."""
        if self.shown is None:
            self.shown = picture.copy()
            return picture
        different = cv2.cvtColor(cv2.absdiff(picture, self.shown), cv2.COLOR_BGR2GRAY) > GRAIN
        settled = cv2.addWeighted(picture, SETTLE, self.shown, 1 - SETTLE, 0)
        cv2.copyTo(picture, different.astype(np.uint8), settled)
        self.shown = settled
        return settled

    def _heated(self, number: int, picture: np.ndarray) -> np.ndarray:
        error = for_the_eye(self.maps[number])
        if not np.isfinite(error).all():
            return picture.copy()
        share = np.clip((error - self.low) / (self.high - self.low), 0, 1)
        if not share.any():
            return picture.copy()
        size = self.size[::-1]
        colours = cv2.cvtColor(heat(error, self.low, self.high), cv2.COLOR_RGB2BGR)
        opacity = cv2.resize(HEAT_OPACITY * np.sqrt(share, dtype=np.float32), size)
        return cv2.blendLinear(picture, cv2.resize(colours, size), 1 - opacity, opacity)

    def _box(self, painted: np.ndarray, event) -> None:
        across, down = self.scale
        corner = round(event.x * across), round(event.y * down)
        opposite = round((event.x + event.width) * across) - 1, round((event.y + event.height) * down) - 1
        cv2.rectangle(painted, corner, opposite, WHITE, 2)


@contextmanager
def muted_stderr() -> Iterator[None]:
    """What C code writes to the standard error output is lost."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
