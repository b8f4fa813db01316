"""Front end interface: encoder from frames to latent vectors, and decoder."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from vadcore.data.windows import Batch, Windows
from vadcore.models.base import Model, Prediction
from vadcore.models.components.error_maps import frame_errors


class FrontEnd(Model):
    """Encode single frames to Gaussians over latent vectors, and decode latent vectors to frames.

    Trained first, then frozen while the model that predicts its latent vectors is trained. ``z``: latent dimension.
    """

    windows = Windows(1, judged=(0,))
    score = "mse"
    z: int

    @abstractmethod
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames ``[N, C, H, W]`` in 0..1 to mean and log sigma of latent vectors, ``[N, z]`` each, float32."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Decode latent vectors ``[N, z]`` to frames ``[N, C, H, W]`` in 0..1, float32."""

    def predict_step(self, batch: Batch) -> Prediction:
        rebuilt = self.decode(self.encode(batch.frames[:, 0])[0])[:, None]  # [B, 1, C, H, W]
        measures, maps = frame_errors(rebuilt, batch.frames)
        return Prediction(measures, maps, lambda: rebuilt)
