"""A network that learns to segment pseudo-anomalies: altered objects pasted into normal footage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Model, ModelConfig, Phase, Prediction, Update
from vadcore.models.pseudo.alterations import ALTERATIONS, Alteration
from vadcore.models.pseudo.cutouts import cut_out
from vadcore.models.pseudo.windows import PastedBatch, PastedWindows, Pasting
from vadcore.utils.render import heat, outlined
from vadcore.utils.schema import Size

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

CONTRAST = 40 / 255  # what the difference from the background is divided by
MOVING_WEIGHT = 20.0  # of the loss of places where something moves; elsewhere 1
SCALES = (0.25, 2.0)  # that pictures are resized by
NEARLY = (0.8, 1.25)  # what is between needs no resizing


class PseudoAnomalyConfig(ModelConfig):
    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "top")

    frames: PositiveInt = Field(default=8, ge=3)  # of a window; made for 8 to 10 frames a second
    every: PositiveInt = 1  # the network sees every n-th frame: 3 for footage of 25 to 30 frames a second
    background: PositiveInt = 300  # frames, of those that it sees, whose median is the still scene
    object_height: PositiveFloat = 32.0  # pictures are resized so that the median moving object is so many pixels high
    crop: Size = (144, 176)  # of training windows, in resized pixels
    unaltered: NonNegativeInt = 2  # objects at most that are pasted into a window as they were
    altered: PositiveInt = 2  # objects at most that are altered and pasted into a window
    alterations: dict[Alteration, NonNegativeFloat] = Field(
        default={**dict.fromkeys(ALTERATIONS, 1.0), "frozen": 2.0}
    )  # how often each
    conv: Annotated[tuple[PositiveInt, ...], Field(min_length=3, max_length=3)] = (32, 64, 96)
    batch_size: PositiveInt = 16
    iterations: PositiveInt = 3_000
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    top: PositiveInt = 20  # places of the anomaly map whose mean is the score
    score: Literal["top", "max"] = "top"

    @field_validator("alterations")
    @classmethod
    def _some(cls, alterations: dict[Alteration, float]):
        if not any(alterations.values()):
            raise ValueError(f"all weights are 0; give at least one of {', '.join(ALTERATIONS)} a positive weight")
        return alterations


@register_model("pseudo_anomaly", PseudoAnomalyConfig)
class PseudoAnomaly(Model):
    """Learns from normal footage into which moving objects are pasted, some as they were, some altered.

    2D convolutions over a stack of grey or colour frames give a logit for each place of a map of a quarter of the picture's
    size. The network sees the differences from the background, and the row of each place, as sizes and speeds depend on it.
    A frame's score is the mean of its ``top`` highest logits.
    """

    config: PseudoAnomalyConfig
    scale: Tensor  # that pictures are resized by; 0: not yet known

    def __init__(self, config: PseudoAnomalyConfig):
        super().__init__(config)
        self.score = config.score
        self.middle = config.frames // 2
        length = (config.frames - 1) * config.every + 1
        self.windows = Windows(
            length, judged=(self.middle * config.every,), background=config.background * config.every
        )
        self.register_buffer("scale", torch.zeros(()))
        a, b, c = config.conv
        self.network = nn.Sequential(
            *_block(config.frames * config.channels + 1, a, stride=2),
            *_block(a, a),
            *_block(a, b, stride=2),
            *_block(b, b),
            *_block(b, c),
            *_block(c, c, dilation=2),
            nn.Conv2d(c, 1, 1),
        )
        nn.init.constant_(self.network[-1].get_parameter("bias"), -3.0)  # most places are normal

    def phases(self) -> list[Phase]:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        return [
            Phase(
                "segmentation",
                config.iterations,
                self.windows,
                config.batch_size,
                self._step,
                optimizers={"optimizer": optimizer},
                schedulers={"optimizer": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)},
                val=self.loss,
                source=self._pasted,
                picture=self._picture,
            )
        ]

    def _pasted(self, footage: ClipLoader, dtype: torch.dtype) -> PastedWindows:
        config = self.config
        cutouts = cut_out(footage, config.frames, config.every)
        if not float(self.scale):
            heights = torch.tensor([float(cutout.height) for cutout in cutouts])
            scale = float((config.object_height / heights.median()).clamp(*SCALES))
            self.scale.fill_(1.0 if NEARLY[0] <= scale <= NEARLY[1] else scale)
        height, width = (
            min(full, round(side / float(self.scale))) for full, side in zip(footage.size, config.crop, strict=True)
        )
        rows, columns = (-(-side // 4) for side in self._resized((height, width)))
        pasting = Pasting(
            crop=(height, width),
            map_size=(rows, columns),
            length=config.frames,
            judged=self.middle,
            every=config.every,
            unaltered=config.unaltered,
            altered=config.altered,
            weights=config.alterations,
        )
        return PastedWindows(footage, cutouts, pasting, torch.initial_seed())

    def _resized(self, size: Sequence[int]) -> tuple[int, int]:
        """The size that the network sees pictures of ``size`` at."""
        scale = float(self.scale) or 1.0
        height, width = (max(8, round(side * scale)) for side in size)
        return height, width

    def forward(self, frames: Tensor, background: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits ``[B, h, w]`` of frames ``[B, T, C, H, W]`` and their background ``[B, C, H, W]``, in 0..1.

        rows: where the windows begin and end in the picture, ``[B, 2]`` in picture heights; None: they are whole pictures.
        """
        x = self._seen(frames, background, rows)
        return self.network(x.contiguous(memory_format=torch.channels_last))[:, 0].float()

    def _seen(self, frames: Tensor, background: Tensor, rows: Tensor | None = None) -> Tensor:
        """What the network sees, ``[B, T * C + 1, H, W]``: differences from the background, and the row from -1 to 1."""
        x = (frames - background[:, None]).flatten(1, 2) / CONTRAST  # [B, T * C, H, W]
        size = self._resized(x.shape[2:])
        if size != tuple(x.shape[2:]):
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        if rows is None:
            rows = torch.tensor([[0.0, 1.0]], device=x.device).expand(len(x), 2)
        way = torch.linspace(0, 1, size[0], device=x.device)
        row = rows[:, :1] + (rows[:, 1:] - rows[:, :1]) * way  # [B, H]
        x = torch.cat([x, (2 * row - 1)[:, None, :, None].expand(-1, -1, -1, size[1])], dim=1)
        return x

    def loss(self, batch: PastedBatch) -> Tensor:
        """Binary cross-entropy; places where something moves weigh :data:`MOVING_WEIGHT` times as much."""
        weight = 1 + (MOVING_WEIGHT - 1) * batch.moving
        losses = F.binary_cross_entropy_with_logits(
            self(batch.frames, batch.background, batch.rows), batch.target, reduction="none"
        )
        return (losses * weight).sum() / weight.sum()

    def _step(self, batch: PastedBatch, update: Update) -> dict[str, Tensor]:
        loss = self.loss(batch)
        update("optimizer", loss)
        return {"loss": loss.detach()}

    def _picture(self, batch: PastedBatch) -> np.ndarray:
        """Judged frames of pasted windows, altered objects outlined, beside the probability that the network gives them."""
        frames = (batch.frames[:, self.middle] * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, C]
        probability = self(batch.frames, batch.background, batch.rows).sigmoid().cpu().numpy()
        size = frames.shape[2:0:-1]
        rows = []
        for frame, target, found in zip(frames, batch.target.cpu().numpy(), probability, strict=True):
            mask = (cv2.resize(target, size) > 0.5).astype(np.uint8)
            rgb = np.broadcast_to(frame, (*frame.shape[:2], 3))
            rows.append(np.hstack([outlined(rgb, mask, 1), heat(cv2.resize(found, size), 0, 1)]))
        return np.vstack(rows)

    def predict_step(self, batch: Batch) -> Prediction:
        logits = self(batch.frames[:, :: self.config.every], batch.background)
        top, highest = self.highest(logits)
        return Prediction({"top": top[:, None], "max": highest[:, None]}, maps=logits[:, None])

    def highest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the ``top`` highest of ``[B, h, w]`` and the highest, ``[B]`` each."""
        places = logits.flatten(1)
        highest = places.topk(min(self.config.top, places.shape[1])).values
        return highest.mean(1), highest[:, 0]


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.GroupNorm(8, outputs),
        nn.SiLU(inplace=True),
    ]
