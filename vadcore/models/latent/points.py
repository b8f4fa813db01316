"""Cached latent vectors of all footage: training data of the latent LSTM, in place of frames."""

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

AT_ONCE = 256  # largest number of frames encoded in one batch


@dataclass
class PointBatch:
    """Windows of latent vectors: mean and log sigma for each frame, ``[B, T, Z]`` each."""

    mean: Tensor
    log_sigma: Tensor


class Points:
    """Encode all segments of ``footage`` once and serve windows of latent vectors, on the device of ``footage``.

    Has the interface of :class:`~vadcore.data.loader.ClipLoader`. Kept in memory as float32: 8 bytes per frame and latent
    dimension.
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
        """Get the windows ``picks`` ``[B, 3]`` (segment, start, stride), each of ``length`` latent vectors."""
        index = (self._offsets[picks[:, 0]] + picks[:, 1])[:, None] + picks[:, 2:3] * np.arange(length)
        mean, log_sigma = self._points[torch.from_numpy(index).to(self.device)].unbind(2)
        return PointBatch(mean, log_sigma)

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[PointBatch]:
        return (self.batch(picks, length) for picks in plan)


def _runs(lengths: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    """Split all segments, in order, into batches of runs of consecutive frames, all runs of a batch of equal length.

    Yields picks ``[B, 3]`` (segment, start, stride 1) and the length of the runs.
    """
    every = [
        (clip, start, min(AT_ONCE, total - start))
        for clip, total in enumerate(lengths)
        for start in range(0, total, AT_ONCE)
    ]
    for length, runs in groupby(every, key=lambda run: run[2]):
        picks = np.array([(clip, start, 1) for clip, start, _ in runs])
        for first in range(0, len(picks), count := AT_ONCE // length):
            yield picks[first : first + count], length
