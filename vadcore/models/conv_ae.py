"""Convolutional autoencoder: Hasan et al. 2016, "Learning Temporal Regularity in Video Sequences"."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Autoencoder, AutoencoderConfig, MapScore
from vadcore.models.components.mean_image import MeanImage
from vadcore.utils.schema import Size

KERNEL, STRIDE = 11, 4  # of the first convolution, without padding
LEAST = 23  # smallest side whose output after the second pooling is not empty


class ConvAEConfig(AutoencoderConfig):
    """Defaults are the published values. Optimizer, learning rate and weight decay are as commonly given for the paper.

    With that learning rate the first steps of Adagrad overwrite the initial weights. Use Adam for trainings of minutes.
    """

    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "step")

    image_size: Size = (227, 227)
    frames: PositiveInt = Field(default=10, ge=2)  # window length; frames are stacked as channels
    strides: tuple[PositiveInt, ...] = Field(default=(1, 2, 3), min_length=1)  # frame strides in training
    conv: tuple[PositiveInt, PositiveInt, PositiveInt] = (512, 256, 128)  # channels of the encoder
    subtract_mean: bool = True  # subtract the mean training frame; false: rescale to -1..1
    batch_size: PositiveInt = 32
    iterations: PositiveInt = 20_000
    optimizer: Literal["adagrad", "adam"] = "adagrad"
    learning_rate: PositiveFloat = 0.01
    weight_decay: float = Field(default=0.0005, ge=0)
    step: PositiveInt = 1  # distance between the starts of scoring windows
    # norm: Euclidean norm of the error over the colours of a pixel, mean over pixels (the paper sums: same ranking);
    # mse: mean squared error; max_patch_mse: squared error of the worst block
    score: Literal["norm", "mse", "max_patch_mse"] | MapScore = "norm"

    @model_validator(mode="after")
    def _size_fits(self):
        if any(side < LEAST or (side - KERNEL) % STRIDE for side in self.image_size):
            near = [max(LEAST, KERNEL + STRIDE * round((side - KERNEL) / STRIDE)) for side in self.image_size]
            raise ValueError(
                f"image_size {list(self.image_size)}: sides must be {KERNEL} and a multiple of {STRIDE}, at least {LEAST}, "
                f"such as {near}"
            )
        return self


class SubpixelConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution as one convolution and a pixel shuffle: same parameters and result as ``nn.ConvTranspose2d``.

    ``[B, C, H, W]`` to ``[B, C', (H - 1) * stride + kernel, ...]``. For few output channels, PyTorch has no fast kernel in
    bfloat16 on CPU: its forward pass was measured to take 25 times as long.
    """

    bias: Tensor

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        kernel, stride, (h, w) = self.kernel_size[0], self.stride[0], input.shape[2:]
        taps = -(-kernel // stride)  # input pixels per output pixel, along one side
        spare = taps * stride - kernel
        weight = F.pad(self.weight, (0, spare, 0, spare))  # [C, C', taps * stride, taps * stride]
        weight = weight.unflatten(3, (taps, stride)).unflatten(2, (taps, stride)).flip(2, 4)
        weight = weight.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # [C' * stride * stride, C, taps, taps]
        y = F.pixel_shuffle(F.conv2d(input, weight, padding=taps - 1), stride)
        return y[..., : (h - 1) * stride + kernel, : (w - 1) * stride + kernel] + self.bias[:, None, None]


@register_model("conv_ae", ConvAEConfig)
class ConvAutoencoder(Autoencoder):
    """Convolutional autoencoder with pooling that reconstructs a window of frames, stacked as channels.

    Unpooling uses the indices of the pooling. The score is the reconstruction error of a frame, averaged over all windows
    that contain the frame.
    """

    config: ConvAEConfig

    def __init__(self, config: ConvAEConfig):
        super().__init__(config)
        self.windows = Windows(config.frames, config.strides, judged=tuple(range(config.frames)), step=config.step)
        self.mean_image = MeanImage(config.channels, config.image_size, config.subtract_mean)
        stacked = config.frames * config.channels
        first, second, third = config.conv
        self.conv1 = nn.Conv2d(stacked, first, KERNEL, stride=STRIDE)  # 227 -> 55
        self.conv2 = nn.Conv2d(first, second, 5, padding=2)  # at 27
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)  # at 13
        self.deconv3 = nn.ConvTranspose2d(third, second, 3, padding=1)
        self.deconv2 = nn.ConvTranspose2d(second, first, 5, padding=2)
        self.deconv1 = SubpixelConvTranspose2d(first, stacked, KERNEL, stride=STRIDE)
        for layer in (self.conv1, self.conv2, self.conv3, self.deconv3, self.deconv2, self.deconv1):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))

    def encode(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, torch.Size]]]:
        """Encode stacked frames ``[B, T*C, H, W]`` to ``[B, conv[2], h, w]``.

        Also returns, for each pooling, the indices of the maxima and the size of its input.
        """
        wide = torch.tanh(self.conv1(x))  # [B, conv[0], h1, w1]
        pooled, from_wide = F.max_pool2d(wide, 2, return_indices=True)
        middle = torch.tanh(self.conv2(pooled))  # [B, conv[1], h1 // 2, w1 // 2]
        pooled, from_middle = F.max_pool2d(middle, 2, return_indices=True)
        return torch.tanh(self.conv3(pooled)), [(from_wide, wide.shape[2:]), (from_middle, middle.shape[2:])]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct normalised windows ``x`` ``[B, T, C, H, W]``."""
        z, (wide, middle) = self.encode(x.flatten(1, 2))
        y = F.max_unpool2d(torch.tanh(self.deconv3(z)), middle[0], (2, 2), output_size=middle[1])
        y = F.max_unpool2d(torch.tanh(self.deconv2(y)), wide[0], (2, 2), output_size=wide[1])
        return torch.tanh(self.deconv1(y)).view(x.shape).float()

    def optimizer(self) -> torch.optim.Optimizer:
        if self.config.optimizer == "adam":
            return super().optimizer()
        return torch.optim.Adagrad(self.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay)

    def measures(self, rebuilt: Tensor, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        measures, maps = super().measures(rebuilt, x)
        norm = (rebuilt - x).square().sum(2).sqrt().mean((2, 3)) / self.mean_image.span  # [B, T]
        return measures | {"norm": norm}, maps

    def loss(self, batch: Batch) -> Tensor:
        """Half the squared Euclidean distance between a window and its reconstruction, mean over the batch."""
        x = self.as_seen(batch)
        return (self(x) - x).square().sum() / (2 * len(x))
