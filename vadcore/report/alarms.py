"""The page's section on alarms: what one gets at every rate of false alarms that one could ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.columns import significant
from vadcore.report.load import System


@dataclass(frozen=True)
class Figure:
    """One figure of ``operating.csv``: ``times`` makes its values what is shown, ``unit`` says what that is."""

    key: str
    title: str
    unit: str
    times: float = 1.0
    logarithmic: bool = False


FIGURES = (
    Figure("false_alarms_per_hour", "False alarms an hour on test footage", "", logarithmic=True),
    Figure("detection_rate", "Events found", "%", 100),
    Figure("alarm_precision", "Precision of alarms", "%", 100),
    Figure("detection_delay_seconds", "Delay", "s"),
)


def alarms(group: list[System], styles: list[str]) -> dict | None:
    """Charts of every figure over the asked rate, a curve a system; None without labels, which they all need."""
    drawn = [chart for figure in FIGURES if (chart := _chart(figure, group, styles)) is not None]
    if not drawn:
        return None
    low, high = _ends(group)
    return {
        "charts": drawn,
        "from": np.log10(low),
        "to": np.log10(high),
        "low": significant(low),
        "high": f"{high:,.0f}",
        "keys": [(style, system.model) for style, system in zip(styles, group, strict=True)],
    }


def _ends(group: list[System]) -> tuple[float, float]:
    asked = np.concatenate([system.operating["asked_per_hour"].to_numpy(np.float64) for system in group])
    return float(asked.min()), float(asked.max())


def _chart(figure: Figure, group: list[System], styles: list[str]) -> dict | None:
    low, high = _ends(group)
    axis = np.log10 if figure.logarithmic else np.asarray
    curves, dots = [], []
    for style, system in zip(styles, group, strict=True):
        table = system.operating
        values = table[figure.key].to_numpy(np.float64) * figure.times
        values = np.where(values > 0, values, np.nan) if figure.logarithmic else values  # none: nothing to draw
        x = 1000 * np.log10(table["asked_per_hour"].to_numpy(np.float64) / low) / np.log10(high / low)
        y = axis(values)
        curves.append((style, x, y))
        dots += [(style, x[at], y[at]) for at in np.flatnonzero(table["chosen"] & np.isfinite(y))]
    found = np.concatenate([y for _, _, y in curves])
    if not np.isfinite(found).any():
        return None
    diagonal = (float(np.log10(low)), float(np.log10(high))) if figure.logarithmic else None
    if figure.unit == "%":
        bottom, top = charts.score_range(np.array([0.0, 100.0]), None)
    else:
        bottom, top = charts.score_range(found, None)
    shown = (
        (10**bottom, 10**top)
        if figure.logarithmic
        else (max(bottom, 0.0), min(top, 100.0 if figure.unit == "%" else top))
    )
    return {
        "title": figure.title,
        "unit": figure.unit,
        "svg": Markup(charts.rates(curves, bottom, top, dots, diagonal)),
        "logarithmic": figure.logarithmic,
        "low": significant(shown[0], 2),
        "high": significant(shown[1], 2),
    }
