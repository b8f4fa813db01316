"""Late fusion: combine the frame scores and anomaly maps of several trained models by a fixed rule, without training.

The values of each member are first normalised with its own statistics on held-out normal footage: 0 is the median, 1 a
high percentile. Scores below the median count as 0: a member that sees less than usual does not outweigh one that sees more.
For maps, the statistics are those of the highest value in each frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import Field, PositiveFloat, ValidationError, model_validator

from vadcore.utils.errors import VadError, one_line
from vadcore.utils.files import write_text
from vadcore.utils.folders import FUSED, is_fusion
from vadcore.utils.images import resize_picture
from vadcore.utils.schema import Section

ROUNDING = 1e-6  # relative difference up to which values count as equal (rounding)
HIGHEST = float(np.finfo(np.float16).max)  # largest value of a map


class FusionConfig(Section):
    """Section ``fusion.fusion`` or ``fusion.fusion-<variant>``."""

    of: tuple[str, ...] = Field(min_length=2)  # names of the models to combine, all listed under models
    rule: Literal["mean", "max"] = "mean"  # how to combine the normalised values of the members
    weights: tuple[PositiveFloat, ...] | None = None  # one per member, for rule mean; null: equal weights
    high: float = Field(default=0.99, gt=0.5, lt=1)  # quantile of held-out normal frames that is normalised to 1

    @model_validator(mode="after")
    def _members_fit(self):
        for name in self.of:
            if is_fusion(name):
                raise ValueError(f"of: {name!r} is a fusion itself; name the systems that it combines")
            if self.of.count(name) > 1:
                raise ValueError(f"of: {name!r} is listed twice; remove one")
        if self.weights and self.rule != "mean":
            raise ValueError(f"weights: the rule {self.rule} has none; remove them, or set rule to mean")
        if self.weights and len(self.weights) != len(self.of):
            raise ValueError(
                f"weights: {len(self.weights)} for {len(self.of)} systems; give one for each name under of"
            )
        return self


class Scale(Section):
    """Normalisation of one member: median and a high percentile of its values on held-out normal footage."""

    median: float
    high: float

    @classmethod
    def over(cls, values: np.ndarray, share: float) -> Scale:
        """Compute the statistics from data.

        values: ``[n]``, at least one of them finite; NaN values (no score) are ignored. share: quantile for ``high``, 0..1.
        """
        median, high = np.nanquantile(values.astype(np.float64), [0.5, share]).tolist()
        return cls(median=median, high=high)

    @property
    def unit(self) -> float:
        """Value range that is normalised to 1: ``high`` minus the median. When the two are equal, the absolute value of the
        median; when that is 0, 1.
        """
        unit = self.high - self.median
        return unit if unit > ROUNDING * abs(self.median) else abs(self.median) or 1.0

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        """Normalise values of any shape, float64. NaN stays NaN."""
        return (np.asarray(values, np.float64) - self.median) / self.unit


class Member(Section):
    """One model of a fusion.

    measure: name of the measure that is its score. precision: dtype of its training. score: normalisation of that measure.
    map: normalisation of its anomaly maps, from the highest value in the map of each frame.
    """

    measure: str
    precision: Literal["float32", "bfloat16"]
    score: Scale
    map: Scale


class Fusion(FusionConfig):
    """Fusion of trained models.

    system: name of the fusion in params.yaml. members: by name, in the order of ``of``.
    """

    system: str
    members: dict[str, Member]

    def measures(self, judged: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Fuse the scores of one clip.

        Parameters
        ----------
        judged: measures of each member, ``[T]`` each.

        Returns
        -------
        float32 ``[T]`` each: ``fused``, NaN where any member has no score for the frame, and the normalised score of each
        member under its name.
        """
        scaled = {
            name: member.score(measures[member.measure])
            for (name, member), measures in zip(self.members.items(), judged, strict=True)
        }
        excess = np.stack(list(scaled.values())).clip(min=0)
        every = {FUSED: self._combined(excess), **scaled}
        return {name: values.astype(np.float32) for name, values in every.items()}

    def maps(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """Fuse the anomaly maps of one clip by the same rule as the scores.

        The result for all-zero maps is subtracted, so that 0 stays 0.

        Parameters
        ----------
        maps: maps of each member for the same frames, ``[T, h, w]`` of any size.

        Returns
        -------
        float16 ``[T, h, w]`` at the largest of the sizes; NaN where any member has no score for the frame.
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
        """Apply the rule over the members: ``[members, ...]`` to ``[...]``. NaN in any member gives NaN."""
        return values.max(axis=0) if self.rule == "max" else np.average(values, axis=0, weights=self.weights)


def save_fusion(fusion: Fusion, folder: Path) -> None:
    """Write ``config.yaml`` into ``folder``."""
    write_text(folder / "config.yaml", yaml.safe_dump(fusion.model_dump(mode="json"), sort_keys=False))


def load_fusion(folder: Path) -> Fusion:
    """Load the fusion that :func:`save_fusion` wrote to ``folder``. Raises :class:`VadError` if missing or invalid."""
    file = folder / "config.yaml"
    try:
        return Fusion.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise VadError(f"{file}: missing; run the fuse stage first") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise VadError(f"{file}: not a fusion ({one_line(error)}); run the fuse stage again") from error
