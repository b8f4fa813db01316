"""A trained system with its calibration, ready to score footage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vadcore.calibrate import Calibration
from vadcore.detect.recipe import SYSTEM, Recipe, read_recipe
from vadcore.device import choose_device, choose_precision
from vadcore.errors import VadError
from vadcore.files import sha256_files
from vadcore.flow.estimators import Estimator, create_estimator
from vadcore.models import Model, load_model


@dataclass(frozen=True)
class Detector:
    """What scores footage. ``estimator`` is None where the system needs no optical flow. ``digest`` identifies weights and
    configuration. ``calibration.threshold`` is the one in use."""

    model: Model
    recipe: Recipe
    calibration: Calibration
    device: torch.device
    dtype: torch.dtype
    estimator: Estimator | None
    digest: str

    @property
    def name(self) -> str:
        return f"{self.recipe.dataset}/{self.recipe.name}"


def read_calibration(path: Path | str) -> Calibration:
    """The calibration in a file. Raises :class:`VadError` where there is none."""
    try:
        return Calibration.from_json(Path(path).read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise VadError(f"{path}: not there; run the score stage first") from error


def make_detector(
    folder: Path | str,
    recipe: Recipe,
    calibration: Calibration,
    device: str = "auto",
    false_alarms_per_hour: float | None = None,
) -> Detector:
    """The system in ``folder`` on ``device``. false_alarms_per_hour: another rate than the calibration was made for."""
    folder = Path(folder)
    model = load_model(folder)
    if model.config.needs_flow and recipe.flow is None:
        raise VadError(
            f"{folder}: the system needs optical flow, but nothing says how it is made; make detector.json anew"
        )
    if false_alarms_per_hour is not None:
        asked = {
            "false_alarms_per_hour": false_alarms_per_hour,
            "threshold": calibration.threshold_at(false_alarms_per_hour),
            "extrapolated": false_alarms_per_hour < calibration.resolvable_rate,
        }
        calibration = calibration.model_copy(update=asked)
    chosen = choose_device(device)
    dtype, _ = choose_precision(recipe.precision, chosen)
    estimator = None
    if model.config.needs_flow:
        estimator = create_estimator(recipe.flow.estimator, str(chosen), **recipe.flow.options)
    digest = sha256_files([folder / name for name in SYSTEM])
    return Detector(model.to(chosen).eval(), recipe, calibration, chosen, dtype, estimator, digest)


def load_detector(folder: Path | str, device: str = "auto", false_alarms_per_hour: float | None = None) -> Detector:
    """From a detector folder (:mod:`vadcore.detect.recipe`)."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    return make_detector(folder, recipe, read_calibration(folder / "calibration.json"), device, false_alarms_per_hour)
