"""Mean image of the training footage. Models for fixed cameras subtract it, so that only moving objects remain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models.base import Phase, Update

BATCHES = 64  # batches of 16 frames for the mean image


class MeanImage(nn.Module):
    """Normalise frames from 0..1 to network input in -1..1, and back.

    With ``subtract``, subtracts the mean image, which the phase from :meth:`phases` gathers before training. Otherwise
    rescales 0..1 to -1..1. ``span`` is the width of the brightness range 0..1 after normalisation: 1 or 2.
    """

    sum: Tensor  # [C, H, W], sum of the mean frames of ``count`` batches; only with ``subtract``
    count: Tensor

    def __init__(self, channels: int, size: tuple[int, int], subtract: bool):
        super().__init__()
        self.subtract = subtract
        self.span = 1.0 if subtract else 2.0
        if subtract:
            self.register_buffer("sum", torch.zeros(channels, *size))
            self.register_buffer("count", torch.zeros(()))

    def centre(self, frames: Tensor) -> Tensor:
        """Normalise ``[..., C, H, W]`` from 0..1 to -1..1."""
        return frames - self._mean() if self.subtract else frames * 2 - 1

    def uncentre(self, x: Tensor) -> Tensor:
        """Invert :meth:`centre`."""
        return x + self._mean() if self.subtract else (x + 1) / 2

    def phases(self) -> list[Phase]:
        """Phase that gathers the mean image. Empty without ``subtract``."""
        return [Phase("mean_image", BATCHES, Windows(1), 16, self._add, sampling="clips")] if self.subtract else []

    def _mean(self) -> Tensor:
        return self.sum / self.count.clamp(min=1)

    def _add(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        self.sum += batch.frames[:, 0].mean(0)
        self.count += 1
        return {"loss": batch.frames.var()}  # for the log only: variance of the frames
