"""Trained systems with their calibration, ready to score footage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vadcore.evaluation.calibration import Calibration
from vadcore.evaluation.preprocess import MEMBERS, PreprocessSpec, read_recipe, system_files
from vadcore.flow.estimators import Estimator, create_estimator
from vadcore.models import Model, load_model
from vadcore.models.fusion import Fusion, load_fusion
from vadcore.utils.device import choose_device, choose_precision
from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files
from vadcore.utils.folders import FUSED


@dataclass(frozen=True)
class System:
    """A trained system. ``name``: data set and system. ``digest`` identifies weights and configuration."""

    name: str
    model: Model
    device: torch.device
    dtype: torch.dtype
    digest: str


@dataclass(frozen=True)
class Detector:
    """What scores footage. ``systems``: one, or the members of ``fusion``. ``estimator`` is None where none of them needs
    optical flow. ``digest`` identifies weights and configuration. ``calibration.threshold`` is the one in use."""

    systems: tuple[System, ...]
    fusion: Fusion | None
    recipe: PreprocessSpec
    calibration: Calibration
    estimator: Estimator | None
    digest: str

    @property
    def name(self) -> str:
        return f"{self.recipe.dataset}/{self.recipe.name}"

    @property
    def score(self) -> str:
        """The measure that is the score."""
        return FUSED if self.fusion else self.systems[0].model.score

    def measures(self, judged: Sequence[Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """The measures of footage, ``[T]`` each, from those of each system."""
        return self.fusion.measures(judged) if self.fusion else judged[0]


def read_calibration(path: Path | str) -> Calibration:
    """The calibration in a file. Raises :class:`VadError` where there is none."""
    try:
        return Calibration.from_json(Path(path).read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise VadError(f"{path}: not there; run the score stage first") from error


def make_detector(
    folder: Path | str,
    recipe: PreprocessSpec,
    calibration: Calibration,
    device: str = "auto",
    target_far_per_hour: float | None = None,
) -> Detector:
    """The system in ``folder``, or the fusion with its members, on ``device``. target_far_per_hour: another rate than the
    calibration was made for."""
    folder = Path(folder)
    chosen = choose_device(device)
    if (folder / MEMBERS).is_dir():
        fusion = load_fusion(folder)
        systems = [
            _load_system(folder / MEMBERS / name, f"{recipe.dataset}/{name}", chosen, member.precision)
            for name, member in fusion.members.items()
        ]
    else:
        fusion = None
        systems = [_load_system(folder, f"{recipe.dataset}/{recipe.name}", chosen, recipe.precision)]
    estimator = None
    if any(system.model.config.needs_flow for system in systems):
        if recipe.flow is None:
            raise VadError(
                f"{folder}: the system needs optical flow, but nothing says how it is made; make detector.json anew"
            )
        estimator = create_estimator(recipe.flow.estimator, str(chosen), **recipe.flow.options)
    if target_far_per_hour is not None:
        asked = {
            "target_far_per_hour": target_far_per_hour,
            "threshold": calibration.threshold_at(target_far_per_hour),
            "extrapolated": target_far_per_hour < calibration.resolvable_rate,
        }
        calibration = calibration.model_copy(update=asked)
    digest = sha256_files(system_files(folder))
    return Detector(tuple(systems), fusion, recipe, calibration, estimator, digest)


def _load_system(folder: Path, name: str, device: torch.device, precision: str) -> System:
    model = load_model(folder).to(device).eval()
    return System(name, model, device, choose_precision(precision, device)[0], sha256_files(system_files(folder)))


def load_detector(folder: Path | str, device: str = "auto", target_far_per_hour: float | None = None) -> Detector:
    """From a detector folder (:mod:`vadcore.evaluation.preprocess`)."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    return make_detector(folder, recipe, read_calibration(folder / "calibration.json"), device, target_far_per_hour)
