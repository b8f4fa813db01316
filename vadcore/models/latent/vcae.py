"""Convolutional variational autoencoder (VAE) of single frames, for footage with nearly black or white pixels."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vadcore.data.windows import Batch
from vadcore.models.base import FixedSizeConfig, Phase, step_of
from vadcore.models.latent.front_end import FrontEnd
from vadcore.models.latent.gaussians import bounded, divergence_from_standard, draw
from vadcore.utils.schema import Section


class VCAEConfig(Section):
    """Defaults are the published values."""

    name: Literal["vcae"] = "vcae"
    conv: PositiveInt = 32  # channels
    dense: PositiveInt = 1024
    z: PositiveInt = 32
    dropout: float = Field(default=0.3, ge=0, lt=1)  # of input pixels
    samples: PositiveInt = 2  # latent vectors sampled per frame in the loss
    batch_size: PositiveInt = 128
    iterations: PositiveInt = 5_625  # 12 epochs of 60,000 frames
    learning_rate: PositiveFloat = 3e-5


class VCAE(FrontEnd):
    """VAE with Bernoulli likelihood of the pixels and standard normal prior: Kingma & Welling 2014."""

    def __init__(self, config: FixedSizeConfig, settings: VCAEConfig):
        super().__init__(config)
        self.settings, self.z = settings, settings.z
        height, width = config.image_size
        cells = settings.conv * height * width
        self.encoder = nn.Sequential(
            nn.Dropout(settings.dropout),
            nn.Conv2d(config.channels, settings.conv, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(cells, settings.dense),
            nn.Tanh(),
            nn.Linear(settings.dense, 2 * settings.z),  # mean and log sigma
        )
        self.decoder = nn.Sequential(
            nn.Linear(settings.z, settings.dense),
            nn.Tanh(),
            nn.Linear(settings.dense, cells),
            nn.Tanh(),
            nn.Unflatten(1, (settings.conv, height, width)),
            nn.Conv2d(settings.conv, config.channels, 3, padding=1),  # logits
        )
        # Glorot & Bengio 2010, for tanh: with PyTorch's smaller initial weights, the latent vectors stay unused
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter("bias"))

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(frames).float().chunk(2, dim=1)
        return mean, bounded(raw)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z).float().sigmoid()

    def phases(self) -> list[Phase]:
        settings = self.settings
        optimizer = torch.optim.Adam(self.parameters(), settings.learning_rate, fused=True)
        return [
            Phase(
                "vcae",
                settings.iterations,
                self.windows,
                settings.batch_size,
                step_of(lambda batch: self._losses(batch, settings.samples)),
                {"optimizer": optimizer},
                val=lambda batch: self._losses(batch, samples=0)["loss"],
                predict_step=self.predict_step,
            )
        ]

    def _losses(self, batch: Batch, samples: int) -> dict[str, Tensor]:
        """VAE loss, nats per frame. samples: latent vectors sampled per frame; 0: use the mean (deterministic)."""
        frames = batch.frames[:, 0]
        mean, log_sigma = self.encode(frames)
        points = [draw(mean, log_sigma) for _ in range(samples)] or [mean]
        logits = self.decoder(torch.cat(points)).float()
        likelihood = F.binary_cross_entropy_with_logits(logits, frames.repeat(len(points), 1, 1, 1), reduction="none")
        likelihood = likelihood.sum((1, 2, 3)).mean()
        divergence = divergence_from_standard(mean, log_sigma).mean()
        return {"loss": likelihood + divergence, "likelihood": likelihood, "divergence": divergence}
