"""Baseline without training: speed of the fastest pixels, from optical flow."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Model, ModelConfig, Phase, Prediction, Update, stored_flow


class FlowMagnitudeConfig(ModelConfig):
    needs_flow: ClassVar[bool] = True

    pool: PositiveInt = 4  # side in pixels of the blocks that the flow is averaged over first
    percentile: float = Field(default=99.5, gt=0, le=100)
    row_scale: bool = False  # divide each row's speed by its mean in normal training footage (perspective)
    score: Literal["magnitude", "mean"] = "magnitude"


@register_model("flow_magnitude", FlowMagnitudeConfig)
class FlowMagnitude(Model):
    """Score a frame by a high percentile of the optical flow magnitude to the next frame, px/frame.

    With ``row_scale``, the magnitude in each row is divided by the mean magnitude of that row in training footage.
    """

    config: FlowMagnitudeConfig
    row_sum: Tensor  # [rows], sum of the mean magnitudes of ``row_count`` batches
    row_count: Tensor
    windows = Windows(length=2, judged=(0,), flow=True)

    def __init__(self, config: FlowMagnitudeConfig):
        super().__init__(config)
        rows = 256  # fixed size of the stored scale, interpolated to the rows of the footage
        self.register_buffer("row_sum", torch.zeros(rows, dtype=torch.float64))
        self.register_buffer("row_count", torch.zeros((), dtype=torch.float64))

    def _magnitude(self, batch: Batch) -> Tensor:
        """Magnitude of the block-averaged flow, ``[B, h, w]`` in px/frame."""
        flow = F.avg_pool2d(stored_flow(batch)[:, 0], self.config.pool, ceil_mode=True)  # [B, 2, h, w]
        return torch.hypot(flow[:, 0], flow[:, 1])  # Tensor.norm takes 30 times as long on a CPU

    def phases(self) -> list[Phase]:
        if not self.config.row_scale:
            return []
        return [Phase("row_scale", 64, self.windows, batch_size=16, step=self._gather)]

    def _gather(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        rows = self._magnitude(batch).mean((0, 2))  # [h]
        self.row_sum += F.interpolate(rows[None, None], len(self.row_sum), mode="linear")[0, 0].double()
        self.row_count += 1
        return {"loss": rows.mean()}  # for the log only: mean speed, px/frame

    def predict_step(self, batch: Batch) -> Prediction:
        speed = self._magnitude(batch)  # [B, h, w]
        mean = speed.mean((1, 2))
        if self.config.row_scale:
            scale = (self.row_sum / self.row_count.clamp(min=1)).float()
            scale = F.interpolate(scale[None, None], speed.shape[1], mode="linear")[0, 0]  # [h]
            speed = speed / scale.clamp(min=0.05)[:, None]  # avoid huge values in rows without motion
        high = torch.quantile(speed.flatten(1), self.config.percentile / 100, dim=1)
        return Prediction({"magnitude": high[:, None], "mean": mean[:, None]}, maps=speed[:, None])
