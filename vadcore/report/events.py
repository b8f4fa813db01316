"""The page's section on alarms: what one gets at every rate of false alarms that one could ask for.

The rate asked for runs along a logarithmic axis from a whole decade on. The rate that was measured has the same axis, so
that the line on which both are equal is the diagonal, and below them a row of its own for 0, which has no logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.load import System

ZERO = 0.5  # decades between the lowest one and the row of 0
AIR = (0.15, 0.08)  # decades below that row and above the highest one


@dataclass(frozen=True)
class Figure:
    """One figure of ``operating.csv``: ``times`` makes its values what is shown, ``unit`` says what that is;
    ``calibrated`` is the one that was asked for."""

    key: str
    title: str
    unit: str
    times: float = 1.0
    calibrated: bool = False


FIGURES = (
    Figure("false_alarms_per_hour", "False alarms an hour on test footage", "", calibrated=True),
    Figure("detection_rate", "Events found", "%", 100),
    Figure("alarm_precision", "Precision of alarms", "%", 100),
    Figure("detection_delay_seconds", "Delay", "s"),
)


@dataclass(frozen=True)
class Axis:
    """The ends of a figure's axis, and its ticks: (value on the axis, text), rising."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def places(self) -> list[tuple[float, str]]:
        """Where the ticks are, in percent from the top, and their texts."""
        return [(round(100 * (self.high - value) / (self.high - self.low), 2), text) for value, text in self.ticks]


def alarms(group: list[System], styles: list[str]) -> dict | None:
    """Charts of every figure over the asked rate, a curve a system; None without labels, which they all need."""
    drawn = [chart for figure in FIGURES if (chart := _chart(figure, group, styles)) is not None]
    if not drawn:
        return None
    return {
        "charts": drawn,
        "keys": [(style, system.model) for style, system in zip(styles, group, strict=True)],
    }


def plain(value: float) -> str:
    """A figure with three digits and without an exponent, ``1,500`` or ``0.24``; ``none`` where there is none."""
    if not np.isfinite(value):
        return "none"
    decimals = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decades(values: np.ndarray) -> tuple[int, float]:
    """The exponents of ten that all positive values lie between, at least a decade: a whole one, and that of the highest."""
    exponents = np.log10(values[np.isfinite(values) & (values > 0)])
    low = int(np.floor(exponents.min()))
    return low, max(float(exponents.max()), low + 1.0)


def _chart(figure: Figure, group: list[System], styles: list[str]) -> dict | None:
    tables = [system.operating.set_index("target_far_per_hour") for system in group]
    asked = np.unique(np.concatenate([table.index.to_numpy(np.float64) for table in tables]))
    tables = [table.reindex(asked) for table in tables]  # a rate that a system was not asked for has no figures
    measured = [table[figure.key].to_numpy(np.float64) * figure.times for table in tables]
    every = np.concatenate(measured)
    if not np.isfinite(every).any():
        return None
    low, high = decades(np.concatenate((asked, every)) if figure.calibrated else asked)
    axis = _calibrated(low, high) if figure.calibrated else _linear(figure, every)
    x = _across(asked, low, high)
    curves, dots = [], []
    for style, table, values in zip(styles, tables, measured, strict=True):
        y = _above_zero(values, low) if figure.calibrated else values
        curves.append(charts.RateCurve(style, x, y, _true(table, "extrapolated"), [plain(value) for value in values]))
        dots += [(style, x[at], y[at]) for at in np.flatnonzero(_true(table, "chosen") & np.isfinite(y))]
    upright = [(float(_across(10.0**power, low, high)), plain(10.0**power)) for power in _whole(low, high)]
    svg = charts.rates(
        curves,
        (axis.low, axis.high),
        dots,
        ([at for at, _ in upright], [value for value, _ in axis.ticks]),
        (low, high) if figure.calibrated else None,
    )
    return {
        "title": figure.title,
        "unit": figure.unit,
        "svg": Markup(svg),
        "calibrated": figure.calibrated,
        "extrapolated": any(curve.extrapolated.any() for curve in curves),
        "shape": round((high - low) / (axis.high - axis.low), 4),  # width over height that makes all decades equal
        "across": [(round(at / 10, 2), text) for at, text in upright],
        "upwards": axis.places(),
        "stops": [(round(float(at), 2), plain(rate)) for at, rate in zip(x, asked, strict=True)],
    }


def _true(table: pd.DataFrame, column: str) -> np.ndarray:
    """Where a column says so; not at rates that the system was not asked for."""
    return table[column].eq(True).to_numpy(bool)


def _whole(low: int, high: float) -> range:
    """The exponents that are whole, which get a tick each."""
    return range(low, int(np.floor(high)) + 1)


def _across(rates: np.ndarray | float, low: int, high: float) -> np.ndarray:
    return 1000 * (np.log10(rates) - low) / (high - low)


def _above_zero(values: np.ndarray, low: int) -> np.ndarray:
    """Logarithms of the values, those of 0 on their own row below the lowest decade; NaN stays."""
    with np.errstate(divide="ignore"):
        return np.where(values == 0, low - ZERO, np.log10(values))


def _calibrated(low: int, high: float) -> Axis:
    ticks = [(low - ZERO, "0"), *((float(power), plain(10.0**power)) for power in _whole(low, high))]
    return Axis(low - ZERO - AIR[0], high + AIR[1], ticks)


def _linear(figure: Figure, values: np.ndarray) -> Axis:
    """From 0 to 100 % or to the highest value, with at most five ticks at round figures."""
    top = 100.0 if figure.unit == "%" else float(np.nanmax(values))
    low, high = charts.score_range(np.array([0.0, top]), None)
    if figure.unit == "%":
        step = 50.0
    else:
        power = 10.0 ** np.floor(np.log10(top)) if top > 0 else 1.0
        step = next(step for step in (0.5 * power, power, 2 * power, 5 * power) if top / step <= 4)
    return Axis(low, high, [(at * step, plain(at * step)) for at in range(int(top / step + 1e-9) + 1)])
