"""Detector: a trained system, or a fusion of several, with its calibration, loaded for scoring."""

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
    """A trained system. dtype: precision of the model's computations. digest: identifies weights and configuration."""

    model: Model
    device: torch.device
    dtype: torch.dtype
    digest: str


@dataclass(frozen=True)
class Detector:
    """A trained system, or a fusion of several, with everything needed to score footage.

    Attributes
    ----------
    systems: one system, or the members of ``fusion``.
    fusion: None for a single system.
    recipe: preprocessing of the footage.
    calibration: p-values and threshold; ``calibration.threshold`` is the threshold in use.
    estimator: optical flow estimator; None if no system needs optical flow.
    digest: identifies weights and configuration.
    """

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
        """Name of the measure that is the anomaly score."""
        return FUSED if self.fusion else self.systems[0].model.score

    def measures(self, of_systems: Sequence[Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """Combine the measures of the systems into those of the detector: name -> ``[T]``.

        of_systems: name -> ``[T]`` for each system.
        """
        return self.fusion.measures(of_systems) if self.fusion else of_systems[0]


def read_calibration(path: Path | str) -> Calibration:
    """Read a calibration file. Raises :class:`VadError` if it is missing or invalid."""
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
    """Load the system in ``folder``, or the fusion with its members, on ``device``.

    Parameters
    ----------
    folder: weights and configuration of a system, or of a fusion with ``members/``.
    recipe, calibration: preprocessing and calibration of the system.
    device: "auto" (GPU if available), "cpu" or "cuda".
    target_far_per_hour: false-alarm rate, in events per hour; None = the rate of the calibration.

    Raises :class:`VadError` if the system needs optical flow but the recipe has none.
    """
    folder = Path(folder)
    chosen = choose_device(device)
    if (folder / MEMBERS).is_dir():
        fusion = load_fusion(folder)
        members = {folder / MEMBERS / name: member.precision for name, member in fusion.members.items()}
        systems = [_load_system(member, chosen, precision) for member, precision in members.items()]
    elif recipe.precision is None:
        raise VadError(f"{folder}: detector.json names no precision; make it anew")
    else:
        fusion, systems = None, [_load_system(folder, chosen, recipe.precision)]
    estimator = None
    if any(system.model.config.needs_flow for system in systems):
        if recipe.flow is None:
            raise VadError(f"{folder}: detector.json does not say how optical flow is made; make it anew")
        estimator = create_estimator(recipe.flow.estimator, str(chosen), **recipe.flow.options)
    if target_far_per_hour is not None:
        calibration = calibration.at_rate(target_far_per_hour)
    digest = sha256_files(system_files(folder))
    return Detector(tuple(systems), fusion, recipe, calibration, estimator, digest)


def _load_system(folder: Path, device: torch.device, precision: str) -> System:
    model = load_model(folder).to(device).eval()
    return System(model, device, choose_precision(precision, device)[0], sha256_files(system_files(folder)))


def load_detector(folder: Path | str, device: str = "auto", target_far_per_hour: float | None = None) -> Detector:
    """Load a detector folder (see :mod:`vadcore.evaluation.preprocess`).

    device: "auto" (GPU if available), "cpu" or "cuda". target_far_per_hour: false-alarm rate, in events per hour;
    None = the rate of the calibration.
    """
    folder = Path(folder)
    recipe = read_recipe(folder)
    return make_detector(folder, recipe, read_calibration(folder / "calibration.json"), device, target_far_per_hour)
