"""Multi-step prediction (rollout) section of the page: figures per step, baselines and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.checkpoints import MEASURES
from vadcore.report.load import System
from vadcore.report.media import film, picture

SHOWN_STEPS = (1, 2, 3, 5, 10, 20, 30, 50, 100)
FIGURES = [measure for measure in MEASURES if measure.key in ("psnr", "ssim")]
OWN = "prediction"
BASELINES = 4  # number of their styles: .b0 to .b3 of style.css
REPEAT, MEAN = "repeat last frame", "mean training frame"
EARLY = 5  # number of first steps compared with repeating the last frame
PUBLISHED = (2, 3)  # lowest and highest number of steps for which published predictions are good


@dataclass(frozen=True)
class Curve:
    """Figures per step ahead of one system or one baseline. table: indexed by step_ahead."""

    label: str
    style: str
    table: pd.DataFrame


def rollout_rows(systems: dict[str, list[System]]) -> list[dict]:
    """Return one row per step ahead for rollouts.json: dataset, model, variant, seed and the figures at that step."""
    return [
        {
            "dataset": system.dataset,
            "model": system.model,
            "variant": system.row.get("variant"),
            "seed": system.row.get("seed"),
            "label_set": system.row.get("label_set"),
            **row,
        }
        for group in systems.values()
        for system in group
        if system.rollouts is not None
        for row in system.rollouts.to_dict("records")
    ]


def rollouts(group: list[System], styles: list[str]) -> dict | None:
    """Return the content of the section for one data set, or None if no system rolls out."""
    known = [(system, style) for system, style in zip(group, styles, strict=True) if system.rollouts is not None]
    if not known:
        return None
    curves = _curves(known)
    steps = [step for step in SHOWN_STEPS if any(step in curve.table.index for curve in curves)]
    return {
        "sequences": int(known[0][0].rollouts["sequences"].iloc[0]),
        "verdict": [said for system, _ in known for said in verdict(system)],
        "charts": [_chart(measure, curves) for measure in FIGURES],
        "measures": FIGURES,
        "steps": steps,
        "rows": [
            {
                "style": curve.style,
                "label": curve.label,
                "cells": [_cell(curve.table, step, measure) for measure in FIGURES for step in steps],
            }
            for curve in curves
        ],
        "pictures": [
            {
                "model": system.model,
                "variant": system.row.get("variant"),
                "film": film(system.rollout_folder / "rollouts.webp"),
                "strips": [
                    {"name": path.stem, **picture(path)} for path in sorted(system.rollout_folder.glob("*.png"))
                ],
            }
            for system, _ in known
        ],
    }


def _curves(known: list[tuple[System, str]]) -> list[Curve]:
    """Return each system's predictions, then the baselines. A baseline that several systems share appears once."""
    curves, others = [], {}
    for system, style in known:
        for what, part in system.rollouts.groupby("what", sort=False):
            table = part.set_index("step_ahead").drop(columns="what")
            if what == OWN:
                curves.append(Curve(system.model, style, table))
            else:
                same = others.setdefault(what, [])
                twin = next((entry for entry in same if entry[1].equals(table)), None)
                if twin:
                    twin[0].append(system.model)
                else:
                    same.append(([system.model], table))
    for number, (what, tables) in enumerate(others.items()):
        for models, table in tables:
            label = what if len(tables) == 1 else f"{what} ({', '.join(models)})"
            curves.append(Curve(label, f"b{number % BASELINES} free", table))
    return curves


def verdict(system: System) -> list[str]:
    """Return sentences that compare a system's PSNR, as printed, with two baselines.

    The baselines are the repeated last frame (first steps) and the mean training frame (number of steps).
    """
    by = {what: part.set_index("step_ahead")["psnr"].round(1) for what, part in system.rollouts.groupby("what")}
    own, still, mean = by[OWN], by[REPEAT], by[MEAN]
    early = [step for step in own.index if step <= EARLY]
    better = [step for step in early if own[step] > still[step]]
    gains = [own[step] - still[step] for step in early]
    name, until_step = f"{system.model} beats repeating the last frame", early[-1]
    if better == early:
        said = f"{name} at steps 1 to {until_step}, by {min(gains):.1f} to {max(gains):.1f} dB"
    elif better:
        said = f"{name} at step {', '.join(map(str, better))} of 1 to {until_step} only"
    else:
        said = f"{name} at none of the steps 1 to {until_step}"
    ahead = (own > mean).cumprod()  # true until the first step at which it is no better
    steps = int(ahead.sum())
    if steps == len(own):
        return [f"{said}. It is closer than the mean training frame at all {steps} steps."]
    behind = own.index[steps]
    least, most = PUBLISHED
    compared = "fewer than" if steps < least else "in agreement with" if steps <= most else "more than"
    return [
        f"{said}. From step {behind} on ({own[behind]:.1f} dB) it is no closer than the mean training frame "
        f"({mean[behind]:.1f} dB), the same picture for every step: by this measure its predictions are good for {steps} "
        f"step{'' if steps == 1 else 's'}, {compared} the {least} to {most} that were published."
    ]


def _cell(table: pd.DataFrame, step: int, measure) -> dict:
    if step not in table.index:
        return {"text": measure.write(None), "value": None, "spread": ""}
    value, spread = table.loc[step, measure.key], table.loc[step, f"{measure.key}_std"]
    return {"text": measure.write(value), "value": value, "spread": measure.write(spread)}


def _chart(measure, curves: list[Curve]) -> dict:
    lines = [(curve.style, curve.table[measure.key]) for curve in curves]
    svg, low, high = charts.quality(lines)
    return {
        "measure": measure,
        "svg": Markup(svg),
        "low": measure.write(low),
        "high": measure.write(high),
        "first": int(min(line.index[0] for _, line in lines)),
        "last": int(max(line.index[-1] for _, line in lines)),
        "curves": [
            (curve.style, curve.label, f"{measure.write(curve.table[measure.key].iloc[0])}{measure.unit} at step 1")
            for curve in curves
        ],
    }
