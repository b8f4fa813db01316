"""The mean image of training footage, which systems of a fixed camera subtract: what is left is what moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models.base import Phase, Update

BATCHES = 64  # of 16 frames each


class MeanImage(nn.Module):
    """Frames in 0..1 to what a network sees, in -1..1, and back.

    With ``subtract`` the mean image is taken off, which :meth:`phase` gathers before the training; else the range is
    stretched. ``span`` is what the brightness range of a frame measures in what the network sees.
    """

    def __init__(self, channels: int, size: tuple[int, int], subtract: bool):
        super().__init__()
        self.subtract = subtract
        self.span = 1.0 if subtract else 2.0
        if subtract:
            self.register_buffer("sum", torch.zeros(channels, *size))
            self.register_buffer("count", torch.zeros(()))

    def centre(self, frames: Tensor) -> Tensor:
        """``[..., C, H, W]`` in 0..1 to -1..1."""
        return frames - self._mean() if self.subtract else frames * 2 - 1

    def uncentre(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`centre`."""
        return x + self._mean() if self.subtract else (x + 1) / 2

    def phases(self) -> list[Phase]:
        """The phase that gathers the mean image; none when nothing is subtracted."""
        return [Phase("mean_image", BATCHES, Windows(1), 16, self._add, sampling="clips")] if self.subtract else []

    def _mean(self) -> Tensor:
        return self.sum / self.count.clamp(min=1)

    def _add(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        self.sum += batch.frames[:, 0].mean(0)
        self.count += 1
        return {"loss": batch.frames.var()}  # nothing is minimised: the variance is what there is to watch
