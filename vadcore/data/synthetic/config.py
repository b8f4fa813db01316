"""Configuration of the generated surveillance scene."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vadcore.data.formats.base import DatasetConfig, register_format


@register_format
class StreetConfig(DatasetConfig):
    """Generated surveillance scene; see vadcore/data/formats/street.py."""

    format: Literal["street"]
    seed: int = Field(default=0, ge=0)
    height: int = Field(default=128, ge=48, multiple_of=2)  # pixels; even, as the lossless video requires
    width: int = Field(default=192, ge=48, multiple_of=2)  # pixels; even, as the lossless video requires
    frames_per_second: PositiveFloat = 12.5
    train_clips: PositiveInt = 6
    train_frames: int = Field(default=150, ge=2)  # frames per training clip
    test_clips: PositiveInt = 8  # the clips cycle through seven kinds of anomalies; every 8th clip has none
    test_frames: int = Field(default=150, ge=2)  # frames per test clip
    people_per_minute: PositiveFloat = 40.0  # average number of people who enter the scene per minute
    anomalies_per_clip: PositiveInt = 1  # events in each test clip with anomalies
    noise: float = Field(default=2.0, ge=0)  # standard deviation of the sensor noise, grey levels

    @model_validator(mode="after")
    def _picture_shape(self) -> StreetConfig:
        if not self.height / 2 <= self.width <= 4 * self.height:
            raise ValueError(f"width {self.width} must be between half and four times the height {self.height}")
        return self

    @property
    def truth(self) -> str:
        return "generated truth"
