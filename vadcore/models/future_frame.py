"""Future frame prediction: Liu et al. 2018, "Future Frame Prediction for Anomaly Detection - A New Baseline".

A U-Net predicts the next frame from the previous ones. A large prediction error indicates an anomaly.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.flow.flownet import Enlarge, FlowNetSD, flow_between, load_flownet, seen_size
from vadcore.models import register_model
from vadcore.models.base import FixedSizeConfig, MapScore, Model, Phase, Prediction, Update, check_sides, stored_flow
from vadcore.models.components.error_maps import frame_errors, gradient_error, highest_box
from vadcore.utils.errors import VadError
from vadcore.utils.schema import Size

SHRINK = 8  # downsampling factor of the three poolings
LOSSES = ("intensity", "gradient", "adversarial", "flow")  # loss terms of the generator
LEAST = 32  # smallest side; the discriminator output then has 2 patches per side


class FutureFrameConfig(FixedSizeConfig):
    """Defaults are the published values for grey footage. A loss weight of 0 switches the loss off."""

    needs_flow: ClassVar[bool] = True

    image_size: Size = (256, 256)
    frames: PositiveInt = 4  # number of input frames
    # channels of the U-Net's levels
    conv: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
    batch_norm: bool = False  # BatchNorm in the U-Net; used by a known re-implementation, not by the original
    discriminator: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (128, 256, 512, 512)  # channels
    intensity: NonNegativeFloat = 1.0  # weight of the intensity loss
    gradient: NonNegativeFloat = 1.0  # weight of the gradient difference loss
    flow: NonNegativeFloat = 2.0  # weight of the optical flow loss
    adversarial: NonNegativeFloat = 0.05  # weight of the adversarial loss
    # file with the FlowNet weights for the flow to the predicted frame, as optical_flow.weights; null: do not compute it
    flownet: str | None = "weights/flownet.safetensors"
    flownet_width: PositiveFloat = 0.25  # width of the network in that file; published: 1
    # upscaling of FlowNet's input, as optical_flow.enlarge; published: input of 384 x 512
    flow_enlarge: Enlarge = (1.5, 2)
    batch_size: PositiveInt = 4
    iterations: PositiveInt = 80_000
    learning_rate: PositiveFloat = 1e-4
    learning_rate_discriminator: PositiveFloat = 1e-5
    drop_at: PositiveInt | None = None  # iteration at which both learning rates drop to a tenth
    score: Literal["psnr", "mse", "max_patch_mse", "flow", "gradient_box"] | MapScore = "psnr"

    @property
    def files(self) -> tuple[str, ...]:
        return (self.flownet,) if self.flownet else ()

    @property
    def flow_made_by(self) -> dict:
        if not self.flownet:
            return {}
        seen = {"size": list(self.image_size), "enlarge": list(self.flow_enlarge)}
        return {"estimator": "flownet", "weights": self.flownet, **seen}

    @property
    def facts(self) -> dict[str, str | int | float]:
        return {"losses": " + ".join(name for name in LOSSES if getattr(self, name))}

    @model_validator(mode="after")
    def _fits(self):
        check_sides(self.image_size, SHRINK)
        if min(self.image_size) < LEAST:
            raise ValueError(f"image_size {list(self.image_size)}: sides must be at least {LEAST}")
        if not self.intensity + self.gradient:
            raise ValueError("intensity 0 and gradient 0: predictions would not resemble the frame; set one of them")
        if self.flow and not self.flownet:
            raise ValueError(f"flow {self.flow}: needs flownet, a file of FlowNet weights; name one or set flow to 0")
        if self.score == "flow" and not self.flownet:
            raise ValueError("score flow: needs flownet, a file of FlowNet weights; name one")
        return self


class UNet(nn.Module):
    """U-Net with skip connections: ``[B, before, H, W]`` to ``[B, after, H, W]`` in -1..1."""

    def __init__(self, before: int, after: int, channels: tuple[int, ...], batch_norm: bool):
        super().__init__()

        def double(a: int, b: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for inner in (a, b):
                layers.append(nn.Conv2d(inner, b, 3, padding=1))
                layers += [nn.BatchNorm2d(b)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(double(a, b) for a, b in pairwise((before, *channels)))
        upwards = list(pairwise(reversed(channels)))
        self.raise_ = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upwards)
        self.up = nn.ModuleList(double(2 * b, b) for _, b in upwards)
        self.last = nn.Conv2d(channels[0], after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for level, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if level else x)
            seen.append(x)
        for raise_, layer, skip in zip(self.raise_, self.up, reversed(seen[:-1]), strict=True):
            x = layer(torch.cat((skip, raise_(x)), dim=1))
        return torch.tanh(self.last(x))


def patch_discriminator(before: int, channels: tuple[int, ...]) -> nn.Sequential:
    """Build a patch discriminator: ``[B, before, H, W]`` to one value per patch, ``[B, 1, h, w]`` in 0..1; 1 = real."""
    layers: list[nn.Module] = []
    for depth, (a, b) in enumerate(pairwise((before, *channels))):
        last = depth == len(channels) - 1
        layers += [nn.Conv2d(a, b, 4, stride=1 if last else 2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, padding=1), nn.Sigmoid())


def gradient_difference(shown: Tensor, frames: Tensor) -> Tensor:
    """Gradient difference loss of pictures ``[B, C, H, W]``: mean of ``| |dx frames| - |dx shown| |``, plus that of dy.

    dx and dy are differences of neighbouring pixels, zero-padded at the border to one value per pixel. Mathieu et al. 2016,
    "Deep Multi-Scale Video Prediction beyond Mean Square Error", with exponent 1.
    """
    loss = frames.new_zeros(())
    for axis, pad in ((3, (0, 1, 0, 0)), (2, (0, 0, 0, 1))):
        steep = [F.pad(picture, pad).diff(dim=axis).abs() for picture in (shown, frames)]
        loss = loss + (steep[1] - steep[0]).abs().mean()
    return loss


def least_squares(verdict: Tensor, wanted: float) -> Tensor:
    """LSGAN loss: half the mean squared distance of a discriminator output from the target (Mao et al. 2017)."""
    return (verdict - wanted).square().mean() / 2


@register_model("future_frame", FutureFrameConfig)
class FutureFrame(Model):
    """Predict the next frame with a U-Net, trained with intensity, gradient, optical flow and adversarial losses.

    The flow loss compares two flows from the last input frame: the stored flow to the true next frame, and the flow to the
    predicted frame, which a frozen FlowNet computes and which passes gradients to the U-Net. The score is the negative PSNR
    of the prediction in dB.
    """

    config: FutureFrameConfig

    def __init__(self, config: FutureFrameConfig):
        super().__init__(config)
        self.windows = Windows(config.frames + 1, judged=(config.frames,), flow=True)
        self.generator = UNet(config.frames * config.channels, config.channels, config.conv, config.batch_norm)
        self.discriminator = patch_discriminator(config.channels, config.discriminator)
        # weights are loaded when training begins, and saved with the trained model
        self.flownet = FlowNetSD(config.flownet_width).eval().requires_grad_(False) if config.flownet else None
        # a training step takes a third less time on CPU; torch's type of Module.to lacks memory_format
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> FutureFrame:
        super().train(mode)
        if self.flownet is not None:
            self.flownet.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Predict the next frame ``[B, C, H, W]`` from frames ``[B, T, C, H, W]``, both in -1..1."""
        return self.generator(x.flatten(1, 2)).float()

    def phases(self) -> list[Phase]:
        config = self.config
        optimizers: dict[str, torch.optim.Optimizer]
        optimizers = {"generator": torch.optim.Adam(self.generator.parameters(), config.learning_rate, fused=True)}
        if config.adversarial:
            rate = config.learning_rate_discriminator
            optimizers["discriminator"] = torch.optim.Adam(self.discriminator.parameters(), rate, fused=True)
        schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}
        if config.drop_at:
            schedulers = {
                name: torch.optim.lr_scheduler.MultiStepLR(optimizer, [config.drop_at], gamma=0.1)
                for name, optimizer in optimizers.items()
            }
        return [
            Phase(
                "future_frame",
                config.iterations,
                self.windows,
                config.batch_size,
                self._step,
                optimizers,
                schedulers,
                val=self._val,
                begin=self._read_flownet,
                sampling="clips",
            )
        ]

    def _read_flownet(self) -> None:
        if self.flownet is not None and self.config.flownet is not None:
            trained = load_flownet(self.config.flownet)
            if trained.width != self.flownet.width:
                raise VadError(
                    f"{self.config.flownet}: FlowNet of width {trained.width:g}, but flownet_width is "
                    f"{self.flownet.width:g}; set it to {trained.width:g}"
                )
            self.flownet.load_state_dict(trained.state_dict())

    def _step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        config = self.config
        x = batch.frames * 2 - 1
        true = x[:, -1]
        predicted = self(x[:, :-1])
        losses: dict[str, Tensor] = {}
        if config.adversarial:
            self.discriminator.requires_grad_(True)
            real, fake = self.discriminator(true).float(), self.discriminator(predicted.detach()).float()
            losses["discriminator"] = least_squares(real, 1) + least_squares(fake, 0)
            update("discriminator", losses["discriminator"])
            self.discriminator.requires_grad_(False)
            losses["adversarial"] = least_squares(self.discriminator(predicted).float(), 1)
        if config.intensity:
            losses["intensity"] = F.mse_loss(predicted, true)
        if config.gradient:
            losses["gradient"] = gradient_difference(predicted, true)
        if config.flow and self.flownet is not None:
            losses["flow"] = self._flow_difference(batch, predicted)
        terms = [getattr(config, name) * losses[name] for name in LOSSES if name in losses]
        loss = torch.stack(terms).sum()
        update("generator", loss)
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _flow(self, batch: Batch, predicted: Tensor) -> Tensor:
        """Flow from the last input frame to the predicted frame, ``[B, 2, H, W]`` in pixels, differentiable."""
        if self.flownet is None:
            raise ValueError("flownet is null: the flow to the predicted frame cannot be computed")
        return flow_between(self.flownet, batch.frames[:, -2], (predicted + 1) / 2, self.config.flow_enlarge)

    def _flow_difference(self, batch: Batch, predicted: Tensor) -> Tensor:
        """Mean absolute difference between the flow to the predicted frame and the stored flow.

        In pixels of FlowNet's input size, because the published loss weight is for that unit.
        """
        apart = (self._flow(batch, predicted) - stored_flow(batch)[:, -1]).abs().mean((0, 2, 3))  # [2]: right, down
        height, width = predicted.shape[2:]
        seen = seen_size((height, width), self.config.flow_enlarge)
        return (apart * apart.new_tensor((seen[1] / width, seen[0] / height))).mean()

    def _val(self, batch: Batch) -> Tensor:
        """Validation loss: mean squared error of the predictions, in units of pictures in 0..1."""
        return F.mse_loss((self(batch.frames[:, :-1] * 2 - 1) + 1) / 2, batch.frames[:, -1])

    def predict_step(self, batch: Batch) -> Prediction:
        predicted = self(batch.frames[:, :-1] * 2 - 1)
        shown = (predicted[:, None] + 1) / 2  # [B, 1, C, H, W]
        measures, maps = frame_errors(shown, batch.frames[:, -1:])
        measures["gradient_box"] = highest_box(gradient_error(shown[:, 0], batch.frames[:, -1]))[:, None]
        measures["psnr"] = 10 * measures["mse"].clamp(min=1e-10).log10()  # negative: higher is more anomalous
        if self.flownet is not None:
            measures["flow"] = (self._flow(batch, predicted) - stored_flow(batch)[:, -1]).abs().mean((1, 2, 3))[:, None]
        return Prediction(measures, maps, lambda: shown)
