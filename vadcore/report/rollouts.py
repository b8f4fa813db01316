"""Multi-step prediction (rollout) section of the page: figures per step, baselines and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from vadcore.report import charts
from vadcore.report.checkpoints import MEASURES, Measure
from vadcore.report.load import System
from vadcore.report.media import film, picture
from vadcore.report.table import Cell
from vadcore.report.text import NONE

STEPS = (1, 2, 3, 5, 10, 20, 30, 50, 100)  # shown in the table
FIGURES = [measure for measure in MEASURES if measure.key in ("psnr", "ssim")]
OWN = "prediction"
BASELINES = 4  # number of their styles: .b0 to .b3 of style.css
COMPARED = ("repeat last frame", "mean training frame")  # baselines that predictions have to surpass


@dataclass
class Row:
    """Figures per step ahead of one system, or of one baseline. table: indexed by step_ahead.

    closer: number of steps until the prediction is no closer than each baseline of :data:`COMPARED`.
    """

    label: str
    style: str
    table: pd.DataFrame
    closer: list[Cell] = field(default_factory=lambda: [Cell(NONE, None) for _ in COMPARED])


def rollout_rows(systems: list[System]) -> list[dict]:
    """Return one row per step ahead for rollouts.json: dataset, model, variant, seed and the figures at that step."""
    return [
        {"dataset": system.dataset, "model": system.model}
        | {key: system.row.get(key) for key in ("variant", "seed", "label_set")}
        | row
        for system in systems
        if system.rollouts is not None
        for row in system.rollouts.to_dict("records")
    ]


def rollouts(group: list[System]) -> dict | None:
    """Return the content of the section for one data set, or None if no system rolls out."""
    known = [(system, system.rollouts) for system in group if system.rollouts is not None]
    if not known:
        return None
    rows = _rows(known)
    steps = [step for step in STEPS if any(step in row.table.index for row in rows)]
    return {
        "sequences": int(known[0][1]["sequences"].iloc[0]),
        "charts": [(measure, _chart(measure, rows)) for measure in FIGURES],
        "measures": FIGURES,
        "compared": COMPARED,
        "steps": steps,
        "rows": [(row, [_cell(row.table, step, measure) for measure in FIGURES for step in steps]) for row in rows],
        "pictures": [
            {
                "system": system,
                "film": film(system.rollout_folder / "rollouts.webp"),
                "strips": [(path.stem, picture(path)) for path in sorted(system.rollout_folder.glob("*.png"))],
            }
            for system, _ in known
        ],
    }


def _rows(known: list[tuple[System, pd.DataFrame]]) -> list[Row]:
    """Return each system's predictions, then the baselines. A baseline that several systems share appears once."""
    own: list[Row] = []
    baselines: dict[str, list[tuple[list[str], pd.DataFrame]]] = {}
    for system, steps in known:
        tables = {what: part.set_index("step_ahead") for what, part in steps.groupby("what", sort=False)}
        counts = [steps_closer(tables[OWN]["psnr"], tables[what]["psnr"]) for what in COMPARED]
        closer = [Cell(f"{count} of {len(tables[OWN])}", count) for count in counts]
        for what, table in tables.items():
            if what == OWN:
                own.append(Row(system.model, system.style, table, closer))
                continue
            same = baselines.setdefault(what, [])
            twin = next((models for models, other in same if other.equals(table)), None)
            if twin is None:
                same.append(([system.model], table))
            else:
                twin.append(system.model)
    return own + [
        Row(what if len(tables) == 1 else f"{what} ({', '.join(models)})", f"b{number % BASELINES} free", table)
        for number, (what, tables) in enumerate(baselines.items())
        for models, table in tables
    ]


def steps_closer(own: pd.Series, baseline: pd.Series) -> int:
    """Return how many steps predictions are closer than a baseline before they first are not.

    Parameters
    ----------
    own, baseline: PSNR in dB, indexed by step ahead; compared as printed.
    """
    return int((own.round(1) > baseline.round(1)).cumprod().sum())


def _cell(table: pd.DataFrame, step: int, measure: Measure) -> Cell:
    if step not in table.index:
        return Cell(measure.write(None), None)
    value, spread = table.loc[step, measure.key], table.loc[step, f"{measure.key}_std"]
    return Cell(measure.write(value), value, notes=[f"± {measure.write(spread)}"])


def _chart(measure: Measure, rows: list[Row]) -> dict:
    curves = []
    for row in rows:
        values = row.table[measure.key]
        first = f"{measure.write(values.iloc[0])}{measure.unit} at step 1"
        curves.append(charts.Curve(row.style, row.label, values, first))
    return charts.lines(curves, dots=True)
