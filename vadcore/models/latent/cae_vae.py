"""Front end for natural footage: convolutional autoencoder, variational autoencoder and deconvolution network.

The VAE encodes the features of the convolutional autoencoder. The deconvolution network decodes features to frames. Frame ->
features -> latent vector -> features -> frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from vadcore.data.windows import Batch
from vadcore.models.base import FixedSizeConfig, Phase, Prediction, step_of
from vadcore.models.latent.front_end import FrontEnd
from vadcore.models.latent.gaussians import bounded, divergence_from_standard, draw
from vadcore.utils.schema import Section

SHRINK = 2  # downsampling factor of the pooling


class CAEVAEConfig(Section):
    """Defaults are the published values. The lengths of the phases are not published."""

    name: Literal["cae_vae"]
    conv: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 32, 32)  # channels; kernel sizes 5, 3 and 3
    dropout: float = Field(default=0.2, ge=0, lt=1)  # before each layer of the convolutional autoencoder
    dense: PositiveInt = 512  # width of the bottleneck of the convolutional autoencoder
    vae_dense: PositiveInt = 1500
    z: PositiveInt = 256
    samples: PositiveInt = 2  # latent vectors sampled per frame in the loss
    clip_norm: PositiveFloat = 10.0  # largest gradient norm, for the convolutional autoencoder
    batch_size: PositiveInt = 128
    cae_iterations: PositiveInt = 5_000
    vae_iterations: PositiveInt = 5_000
    deconv_iterations: PositiveInt = 5_000
    cae_learning_rate: PositiveFloat = 1e-3
    vae_learning_rate: PositiveFloat = 1e-5
    deconv_learning_rate: PositiveFloat = 3e-3


class CAEVAE(FrontEnd):
    """Frame autoencoder trained in three phases.

    1. The convolutional autoencoder. 2. The VAE on its frozen features. 3. The deconvolution network, features to frames.
    """

    def __init__(self, config: FixedSizeConfig, settings: CAEVAEConfig):
        super().__init__(config)
        self.settings, self.z = settings, settings.z
        height, width = (side // SHRINK for side in config.image_size)
        first, second, last = settings.conv
        self.grid = (last, height, width)  # shape of the features
        cells = last * height * width
        dropout = settings.dropout
        self.features = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(config.channels, first, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(SHRINK),
            nn.Dropout(dropout),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(second, last, 3, padding=1),
            nn.ReLU(),
        )
        self.bottleneck = nn.Sequential(
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(cells, settings.dense),
            nn.ReLU(),
            nn.Linear(settings.dense, cells),
            nn.ReLU(),
            nn.Unflatten(1, self.grid),
        )
        self.cae_decoder = _to_frames(settings.conv, config.channels)
        self.vae_encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(cells, settings.vae_dense),
            nn.Softplus(),
            nn.Linear(settings.vae_dense, 2 * settings.z),
        )
        self.vae_decoder = nn.Sequential(
            nn.Linear(settings.z, settings.vae_dense), nn.Softplus(), nn.Linear(settings.vae_dense, cells)
        )
        self.deconv = _to_frames(settings.conv, config.channels)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self._encode(self.features(frames))

    def _encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.vae_encoder(features).float().chunk(2, dim=1)
        return mean, bounded(raw)

    def decode(self, z: Tensor) -> Tensor:
        return self.deconv(self._features_of(z)).float().clamp(0, 1)

    def _features_of(self, z: Tensor) -> Tensor:
        """Decode latent vectors ``[N, z]`` to features ``[N, *grid]``, float32."""
        return self.vae_decoder(z).float().unflatten(1, self.grid)

    def phases(self) -> list[Phase]:
        first = [self.features, self.bottleneck, self.cae_decoder]
        return [
            self._phase("cae", first, self._autoencode, self._judge_autoencoder),
            self._phase("vae", [self.vae_encoder, self.vae_decoder], self._reduce, self._judge_features),
            self._phase("deconv", [self.deconv], self._draw, self.predict_step),
        ]

    def _phase(
        self,
        name: str,
        modules: Sequence[nn.Module],
        loss: Callable[[Batch, int], dict[str, Tensor]],
        predict_step: Callable[[Batch], Prediction],
    ) -> Phase[Batch]:
        """Create the phase that trains ``modules``. Its settings are called ``<name>_iterations`` and so on."""
        settings = self.settings
        parameters = [p for module in modules for p in module.parameters()]

        def begin() -> None:
            self.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            self._learning = name
            self.train(self.training)

        return Phase(
            name,
            getattr(settings, f"{name}_iterations"),
            self.windows,
            settings.batch_size,
            step_of(lambda batch: loss(batch, settings.samples)),
            {"optimizer": torch.optim.Adam(parameters, getattr(settings, f"{name}_learning_rate"), fused=True)},
            clip_norm={"optimizer": settings.clip_norm} if name == "cae" else {},
            val=lambda batch: loss(batch, 0)["loss"],
            begin=begin,
            predict_step=predict_step,
        )

    _learning = "cae"

    def train(self, mode: bool = True) -> CAEVAE:
        """Set the training mode. Dropout is active in the first phase only: later phases use fixed features."""
        super().train(mode)
        if self._learning != "cae":
            self.features.eval()
        return self

    def _autoencode(self, batch: Batch, samples: int) -> dict[str, Tensor]:
        rebuilt = self.cae_decoder(self.bottleneck(self.features(batch.frames[:, 0]))).float()
        return {"loss": F.mse_loss(rebuilt, batch.frames[:, 0])}

    def _reduce(self, batch: Batch, samples: int) -> dict[str, Tensor]:
        """VAE loss on features, in nats per frame divided by the number of features (thousands).

        Sigma of the Gaussian likelihood is the root mean squared error of the batch, the maximum-likelihood value (Rybkin et
        al. 2021, "Simple and Effective VAE Training with Calibrated Decoders"). With a sigma that is too large at the start,
        the latent vectors stay unused (posterior collapse).
        """
        with torch.no_grad():
            features = self.features(batch.frames[:, 0]).float()
        mean, log_sigma = self._encode(features)
        points = [draw(mean, log_sigma) for _ in range(samples)] or [mean]
        known = features.flatten(1).repeat(len(points), 1)
        drawn = self._features_of(torch.cat(points)).flatten(1)
        likelihood = (math.log(2 * math.pi * math.e) + (known - drawn).square().mean().clamp(min=1e-12).log()) / 2
        divergence = divergence_from_standard(mean, log_sigma).mean() / known.shape[1]
        return {"loss": likelihood + divergence, "likelihood": likelihood, "divergence": divergence}

    def _draw(self, batch: Batch, samples: int) -> dict[str, Tensor]:
        """Loss of the deconvolution network. Its input is features decoded from latent vectors, as in inference."""
        frames = batch.frames[:, 0]
        with torch.no_grad():
            features = self._features_of(self.encode(frames)[0])
        return {"loss": F.mse_loss(self.deconv(features).float(), frames)}

    def _judge_autoencoder(self, batch: Batch) -> Prediction:
        rebuilt = self.cae_decoder(self.bottleneck(self.features(batch.frames[:, 0])))[:, None].float().clamp(0, 1)
        return Prediction({}, rebuilt.new_zeros(0), lambda: rebuilt)

    def _judge_features(self, batch: Batch) -> Prediction:
        """Show features as pictures: mean over the channels, scaled to a maximum of 1."""
        features = self.features(batch.frames[:, 0]).float()
        rebuilt = self._features_of(self._encode(features)[0])
        high = features.mean(1).amax((1, 2)).clamp(min=1e-6)[:, None, None, None, None]

        def picture(of: Tensor) -> Tensor:
            return (of.mean(1)[:, None, None] / high).clamp(0, 1)  # [B, 1, 1, H/2, W/2]

        return Prediction({}, rebuilt.new_zeros(0), lambda: picture(rebuilt), lambda: picture(features))


def _to_frames(conv: tuple[int, int, int], channels: int) -> nn.Sequential:
    """Build a decoder from features ``[N, conv[2], H/2, W/2]`` to frames ``[N, C, H, W]``.

    The output is not limited to 0..1. On nearly black footage a sigmoid would saturate at black and stop the gradient.
    """
    first, second, last = conv
    return nn.Sequential(
        nn.Conv2d(last, second, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(second, first, 2, stride=2),
        nn.ReLU(),
        nn.Conv2d(first, channels, 5, padding=2),
    )
