"""Checkpoints of the systems that output pictures: picture quality over iterations, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vadcore.report import charts
from vadcore.report.load import System
from vadcore.report.media import embedded, excerpt, film, read_picture
from vadcore.report.table import Cell
from vadcore.report.text import NONE
from vadcore.utils.images import reduced
from vadcore.utils.spaced import spaced

MOST_ITERATIONS = 3  # number of iterations shown when none are configured
STRIP_FRAMES = 4  # frames per window
STRIP_WIDTH = 420  # maximum width of a strip in pixels


@dataclass(frozen=True)
class Measure:
    """Picture quality measure and its number format."""

    key: str
    title: str
    digits: int
    unit: str = ""
    more_is_better: bool = True

    def write(self, value: float | None) -> str:
        return NONE if value is None or not np.isfinite(value) else f"{value:.{self.digits}f}"


MEASURES = (
    Measure("psnr", "PSNR", 1, " dB"),
    Measure("ssim", "SSIM", 3),
    Measure("sharpness", "sharpness", 2, more_is_better=False),
)


@dataclass(frozen=True)
class CheckPoints:
    """Checkpoints of one system in its last training phase that measured picture quality.

    table: indexed by iteration, columns psnr, ssim, sharpness, val; NaN where something was not measured.
    """

    system: System
    phase: str
    table: pd.DataFrame

    @property
    def kept(self) -> int:
        """Iteration of the checkpoint whose weights were kept, or of the last one if training does not record it."""
        best = self.system.training.get("best_iteration")
        return int(self.table.index[-1] if best is None or best not in self.table.index else best)

    @property
    def size(self) -> str:
        """Size and colour of the pictures."""
        size = self.system.training.get("image_size")
        return f"{size[0]} × {size[1]} {self.system.training.get('color', '')}".strip() if size else ""

    def value(self, measure: Measure, iteration: int) -> float | None:
        """Return a figure at an iteration, or None if it was not measured."""
        value = self.table[measure.key].get(iteration)
        return None if value is None or pd.isna(value) else float(value)

    def picture(self, iteration: int) -> Path | None:
        """Return the strip of pictures that training drew at an iteration, or None if there is none."""
        stem = f"{self.phase}-{iteration:06d}"
        return next((path for path in self.system.samples if path.stem == stem), None)


def check_points(system: System) -> CheckPoints | None:
    """Return the checkpoints of ``system``, or None if it has no measured picture quality."""
    history = system.history
    if history is None or "psnr" not in history or not history["psnr"].notna().any():
        return None
    measured = history[history["psnr"].notna()]
    phase = measured["phase"].iloc[-1]  # the last phase, which builds on the earlier ones
    columns = [*(measure.key for measure in MEASURES), "val"]
    table = measured[measured["phase"] == phase].set_index("iteration").reindex(columns=columns).astype(float)
    return CheckPoints(system, str(phase), table)


def quality_rows(systems: list[System]) -> list[dict]:
    """Return one row per checkpoint for quality.json: dataset, model, seed, iteration, psnr, ssim, sharpness, val."""
    return [
        {"dataset": system.dataset, "model": system.model, "seed": system.row.get("seed"), "iteration": int(iteration)}
        | {key: None if pd.isna(value) else value for key, value in point.items()}
        for system in systems
        if (known := check_points(system)) is not None
        for iteration, point in known.table.iterrows()
    ]


def side_by_side(group: list[System], wanted: tuple[int, ...] | None) -> dict | None:
    """Return the content of the section for one data set, or None if no system has checkpoints.

    wanted: iterations from the configuration. None selects them automatically. ``missing`` are those that no system has.
    """
    known = [points for system in group if (points := check_points(system)) is not None]
    if not known:
        return None
    iterations = chosen(known, wanted)
    every = sorted({int(iteration) for points in known for iteration in points.table.index})
    return {
        "points": known,
        "charts": [(measure, _chart(measure, known)) for measure in MEASURES if measure.more_is_better],
        "iterations": iterations,
        "every": every,
        "missing": sorted(set(wanted or ()) - set(every)),
        "measures": MEASURES,
        "rows": zip(known, _cells(known, iterations), strict=True),
        "strips": [(f"{iteration:,}", [_strip(points, iteration) for points in known]) for iteration in iterations]
        + [("kept", [_strip(points, points.kept) for points in known])],
        "films": [
            (moving, f"{points.system.model} at iteration {points.kept}")
            for points in known
            if (moving := _film(points)) is not None
        ],
    }


def chosen(known: list[CheckPoints], wanted: tuple[int, ...] | None) -> list[int]:
    """Select the iterations to compare, in increasing order.

    With ``wanted``: those of them that at least one system has. Otherwise up to three, spread evenly over the iterations
    that all systems share, or over all iterations if they share none.
    """
    every = sorted({int(iteration) for points in known for iteration in points.table.index})
    if wanted is not None:
        return [iteration for iteration in every if iteration in wanted]
    shared = [iteration for iteration in every if all(iteration in points.table.index for points in known)] or every
    return [shared[place] for place in spaced(len(shared), MOST_ITERATIONS)]


def _chart(measure: Measure, known: list[CheckPoints]) -> dict:
    curves = []
    for points in known:
        values = points.table[measure.key].dropna()
        if len(values):
            last = f"{measure.write(values.iloc[-1])}{measure.unit}"
            curves.append(charts.Curve(points.system.style, points.system.model, values, last))
    return charts.lines(curves, dots=True)


def _cells(known: list[CheckPoints], iterations: list[int]) -> list[list[Cell]]:
    """Return the cells of the table: for each system, for every measure one cell per iteration."""
    rows: list[list[Cell]] = [[] for _ in known]
    for measure in MEASURES:
        for iteration in iterations:
            values = [points.value(measure, iteration) for points in known]
            there = [value for value in values if value is not None]
            # Compared as printed, as in the results table.
            distinct = len({measure.write(value) for value in there}) > 1
            best = measure.write(max(there)) if measure.more_is_better and distinct else None
            for row, value in zip(rows, values, strict=True):
                text = measure.write(value)
                row.append(Cell(text, value, best=text == best))
    return rows


def _strip(points: CheckPoints, iteration: int) -> dict | None:
    """Return one system's picture at one iteration (some frames of one window) with its figures, or None."""
    path = points.picture(iteration)
    if path is None:
        return None
    image = read_picture(path)
    if size := points.system.training.get("image_size"):
        image = excerpt(image, tuple(size), STRIP_FRAMES)
    figures = [(measure, points.value(measure, iteration)) for measure in MEASURES]
    return embedded(reduced(image, STRIP_WIDTH)) | {
        "model": points.system.model,
        "iteration": iteration,
        "figures": [
            f"{measure.title} {measure.write(value)}{measure.unit}" for measure, value in figures if value is not None
        ],
    }


def _film(points: CheckPoints) -> dict | None:
    """Return the animation of the kept checkpoint and its first frame, or None if there is none."""
    path = points.picture(points.kept)
    return film(path.with_suffix(".webp")) if path else None
