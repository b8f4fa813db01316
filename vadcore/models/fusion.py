"""Several systems of a data set combined into one, by a stated rule; nothing is trained.

The values of each member, a score a frame and a map a frame, are brought to units of its own normal footage: 0 is the median
of held-out normal footage, 1 a high percentile of it. Of a map, it is the highest value in the frame that is measured so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import Field, PositiveFloat, ValidationError, model_validator

from vadcore.utils.errors import VadError
from vadcore.utils.files import write_text
from vadcore.utils.folders import FUSED, is_fusion
from vadcore.utils.images import resize_picture
from vadcore.utils.schema import Section

ROUNDING = 1e-6  # values that differ by a smaller share are the same but for rounding
HIGHEST = float(np.finfo(np.float16).max)  # of a map


class FusionConfig(Section):
    """A section ``model.fusion`` or ``model.fusion-<variant>``."""

    of: tuple[str, ...] = Field(min_length=2)  # systems listed under models
    rule: Literal["mean", "max"] = "mean"  # of the members' values, each in units of its own normal footage
    weights: tuple[PositiveFloat, ...] | None = None  # of the mean, one a member; null: all count alike
    high: float = Field(default=0.99, gt=0.5, lt=1)  # share of the normal frames whose value is below 1

    @model_validator(mode="after")
    def _members_fit(self):
        for name in self.of:
            if is_fusion(name):
                raise ValueError(f"of: {name!r} is a fusion itself; name the systems that it combines")
            if self.of.count(name) > 1:
                raise ValueError(f"of: {name!r} stands there twice; remove one")
        if self.weights and self.rule != "mean":
            raise ValueError(f"weights: the rule {self.rule} has none; remove them, or set rule to mean")
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(
                f"weights: {len(self.weights)} for {len(self.of)} systems; give one for each name under of"
            )
        return self


class Scale(Section):
    """A member's values over held-out normal footage: their median and a high percentile."""

    median: float
    high: float

    @classmethod
    def over(cls, values: np.ndarray, share: float) -> Scale:
        """values: ``[n]``, NaN = not judged; at least one is not. share: of them that is below ``high``."""
        median, high = np.nanquantile(values.astype(np.float64), [0.5, share]).tolist()
        return cls(median=median, high=high)

    @property
    def unit(self) -> float:
        """What is 1: ``high`` minus the median. Where normal footage shows no difference between them, the median itself,
        and 1 where that is 0."""
        unit = self.high - self.median
        return unit if unit > ROUNDING * abs(self.median) else abs(self.median) or 1.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values of any shape in units of normal footage, float64; NaN stays NaN."""
        return (np.asarray(values, np.float64) - self.median) / self.unit


class Member(Section):
    """What a fusion knows of one of its systems. measure: its score. precision: of its training. score: of that measure.
    map: of the highest value in the map of a frame."""

    measure: str
    precision: Literal["float32", "bfloat16"]
    score: Scale
    map: Scale


class Fusion(FusionConfig):
    """A fusion of trained systems. system: its name in params.yaml. members: by name, in the order of ``of``."""

    system: str
    members: dict[str, Member]

    def measures(self, judged: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The measures of one clip, float32 ``[T]`` each: ``fused``, NaN where a member did not judge the frame, and by name
        what each member says in units of its normal footage. judged: the measures of each member, ``[T]`` each."""
        scaled = {
            name: member.score(measures[member.measure])
            for (name, member), measures in zip(self.members.items(), judged, strict=True)
        }
        every = {FUSED: self._combined(np.stack(list(scaled.values()))), **scaled}
        return {name: values.astype(np.float32) for name, values in every.items()}

    def maps(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """The members' maps of the same frames, ``[T, h, w]`` of any size each, as one: float16 ``[T, h, w]`` of the largest
        size, NaN where a member did not judge the frame.

        They are combined as the scores are. What that makes of maps that are 0 everywhere is taken off, so that 0 stays 0.
        """
        size = max((of_member.shape[1:] for of_member in maps), key=math.prod)
        zero = self._combined(np.array([member.map(0.0) for member in self.members.values()]))
        fused = np.empty((len(maps[0]), *size), np.float16)
        for number, of_frame in enumerate(zip(*maps, strict=True)):
            same_size = [resize_picture(one[..., None].astype(np.float32), size)[..., 0] for one in of_frame]
            scaled = [member.map(one) for member, one in zip(self.members.values(), same_size, strict=True)]
            fused[number] = np.clip(self._combined(np.stack(scaled)) - zero, -HIGHEST, HIGHEST)
        return fused

    def _combined(self, values: np.ndarray) -> np.ndarray:
        """By the rule over the members: ``[members, ...]`` to ``[...]``, NaN where one is NaN."""
        return values.max(axis=0) if self.rule == "max" else np.average(values, axis=0, weights=self.weights)


def save_fusion(fusion: Fusion, folder: Path) -> None:
    """Write ``config.yaml`` into ``folder``."""
    write_text(folder / "config.yaml", yaml.safe_dump(fusion.model_dump(mode="json"), sort_keys=False))


def load_fusion(folder: Path) -> Fusion:
    """What :func:`save_fusion` wrote to ``folder``. Raises :class:`VadError` where it is missing or broken."""
    file = folder / "config.yaml"
    try:
        return Fusion.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise VadError(f"{file}: not there; run the fuse stage first") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise VadError(
            f"{file}: not a fusion ({' '.join(str(error).split())[:200]}); run the fuse stage again"
        ) from error
