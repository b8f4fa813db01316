"""Background subtraction baseline: share of the picture that differs from the mean image of the scene."""

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
    # pixels that differ from the mean image by more grey levels than this are foreground
    threshold: float = Field(default=20.0, gt=0, lt=255)
    score: Literal["area", "mse"] = "area"


@register_model("background", BackgroundConfig)
class Background(Model):
    """Compare a frame with the mean image of the training footage: share of differing pixels and mean squared difference.

    The latter is the score of an autoencoder that reconstructs only the static background.
    """

    config: BackgroundConfig
    windows = Windows(length=1, judged=(0,))

    def __init__(self, config: BackgroundConfig):
        super().__init__(config)
        self.mean_image = MeanImage(config.channels, config.image_size, subtract=True)

    def phases(self) -> list[Phase]:
        return self.mean_image.phases()

    def predict_step(self, batch: Batch) -> Prediction:
        difference = self.mean_image.centre(batch.frames)  # [B, 1, C, H, W]
        apart = difference.abs().amax(2)  # [B, 1, H, W] in 0..1
        area = (apart * 255 > self.config.threshold).float().mean((2, 3))
        return Prediction({"area": area, "mse": difference.square().mean((2, 3, 4))}, maps=apart)
