"""GRU autoencoder: encode each frame to a latent vector, run a GRU over them, decode each frame from the GRU state."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Windows
from vadcore.models import register_model
from vadcore.models.base import Autoencoder, AutoencoderConfig, MapScore, check_sides
from vadcore.models.components.mean_image import MeanImage
from vadcore.utils.schema import Size

SHRINK = 16  # downsampling factor of the four convolutions with stride 2


class GRUConfig(AutoencoderConfig):
    """Defaults are the published values.

    For comparison with the 3D-CNN: image_size [128, 128], frames 16, z 128, 5 000 iterations.
    """

    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "step")

    image_size: Size = (64, 64)
    frames: PositiveInt = Field(default=4, ge=2)  # window length
    strides: tuple[PositiveInt, ...] = Field(default=(1,), min_length=1)  # frame strides in training
    # channels of the frame encoder; the first layer keeps height and width, the others halve them
    conv: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128, 256, 512)
    z: PositiveInt = 64  # latent dimension of a frame
    hidden: PositiveInt = 100  # dimension of the GRU state
    # GRU state before the first frame. normal: drawn from N(0, 1) at every training step, zeros when scoring; learned:
    # one trained state for all windows
    initial_state: Literal["normal", "zeros", "learned"] = "normal"
    batch_size: PositiveInt = 16
    iterations: PositiveInt = 10_000
    learning_rate: PositiveFloat = 1e-4
    weight_decay: float = Field(default=1e-5, ge=0)
    step: PositiveInt = 1  # distance between the starts of scoring windows
    score: Literal["mse", "max_patch_mse"] | MapScore = "mse"  # squared error of the whole frame, or of its worst block

    @model_validator(mode="after")
    def _size_fits(self):
        check_sides(self.image_size, SHRINK)
        return self


@register_model("gru_ae", GRUConfig)
class GRUAutoencoder(Autoencoder):
    """Reconstruct each frame of a window from the GRU state after the latent vectors up to that frame.

    The score is the squared reconstruction error. In distributed training, each process computes BatchNorm statistics and
    draws initial states for its share of the batch. The number of processes therefore changes the result slightly.
    """

    config: GRUConfig
    sampling = "clips"  # a random clip, then a random start

    def __init__(self, config: GRUConfig):
        super().__init__(config)
        self.mean_image = MeanImage(config.channels, config.image_size, subtract=False)
        self.windows = Windows(config.frames, config.strides, judged=tuple(range(config.frames)), step=config.step)
        deepest = config.conv[-1]
        grid = (config.image_size[0] // SHRINK, config.image_size[1] // SHRINK)
        cells = deepest * grid[0] * grid[1]

        encoder: list[nn.Module] = []
        for depth, (a, b) in enumerate(pairwise((config.channels, *config.conv))):
            last = depth == len(config.conv) - 1
            encoder.append(nn.Conv2d(a, b, 3, stride=2 if depth else 1, padding=1, bias=False))
            encoder += [nn.ReLU(inplace=True)] if last else [nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*encoder)  # [N, C, H, W] -> [N, conv[-1], H/16, W/16]
        self.to_latent = nn.Linear(cells, config.z)

        self.gru = nn.GRU(config.z, config.hidden, batch_first=True)
        if config.initial_state == "learned":
            self.initial = nn.Parameter(torch.zeros(config.hidden))

        self.from_state = nn.Sequential(nn.Linear(config.hidden, cells), nn.Unflatten(1, (deepest, *grid)))
        decoder: list[nn.Module] = []
        for a, b in pairwise(reversed(config.conv)):
            decoder.append(nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1, bias=False))
            decoder += [nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        decoder += [nn.Conv2d(config.conv[0], config.channels, 3, padding=1, bias=False), nn.Tanh()]
        self.decoder = nn.Sequential(*decoder)  # [N, conv[-1], H/16, W/16] -> [N, C, H, W]
        # same result in two thirds of the time, measured on CPU; torch's type of Module.to lacks memory_format
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> Tensor:
        """Encode each frame of ``[B, T, C, H, W]`` in -1..1 to a latent vector, ``[B, T, z]``."""
        b, t = x.shape[:2]
        return self.to_latent(self.encoder(x.flatten(0, 1)).flatten(1)).unflatten(0, (b, t))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``x`` ``[B, T, C, H, W]`` in -1..1. Output frame t depends on the frames up to t."""
        b, t = x.shape[:2]
        z = self.encode(x)
        # float32: rounding errors add up over time, and this small layer is no faster in bfloat16
        with torch.autocast(x.device.type, enabled=False):
            states, _ = self.gru(z.float(), self._initial_state(b))  # [B, T, hidden]
        return self.decoder(self.from_state(states.flatten(0, 1))).unflatten(0, (b, t)).float()

    def _initial_state(self, b: int) -> Tensor:
        """Initial GRU state ``[1, b, hidden]``. Noise comes from torch's generator, whose state is in the checkpoint."""
        shape, device = (1, b, self.config.hidden), self.to_latent.weight.device
        if self.config.initial_state == "learned":
            return self.initial.expand(shape).contiguous()
        if self.config.initial_state == "normal" and self.training:
            return torch.randn(shape, device=device)
        return torch.zeros(shape, device=device)
