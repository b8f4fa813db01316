"""ConvLSTM autoencoder: Chong & Tay 2017, "Abnormal Event Detection in Videos using Spatiotemporal Autoencoder"."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Autoencoder, AutoencoderConfig, MapScore, Prediction, check_sides
from vadcore.models.components.mean_image import MeanImage
from vadcore.utils.schema import Size

SHRINK = 8  # downsampling factor of the two convolutions, strides 4 and 2


class ConvLSTMConfig(AutoencoderConfig):
    """Defaults are the published values. Adam's learning rate of 1e-4 is as commonly given for the paper."""

    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "step")

    image_size: Size = (256, 256)
    frames: PositiveInt = Field(default=10, ge=2)  # window length
    # frame strides in training; the published result needs more than stride 1
    strides: tuple[PositiveInt, ...] = Field(default=(1, 2, 3, 4), min_length=1)
    conv: tuple[PositiveInt, PositiveInt] = (128, 64)  # channels of the spatial encoder
    lstm: tuple[PositiveInt, ...] = (64, 32, 64)  # channels of the ConvLSTM layers; the last feeds the decoder
    batch_size: PositiveInt = 8
    iterations: PositiveInt = 20_000
    learning_rate: PositiveFloat = 1e-4
    subtract_mean: bool = True  # subtract the mean training frame, as in the paper; only moving objects remain
    weight_decay: float = Field(default=0.0, ge=0)
    step: PositiveInt = 1  # distance between the starts of scoring windows
    # src: summed error of the window that starts at the frame (as published); mse: error of the frame itself, averaged
    # over all windows that contain it, so that the last frames of a clip have scores too;
    # max_patch_mse: squared error of the worst block
    score: Literal["src", "mse", "max_patch_mse"] | MapScore = "src"

    @model_validator(mode="after")
    def _size_fits(self):
        check_sides(self.image_size, SHRINK)
        if self.score == "src" and self.step != 1:
            raise ValueError(f"step {self.step}: score src belongs to the frame a window starts at; set step to 1")
        return self


class ConvLSTM(nn.Module):
    """ConvLSTM layer (Shi et al. 2015) without peepholes: ``[B, T, C, H, W]`` to hidden states ``[B, T, hidden, H, W]``."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        # one convolution over the inputs of all frames; only the recurrent part is sequential
        self.from_input = nn.Conv2d(channels, 4 * hidden, 3, padding=1)
        self.from_state = nn.Conv2d(hidden, 4 * hidden, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t = x.shape[:2]
        driven = self.from_input(x.flatten(0, 1)).unflatten(0, (b, t))  # [B, T, 4*hidden, H, W]
        state = cell = None
        states = []
        for gates in driven.unbind(1):  # unbind: driven[:, step] would make a gradient of the full size at every step
            if state is not None:
                gates = gates + self.from_state(state)
            i, f, o, g = gates.chunk(4, dim=1)  # [B, hidden, H, W] each
            fresh = torch.sigmoid(i) * torch.tanh(g)
            cell = fresh if cell is None else torch.sigmoid(f) * cell + fresh
            state = torch.sigmoid(o) * torch.tanh(cell)
            states.append(state)
        return torch.stack(states, dim=1)


@register_model("convlstm_ae", ConvLSTMConfig)
class ConvLSTMAutoencoder(Autoencoder):
    """Reconstruct a window of frames with strided convolutions per frame and ConvLSTM layers over time.

    The score is the reconstruction error e(t) = ||I(t) - f(I)(t)||_2 over the pixels, summed over the window.
    """

    config: ConvLSTMConfig

    def __init__(self, config: ConvLSTMConfig):
        super().__init__(config)
        self.windows = Windows(config.frames, config.strides, judged=tuple(range(config.frames)), step=config.step)
        self.mean_image = MeanImage(config.channels, config.image_size, config.subtract_mean)
        first, second = config.conv
        self.encoder = nn.Sequential(
            nn.Conv2d(config.channels, first, 11, stride=4, padding=5),  # [.., first, H/4, W/4]
            nn.Tanh(),
            nn.Conv2d(first, second, 5, stride=2, padding=2),  # [.., second, H/8, W/8]
            nn.Tanh(),
        )
        widths = (second, *config.lstm)
        self.temporal = nn.Sequential(*(ConvLSTM(a, b) for a, b in pairwise(widths)))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(config.lstm[-1], first, 5, stride=2, padding=2, output_padding=1),
            nn.Tanh(),
            nn.ConvTranspose2d(first, config.channels, 11, stride=4, padding=5, output_padding=3),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct normalised windows ``x`` ``[B, T, C, H, W]``."""
        b, t = x.shape[:2]
        z = self.encoder(x.flatten(0, 1)).unflatten(0, (b, t))
        z = self.temporal(z)  # [B, T, lstm[-1], H/8, W/8]
        return self.decoder(z.flatten(0, 1)).unflatten(0, (b, t)).float()

    def predict_step(self, batch: Batch) -> Prediction:
        judged = super().predict_step(batch)
        pixels = batch.frames[0, 0].numel()
        cost = (judged.measures["mse"] * pixels).sqrt()  # e(t), [B, T]
        src = torch.full_like(cost, torch.nan)
        src[:, 0] = cost.sum(1)  # score of the first frame of the window
        judged.measures["src"] = src
        return judged
