"""Annotated video and plot of the score over time.

The annotated video has the frames with their error maps as a heat-map overlay, and a bar below with the time and the event.
Its format is VP8 in WebM: OpenCV can write it everywhere, browsers play it, and it is fast enough. MPEG-4 is faster, but no
browser plays it; VP9 takes eight times as long. Encoding is most of the work, so the video is small and has at most 15
frames per second: every k-th of the scored frames, where their rate is constant.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, compress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from vadcore.detection.source import VideoSource
from vadcore.detection.stream import Scanned, ahead
from vadcore.evaluation.maps import colour_scale, smooth_for_display
from vadcore.utils.errors import VadError
from vadcore.utils.files import LEAST_FREE
from vadcore.utils.render import HEAT_OPACITY, heat
from vadcore.utils.times import shown

POINTS = 1500  # in the plotted curve; longer videos show the maximum score of each interval, so that no alarm is lost
WIDEST = 480  # maximum width, pixels; wider videos are reduced
TALLEST = 1200  # maximum height, pixels; taller videos are reduced
MOST_RATE = 15  # maximum frames per second
NARROWEST = 320  # minimum width, pixels; narrower videos are enlarged by an integer factor, so that the bar is readable
BAR = 24  # height of the bar, pixels
GRAIN = 12  # grey levels; a pixel that differs less from the displayed picture is treated as noise
SETTLE = 0.1  # weight of such a pixel in the running average, so that slow changes of light still show
BOX_SECONDS = 0.5  # the box of an event is shown this long before and after its peak
QUIET, LOUD, WHITE = (40, 40, 40), (40, 40, 200), (255, 255, 255)  # BGR


def write_film(path: Path, scanned: Scanned) -> None:
    """Write the annotated video of ``scanned`` to ``path`` (``*.webm``).

    Raises :class:`VadError` if this OpenCV cannot write VP8, and OSError (ENOSPC) if the disk is full.
    """
    size = film_size(scanned.size)
    step = math.ceil(scanned.sampling.fps / MOST_RATE)
    painter = _Painter(scanned, size)
    with muted_stderr():  # OpenCV warns there that WebM has no four-character codes
        code, rate = cv2.VideoWriter.fourcc(*"VP80"), scanned.sampling.fps / step
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, (size[1], size[0] + BAR))
    if not writer.isOpened():
        said = f"{path}: OpenCV cannot write VP8 video of {size[1]}x{size[0] + BAR} there"
        raise VadError(f"{said}; install opencv-python, or set detect.film false")
    way = cv2.INTER_AREA if min(size[0] / scanned.size[0], size[1] / scanned.size[1]) < 1 else cv2.INTER_NEAREST
    times = film_counts(scanned.frames["seconds"].to_numpy(), scanned.sampling.fps, step)
    looked_at = compress(VideoSource(scanned.video, scanned.sampling, scanned.stated, 1.0), times)
    small = (cv2.resize(picture, size[::-1], interpolation=way) for picture in looked_at)
    with ThreadPoolExecutor(1) as encoder:  # encodes one picture while the next is painted
        written: Future[object] | None = None
        for number, picture in zip(np.flatnonzero(times).tolist(), chain.from_iterable(ahead(small)), strict=True):
            painted = painter.paint(number, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            for _ in range(times[number]):
                if written is not None:
                    written.result()
                written = encoder.submit(writer.write, painted)
        if written is not None:
            written.result()
    writer.release()
    if shutil.disk_usage(path.parent).free < LEAST_FREE:  # the writer does not report a full disk
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def film_counts(seconds: np.ndarray, fps: float, step: int) -> np.ndarray:
    """Return how many pictures of the annotated video show each frame ``[T]``, so that it plays in real time.

    The annotated video has ``fps / step`` pictures a second. Pauses are left out. seconds: times of the frames.
    """
    starts, stops = shown(len(seconds), fps, seconds)
    begins = np.cumsum(stops - starts) - (stops - starts)  # frame periods, without pauses
    numbers = np.searchsorted(begins, np.arange(0, begins[-1] + 0.5, step) + 0.5, side="right") - 1
    return np.bincount(numbers, minlength=len(seconds))


def film_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width (both even) of the pictures in the annotated video. size: height and width of the video."""
    height, width = size
    scale = WIDEST / width if width > WIDEST else max(1, -(-NARROWEST // width))
    scale = min(scale, TALLEST / height)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


class _Painter:
    """Paints the annotated frames; must be called in order of frames."""

    def __init__(self, scanned: Scanned, size: tuple[int, int]):
        self.maps, self.size = scanned.maps, size
        frames = scanned.frames
        self.seconds, self.event = frames["seconds"].to_numpy(), frames["event"].to_numpy()
        self.events = list(scanned.events.itertuples())
        self.scale = size[1] / scanned.size[1], size[0] / scanned.size[0]  # across, down
        self.low, self.high = colour_scale(self.maps, (self.event == 0) & frames["score"].notna().to_numpy())
        self.average: np.ndarray | None = None

    def paint(self, number: int, picture: np.ndarray) -> np.ndarray:
        """Paint frame ``number``: uint8 BGR ``picture`` ``[H, W, 3]`` to ``[H + BAR, W, 3]``."""
        painted = self._heated(number, self._calm(picture))
        moment, event = float(self.seconds[number]), int(self.event[number])
        for found in self.events:
            if abs(found.peak_seconds - moment) <= BOX_SECONDS and pd.notna(found.x):
                self._box(painted, found)
        bar = np.full((BAR, self.size[1], 3), LOUD if event else QUIET, np.uint8)
        text = clock(moment)
        if event:
            text += f"   event {event}   p {self.events[event - 1].p_value:.2g}"
        cv2.putText(bar, text, (8, BAR - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
        return np.concatenate([painted, bar])

    def _calm(self, picture: np.ndarray) -> np.ndarray:
        """Remove sensor noise, which takes several times the encoding time and file size of everything else."""
        if self.average is None:
            self.average = picture.copy()
            return picture
        different = cv2.cvtColor(cv2.absdiff(picture, self.average), cv2.COLOR_BGR2GRAY) > GRAIN
        settled = cv2.addWeighted(picture, SETTLE, self.average, 1 - SETTLE, 0)
        cv2.copyTo(picture, different.astype(np.uint8), settled)
        self.average = settled
        return settled

    def _heated(self, number: int, picture: np.ndarray) -> np.ndarray:
        error = smooth_for_display(self.maps[number])
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
    """Discard everything that is written to stderr, including the output of C code."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss``, or as ``h:mm:ss`` from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def interval_maxima(seconds: np.ndarray, scores: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a curve to at most ``most`` points: first time and maximum score of each interval of frames.

    seconds, scores: ``[T]``, NaN = not scored. The maximum is NaN if no frame of the interval has a score.
    """
    each = -(-len(scores) // most)
    padded = np.pad(scores, (0, -len(scores) % each), constant_values=np.nan)
    return seconds[::each], np.fmax.reduce(padded.reshape(-1, each), axis=1)  # fmax ignores NaN


def write_timeline(path: Path, frames: pd.DataFrame, events: pd.DataFrame, threshold: float, title: str) -> None:
    """Plot the tables ``frames`` and ``events`` of :class:`vadcore.detection.stream.Scanned` to the PNG file ``path``."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    seconds, scores = interval_maxima(frames["seconds"].to_numpy(), frames["score"].to_numpy())
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for event in events.itertuples():
        axes.axvspan(event.start_seconds, event.end_seconds, color="tab:red", alpha=0.2, linewidth=0)
        peak = event.peak_seconds, event.peak_score
        axes.annotate(str(event.number), peak, xytext=(0, 4), textcoords="offset points", ha="center")
    axes.plot(seconds, scores, color="tab:blue", linewidth=0.9, label="score")
    axes.axhline(threshold, color="tab:red", linestyle="--", linewidth=1, label=f"threshold {threshold:.4g}")
    length = float(frames["seconds"].iloc[-1])
    axes.set_xlim(0, max(length, 1e-3))
    axes.margins(y=0.15)
    steps = [1, 1.5, 2, 3, 5, 6, 10] if length < 600 else [1, 1.2, 1.8, 3, 3.6, 6, 9, 10]
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, steps=steps, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
    axes.set_xlabel("h:mm:ss" if length >= 3600 else "m:ss")
    axes.set_ylabel("score")
    axes.set_title(title, loc="left", parse_math=False)  # a file name may contain dollar signs
    axes.legend(loc="upper right")
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=110)
