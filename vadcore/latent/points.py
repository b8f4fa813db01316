"""The latent points of whole footage, encoded once: what the predictor trains on in place of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vadcore.device import autocast
from vadcore.latent.front_end import FrontEnd

if TYPE_CHECKING:
    from vadcore.footage import Footage

AT_ONCE = 64  # frames encoded together


@dataclass
class PointBatch:
    """Windows of latent points: mean and log sigma of each frame's, ``[B, T, Z]``."""

    mean: Tensor
    log_sigma: Tensor


class Points:
    """Stands in the place of :class:`~vadcore.footage.Footage`: the points of all its segments, on its device.

    Kept in memory, float32: a frame takes 8 bytes a component of its point.
    """

    def __init__(self, front: FrontEnd, footage: Footage, dtype: torch.dtype):
        self.device, self.lengths = footage.device, footage.lengths
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])[:-1].astype(np.int64)
        self._points = torch.empty((sum(self.lengths), 2, front.z), device=self.device)
        was_training = front.training
        front.eval()
        with torch.no_grad(), autocast(self.device, dtype):
            for clip, start, length in _runs(self.lengths):
                frames = footage.batch(np.array([[clip, start, 1]]), length).frames[0]
                first = self._offsets[clip] + start
                self._points[first : first + length] = torch.stack(front.encode(frames), dim=1)
        front.train(was_training)

    def batch(self, picks: np.ndarray, length: int) -> PointBatch:
        """The windows ``picks`` ``[B, 3]`` (segment, start, stride) of ``length`` points each."""
        index = (self._offsets[picks[:, 0]] + picks[:, 1])[:, None] + picks[:, 2:3] * np.arange(length)
        mean, log_sigma = self._points[torch.from_numpy(index).to(self.device)].unbind(2)
        return PointBatch(mean, log_sigma)

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[PointBatch]:
        return (self.batch(picks, length) for picks in plan)


def _runs(lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    """(segment, start, length) of neighbouring frames that cover everything."""
    for clip, total in enumerate(lengths):
        for start in range(0, total, AT_ONCE):
            yield clip, start, min(AT_ONCE, total - start)
