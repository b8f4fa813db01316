"""A video as a system wants it: at the rate, size and colour of the footage it was trained on."""

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

SAME_RATE = 0.02  # rates that differ by less are the same: 29.97 and 30 frames a second
AHEAD = 16  # pictures decoded while those before them are worked at
Item = TypeVar("Item")


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are looked at: number ``floor(k * every + 0.5)`` for k = 0, 1, ..., ``every`` >= 1.

    video_fps, fps: frames a second of the video, and of those that are looked at.
    """

    video_fps: float
    fps: float
    every: float

    def numbers(self, count: int) -> np.ndarray:
        """int64 ``[count]``: the video's number of each frame that is looked at."""
        return np.floor(np.arange(count) * self.every + 0.5).astype(np.int64)

    def of(self, pictures: Iterable[Item]) -> Iterator[Item]:
        """Of all pictures of the video those that are looked at."""
        wanted = 0
        for number, picture in enumerate(pictures):
            if number == math.floor(wanted * self.every + 0.5):
                wanted += 1
                yield picture


def sampling_of(path: Path, fps: float, stated: float | None = None) -> Sampling:
    """How the video is brought to ``fps``. stated: its own rate, where its header says it wrongly or not at all.

    Frames can be left out, not made: slower footage keeps its rate. Raises
    :class:`~vadcore.detection.reading.UnreadableVideo` for a video that states no usable rate.
    """
    rate = rate_of(path) if stated is None else stated
    if rate <= fps * (1 + SAME_RATE):
        return Sampling(rate, rate, 1.0)
    return Sampling(rate, fps, rate / fps)


def remarks(path: Path, sampling: Sampling, size: tuple[int, int], recipe: PreprocessSpec) -> list[str]:
    """What a person has to know of footage that differs from what the system was trained on; size: the video's."""
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
    """A frame as each system reads it, uint8 ``[C, H, W]``, and as the estimator of flow does, ``[h, w, C]`` or None."""

    frames: tuple[np.ndarray, ...]
    seen: np.ndarray | None


def prepare(picture: np.ndarray, recipe: PreprocessSpec, configs: Sequence[ModelConfig]) -> Prepared:
    """A decoded picture, uint8 RGB ``[H, W, 3]``, by the steps of extraction and of
    :class:`vadcore.data.loader.ClipLoader`: first what the store would hold, from that what each system reads. configs: of
    the systems."""
    stored = to_color(picture, 1 if recipe.color == "grey" else 3)
    stored = resize_picture(stored, recipe.size) if recipe.size else stored
    frames = [
        resize_picture(to_color(stored, config.channels), config.image_size or stored.shape[:2]) for config in configs
    ]
    seen = resize_picture(stored, recipe.flow.size) if any(config.needs_flow for config in configs) else None
    return Prepared(tuple(np.ascontiguousarray(frame.transpose(2, 0, 1)) for frame in frames), seen)


def ahead(items: Iterable[Item], count: int = AHEAD) -> Iterator[Item]:
    """``items``, made in a thread of their own, up to ``2 * count`` ahead of their use."""
    source = iter(items)

    def take() -> list[Item]:
        return list(islice(source, count))

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(take)
        while block := coming.result():
            coming = thread.submit(take)
            yield from block
