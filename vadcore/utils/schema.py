"""The base class of all sections of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Section(BaseModel):
    """A section of params.yaml. Unknown keys and non-finite numbers are errors; values are immutable after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Size = Annotated[tuple[PositiveInt, PositiveInt], Field(description="[height, width] in pixels")]
