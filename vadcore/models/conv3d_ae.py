"""3D convolutional autoencoder: encodes a window of frames to a single latent vector."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Windows
from vadcore.models import register_model
from vadcore.models.base import Autoencoder, AutoencoderConfig, MapScore, check_sides
from vadcore.models.components.mean_image import MeanImage
from vadcore.utils.schema import Size

SHRINK = 16  # downsampling factor of the four convolutions with stride 2, in time, height and width


class Conv3dConfig(AutoencoderConfig):
    """Defaults are the published values."""

    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "step")

    image_size: Size = (128, 128)
    frames: PositiveInt = 16  # window length
    strides: tuple[PositiveInt, ...] = Field(default=(1,), min_length=1)  # frame strides in training
    conv: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)  # channels of the encoder
    z: PositiveInt = 128  # latent dimension of a window
    batch_size: PositiveInt = 16
    iterations: PositiveInt = 5_000
    learning_rate: PositiveFloat = 1e-4
    weight_decay: float = Field(default=0.0, ge=0)
    step: PositiveInt = 1  # distance between the starts of scoring windows
    score: Literal["mse", "max_patch_mse"] | MapScore = "mse"  # squared error of the whole frame, or of its worst block

    @property
    def grid(self) -> tuple[int, int, int]:
        """Shape of the encoder output ``(T, H, W)``."""
        return self.frames // SHRINK, self.image_size[0] // SHRINK, self.image_size[1] // SHRINK

    @model_validator(mode="after")
    def _size_fits(self):
        check_sides(self.image_size, SHRINK)
        if self.frames % SHRINK:
            near = max(SHRINK, round(self.frames / SHRINK) * SHRINK)
            raise ValueError(f"frames {self.frames}: must be a multiple of {SHRINK}, such as {near}")
        if self.batch_size == 1 and self.grid == (1, 1, 1):
            raise ValueError("batch_size 1: BatchNorm has no variance of a single value a channel; set 2 or more")
        return self


@register_model("conv3d_ae", Conv3dConfig)
class Conv3dAutoencoder(Autoencoder):
    """Reconstruct a window of frames from one latent vector. The score is the squared reconstruction error.

    In distributed training, each process computes BatchNorm statistics over its share of the batch. The number of processes
    therefore changes the result slightly.
    """

    config: Conv3dConfig
    sampling = "clips"  # a random clip, then a random start

    def __init__(self, config: Conv3dConfig):
        super().__init__(config)
        self.mean_image = MeanImage(config.channels, config.image_size, subtract=False)
        self.windows = Windows(config.frames, config.strides, judged=tuple(range(config.frames)), step=config.step)
        deepest = config.conv[-1]
        cells = deepest * config.grid[0] * config.grid[1] * config.grid[2]

        encoder: list[nn.Module] = []
        for a, b in pairwise((config.channels, *config.conv)):
            encoder += [nn.Conv3d(a, b, 4, stride=2, padding=1, bias=False), nn.BatchNorm3d(b), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*encoder)  # [B, C, T, H, W] -> [B, conv[-1], T/16, H/16, W/16]
        self.to_latent = nn.Sequential(nn.Flatten(), nn.Linear(cells, config.z), nn.ReLU(inplace=True))
        self.from_latent = nn.Sequential(
            nn.Linear(config.z, cells), nn.ReLU(inplace=True), nn.Unflatten(1, (deepest, *config.grid))
        )
        decoder: list[nn.Module] = []
        for a, b in pairwise((*reversed(config.conv), config.channels)):
            decoder.append(nn.ConvTranspose3d(a, b, 4, stride=2, padding=1, bias=False))
            decoder += [nn.BatchNorm3d(b), nn.ReLU(inplace=True)]
        decoder[-2:] = [nn.Tanh()]  # in place of the last BatchNorm and ReLU
        self.decoder = nn.Sequential(*decoder)  # [B, conv[-1], T/16, H/16, W/16] -> [B, C, T, H, W]

    def encode(self, x: Tensor) -> Tensor:
        """Encode windows ``[B, T, C, H, W]`` in -1..1 to latent vectors ``[B, z]``."""
        return self.to_latent(self.encoder(x.transpose(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``x`` ``[B, T, C, H, W]`` in -1..1. Every output frame depends on all input frames."""
        return self.decoder(self.from_latent(self.encode(x))).transpose(1, 2).float()
