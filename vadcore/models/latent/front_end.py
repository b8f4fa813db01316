"""What stands between frames and latent points: the interface that both front ends have."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from vadcore.data.windows import Batch, Windows
from vadcore.models.base import Model, Prediction
from vadcore.models.components.error_maps import frame_errors


class FrontEnd(Model):
    """Frames to Gaussians over latent points, and points to frames; each frame on its own.

    Trained before, and frozen under, the system that predicts its latent points. ``z``: components of a point.
    """

    windows = Windows(1, judged=(0,))
    score = "mse"
    z: int

    @abstractmethod
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[N, C, H, W]`` in 0..1 to mean and log sigma of their points, ``[N, z]`` each, float32."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Points ``[N, z]`` to frames ``[N, C, H, W]`` in 0..1, float32."""

    def predict_step(self, batch: Batch) -> Prediction:
        rebuilt = self.decode(self.encode(batch.frames[:, 0])[0])[:, None]  # [B, 1, C, H, W]
        measures, maps = frame_errors(rebuilt, batch.frames)
        return Prediction(measures, maps, lambda: rebuilt)
