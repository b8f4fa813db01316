"""The latent points of whole footage, encoded once: what the predictor trains on in place of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vadcore.models.latent.front_end import FrontEnd
from vadcore.utils.device import autocast

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

AT_ONCE = 256  # frames encoded together, at most


@dataclass
class PointBatch:
    """Windows of latent points: mean and log sigma of each frame's, ``[B, T, Z]``."""

    mean: Tensor
    log_sigma: Tensor


class Points:
    """Stands in the place of :class:`~vadcore.data.loader.ClipLoader`: the points of all its segments, on its device.

    Kept in memory, float32: a frame takes 8 bytes a component of its point.
    """

    def __init__(self, front: FrontEnd, footage: ClipLoader, dtype: torch.dtype):
        self.device, self.lengths = footage.device, footage.lengths
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])[:-1].astype(np.int64)
        self._points = torch.empty((sum(self.lengths), 2, front.z), device=self.device)
        was_training = front.training
        front.eval()
        with torch.no_grad(), autocast(self.device, dtype):
            done = 0
            for picks, length in _runs(self.lengths):
                frames = footage.batch(picks, length).frames.flatten(0, 1)
                self._points[done : done + len(frames)] = torch.stack(front.encode(frames), dim=1)
                done += len(frames)
        front.train(was_training)

    def batch(self, picks: np.ndarray, length: int) -> PointBatch:
        """The windows ``picks`` ``[B, 3]`` (segment, start, stride) of ``length`` points each."""
        index = (self._offsets[picks[:, 0]] + picks[:, 1])[:, None] + picks[:, 2:3] * np.arange(length)
        mean, log_sigma = self._points[torch.from_numpy(index).to(self.device)].unbind(2)
        return PointBatch(mean, log_sigma)

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[PointBatch]:
        return (self.batch(picks, length) for picks in plan)


def _runs(lengths: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    """Runs of neighbouring frames that cover everything in order, several at once where they are equally long: picks
    ``[B, 3]`` (segment, start, stride 1) and their length."""
    every = [
        (clip, start, min(AT_ONCE, total - start))
        for clip, total in enumerate(lengths)
        for start in range(0, total, AT_ONCE)
    ]
    for length, runs in groupby(every, key=lambda run: run[2]):
        picks = np.array([(clip, start, 1) for clip, start, _ in runs])
        for first in range(0, len(picks), count := AT_ONCE // length):
            yield picks[first : first + count], length
