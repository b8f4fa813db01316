"""Preprocess a video to the frame rate, size and colour of the training footage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vadcore.detection.reading import rate_of
from vadcore.evaluation.preprocess import PreprocessSpec
from vadcore.models.base import ModelConfig
from vadcore.utils.images import resize_picture, to_color

SAME_RATE = 0.02  # relative tolerance of frame rates: 29.97 and 30 fps count as equal
AHEAD = 16  # pictures per block that is decoded ahead
Item = TypeVar("Item")


@dataclass(frozen=True)
class Sampling:
    """Temporal subsampling of a video: the frames ``floor(k * every + 0.5)`` for k = 0, 1, ..., ``every`` >= 1.

    video_fps: frames per second of the video. fps: frames per second of the sampled frames.
    """

    video_fps: float
    fps: float
    every: float

    def numbers(self, count: int) -> np.ndarray:
        """Frame numbers in the video of the first ``count`` sampled frames, int64 ``[count]``."""
        return np.floor(np.arange(count) * self.every + 0.5).astype(np.int64)

    def of(self, pictures: Iterable[Item]) -> Iterator[Item]:
        """Select the sampled frames from all pictures of the video."""
        wanted = 0
        for number, picture in enumerate(pictures):
            if number == math.floor(wanted * self.every + 0.5):
                wanted += 1
                yield picture


def sampling_of(path: Path, fps: float, stated: float | None = None) -> Sampling:
    """Choose the subsampling that brings a video to ``fps``.

    Frames are only dropped, never interpolated: a slower video keeps its rate.

    stated: frame rate of the video, if its header has none or a wrong one. Raises
    :class:`~vadcore.detection.reading.UnreadableVideo` if the video has no usable frame rate.
    """
    rate = rate_of(path) if stated is None else stated
    if rate <= fps * (1 + SAME_RATE):
        return Sampling(rate, rate, 1.0)
    return Sampling(rate, fps, rate / fps)


def remarks(path: Path, sampling: Sampling, size: tuple[int, int], recipe: PreprocessSpec) -> list[str]:
    """Warnings about a video whose frame rate or aspect ratio differs from the training footage.

    size: height and width of the video.
    """
    said = []
    if sampling.fps < recipe.fps * (1 - SAME_RATE):
        said.append(
            f"{path.name} has {sampling.fps:g} frames a second, the system was trained at {recipe.fps:g}: everything "
            "looks faster to it than it is, so expect more false alarms"
        )
    if recipe.size:
        ratio = (size[1] / size[0]) / (recipe.size[1] / recipe.size[0])
        if not 1 / 1.1 <= ratio <= 1.1:
            said.append(
                f"{path.name} is {size[1]}x{size[0]}, the system was trained at {recipe.size[1]}x{recipe.size[0]}: the "
                "picture is squeezed, so expect more false alarms"
            )
    return said


class Prepared(NamedTuple):
    """A preprocessed frame.

    frames: input of each system, uint8 ``[C, H, W]``. seen: input of the optical flow estimator, uint8 ``[h, w, C]``, or
    None if no system needs optical flow.
    """

    frames: tuple[np.ndarray, ...]
    seen: np.ndarray | None


def prepare(picture: np.ndarray, recipe: PreprocessSpec, configs: Sequence[ModelConfig]) -> Prepared:
    """Preprocess a decoded picture in the same steps as the extract stage and :class:`vadcore.data.loader.ClipLoader`.

    The picture is first converted to a stored frame, then to the input of each system.

    picture: uint8 RGB ``[H, W, 3]``. configs: configurations of the systems.
    """
    stored = to_color(picture, 1 if recipe.color == "grey" else 3)
    stored = resize_picture(stored, recipe.size) if recipe.size else stored
    frames = [
        resize_picture(to_color(stored, config.channels), config.image_size or stored.shape[:2]) for config in configs
    ]
    seen = resize_picture(stored, recipe.flow.size) if any(config.needs_flow for config in configs) else None
    return Prepared(tuple(np.ascontiguousarray(frame.transpose(2, 0, 1)) for frame in frames), seen)


def ahead(items: Iterable[Item], count: int = AHEAD) -> Iterator[Item]:
    """Iterate over ``items`` in a background thread, up to ``2 * count`` items ahead of their use."""
    source = iter(items)

    def take() -> list[Item]:
        return list(islice(source, count))

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(take)
        while block := coming.result():
            coming = thread.submit(take)
            yield from block
