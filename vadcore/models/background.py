"""Baseline: how much of the picture is not the still scene. It knows nothing but how full the picture is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Model, ModelConfig, Phase, Prediction
from vadcore.models.components.mean_image import MeanImage
from vadcore.utils.schema import Size


class BackgroundConfig(ModelConfig):
    image_size: Size = (128, 192)
    threshold: float = Field(default=20.0, gt=0, lt=255)  # grey levels from which a pixel is not the still scene's
    score: Literal["area", "mse"] = "area"


@register_model("background", BackgroundConfig)
class Background(Model):
    """A frame against the mean image of the training footage: the share of its pixels that differ, and the mean squared
    difference. What a system that rebuilds nothing but the still scene would score."""

    windows = Windows(length=1, judged=(0,))

    def __init__(self, config: BackgroundConfig):
        super().__init__(config)
        self.score = config.score
        self.mean_image = MeanImage(config.channels, config.image_size, subtract=True)

    def phases(self) -> list[Phase]:
        return self.mean_image.phases()

    def predict_step(self, batch: Batch) -> Prediction:
        difference = self.mean_image.centre(batch.frames)  # [B, 1, C, H, W]
        apart = difference.abs().amax(2)  # [B, 1, H, W] in 0..1
        area = (apart * 255 > self.config.threshold).float().mean((2, 3))
        return Prediction({"area": area, "mse": difference.square().mean((2, 3, 4))}, maps=apart)
