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
    bottom, top, written = _axis(figure, found)
    return {
        "title": figure.title,
        "unit": figure.unit,
        "svg": Markup(charts.rates(curves, bottom, top, dots, diagonal)),
        "logarithmic": figure.logarithmic,
        "low": significant(written[0], 2),
        "high": significant(written[1], 2),
    }


def _axis(figure: Figure, values: np.ndarray) -> tuple[float, float, tuple[float, float]]:
    """The lower and the upper end of the axis, and the figures that are written at them."""
    if figure.unit == "%":
        return *charts.score_range(np.array([0.0, 100.0]), None), (0.0, 100.0)
    low, high = charts.score_range(values, None)
    return low, high, (10**low, 10**high) if figure.logarithmic else (max(low, 0.0), high)
