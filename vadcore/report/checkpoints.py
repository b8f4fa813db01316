"""Checkpoints of the systems that output pictures: picture quality over iterations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vadcore.report.columns import NONE
from vadcore.report.load import System

AT_MOST = 3  # number of iterations when none are configured


@dataclass(frozen=True)
class Measure:
    """Picture quality measure: number format and meaning."""

    key: str
    title: str
    digits: int
    unit: str
    more_is_better: bool
    meaning: str
    most: float | None = None  # value of the footage itself; a higher value is noise

    def write(self, value: float | None) -> str:
        return NONE if value is None or not np.isfinite(value) else f"{value:.{self.digits}f}"


MEASURES = (
    Measure(
        "psnr",
        "PSNR",
        1,
        " dB",
        True,
        "Peak signal-to-noise ratio of what a system shows against the frame it stands for, in dB, the mean over frames; "
        "a frame without any error counts as 100 dB. Higher is closer.",
    ),
    Measure(
        "ssim",
        "SSIM",
        3,
        "",
        True,
        "Structural similarity (Wang et al. 2004) of the same pictures: 1 where they are equal, near 0 where they have "
        "nothing in common.",
    ),
    Measure(
        "sharpness",
        "sharpness",
        2,
        "",
        False,
        "Mean gradient of what is shown over that of the frames: 1 is as sharp, less is blurred, more is noise.",
        1.0,
    ),
)


@dataclass(frozen=True)
class CheckPoints:
    """Checkpoints of one system in its last training phase that measured picture quality.

    table: indexed by iteration, columns psnr, ssim, sharpness, val; NaN where something was not measured.
    style: CSS class of the system on the page.
    """

    system: System
    style: str
    phase: str
    table: pd.DataFrame

    @property
    def model(self) -> str:
        return self.system.model

    @property
    def kept(self) -> int:
        """Iteration of the checkpoint whose weights were kept, or of the last one if training does not record it."""
        best = self.system.training.get("best_iteration")
        return int(best if best in self.table.index else self.table.index[-1])

    def value(self, measure: Measure, iteration: int) -> float | None:
        """Return a figure at an iteration, or None if it was not measured."""
        value = self.table[measure.key].get(iteration)
        return None if value is None or pd.isna(value) else float(value)

    def picture(self, iteration: int) -> Path | None:
        """Return the strip of pictures that training drew at an iteration, or None if there is none."""
        stem = f"{self.phase}-{iteration:06d}"
        return next((path for path in self.system.samples if path.stem == stem), None)


def check_points(system: System, style: str = "") -> CheckPoints | None:
    """Return the checkpoints of ``system``, or None if it has no measured picture quality."""
    history = system.history
    if history is None or "psnr" not in history or not history["psnr"].notna().any():
        return None
    measured = history[history["psnr"].notna()]
    phase = measured["phase"].iloc[-1]  # the last phase, which builds on the earlier ones
    columns = [*(measure.key for measure in MEASURES), "val"]
    table = measured[measured["phase"] == phase].set_index("iteration").reindex(columns=columns).astype(float)
    return CheckPoints(system, style, str(phase), table)


def quality_rows(systems: dict[str, list[System]]) -> list[dict]:
    """Return one row per checkpoint for quality.json: dataset, model, seed, iteration, psnr, ssim, sharpness, val."""
    return [
        {
            "dataset": system.dataset,
            "model": system.model,
            "seed": system.row.get("seed"),
            "iteration": int(iteration),
            **{key: None if pd.isna(value) else value for key, value in point.items()},
        }
        for group in systems.values()
        for system in group
        if (known := check_points(system)) is not None
        for iteration, point in known.table.iterrows()
    ]


def chosen(known: list[CheckPoints], asked: tuple[int, ...] | None) -> list[int]:
    """Select the iterations to compare, in increasing order.

    With ``asked``: those of them that at least one system has. Otherwise up to three, spread evenly over the iterations
    that all systems share, or over all iterations if they share none.
    """
    every = sorted({int(iteration) for points in known for iteration in points.table.index})
    if asked is not None:
        return [iteration for iteration in every if iteration in asked]
    shared = [iteration for iteration in every if all(iteration in points.table.index for points in known)] or every
    places = np.linspace(0, len(shared) - 1, min(AT_MOST, len(shared))).round().astype(int)
    return [shared[place] for place in places]
