"""Baseline without training: absolute difference of consecutive frames."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import PositiveInt

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Model, ModelConfig, Prediction


class FrameDiffConfig(ModelConfig):
    block: PositiveInt = 16  # side of the blocks for max_patch_mse, px
    score: Literal["mean", "max_patch_mse"] = "mean"


@register_model("frame_diff", FrameDiffConfig)
class FrameDiff(Model):
    """Score a frame by its absolute difference from the previous frame: the mean, or the largest mean over a block."""

    config: FrameDiffConfig
    windows = Windows(length=2, judged=(1,))

    def predict_step(self, batch: Batch) -> Prediction:
        difference = (batch.frames[:, 1] - batch.frames[:, 0]).abs().mean(1, keepdim=True)  # [B, 1, H, W] in 0..1
        block = min(self.config.block, *difference.shape[2:])
        blocks = F.avg_pool2d(difference, block, stride=max(1, block // 2), ceil_mode=True)
        measures = {"mean": difference.mean((2, 3)), "max_patch_mse": blocks.amax((2, 3))}  # [B, 1] each
        return Prediction(measures, maps=difference)
