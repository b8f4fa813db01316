"""Alarm section of the page: operating curves, which show every alarm figure over the target false-alarm rate.

The x axis is the target false-alarm rate, logarithmic, starting at a whole decade. The measured false-alarm rate uses
the same axis, so the diagonal marks measured = target. A rate of 0, which has no logarithm, gets its own row below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.load import System

ZERO = 0.5  # decades between the lowest decade and the row of 0
AIR = (0.15, 0.08)  # margin in decades, below that row and above the highest decade


@dataclass(frozen=True)
class Figure:
    """One figure of ``operating.csv``.

    ``times`` scales it for display and ``unit`` is the unit after that. ``calibrated`` marks the figure that has a
    target, the false-alarm rate.
    """

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
    """Ends of a figure's axis and its ticks as (value on the axis, text), increasing."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def places(self) -> list[tuple[float, str]]:
        """Return the position of each tick, in percent from the top, and its text."""
        return [(round(100 * (self.high - value) / (self.high - self.low), 2), text) for value, text in self.ticks]


def alarms(group: list[System], styles: list[str]) -> dict | None:
    """Return one chart per figure over the target rate, with one curve per system. None without labels."""
    drawn = [chart for figure in FIGURES if (chart := _chart(figure, group, styles)) is not None]
    if not drawn:
        return None
    return {
        "charts": drawn,
        "keys": [(style, system.model) for style, system in zip(styles, group, strict=True)],
    }


def plain(value: float) -> str:
    """Format a figure with three digits and no exponent, such as ``1,500`` or ``0.24``; ``none`` if it is not finite."""
    if not np.isfinite(value):
        return "none"
    decimals = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decades(values: np.ndarray) -> tuple[int, float]:
    """Return the exponents of ten, low and high, that enclose all positive values, at least one decade apart.

    The low exponent is whole; the high one is that of the highest value, or ``low + 1``.
    """
    exponents = np.log10(values[np.isfinite(values) & (values > 0)])
    low = int(np.floor(exponents.min()))
    return low, max(float(exponents.max()), low + 1.0)


def _chart(figure: Figure, group: list[System], styles: list[str]) -> dict | None:
    tables = [system.operating.set_index("target_far_per_hour") for system in group]
    asked = np.unique(np.concatenate([table.index.to_numpy(np.float64) for table in tables]))
    tables = [table.reindex(asked) for table in tables]  # rates at which a system has no row become NaN
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
        "shape": round((high - low) / (axis.high - axis.low), 4),  # aspect ratio that makes all decades equally long
        "across": [(round(at / 10, 2), text) for at, text in upright],
        "upwards": axis.places(),
        "stops": [(round(float(at), 2), plain(rate)) for at, rate in zip(x, asked, strict=True)],
    }


def _true(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return where a column is true. False at rates for which the system has no row."""
    return table[column].eq(True).to_numpy(bool)


def _whole(low: int, high: float) -> range:
    """Return the whole exponents; each gets a tick."""
    return range(low, int(np.floor(high)) + 1)


def _across(rates: np.ndarray | float, low: int, high: float) -> np.ndarray:
    return 1000 * (np.log10(rates) - low) / (high - low)


def _above_zero(values: np.ndarray, low: int) -> np.ndarray:
    """Return the base-10 logarithm of the values. 0 maps to its own row below the lowest decade; NaN stays NaN."""
    with np.errstate(divide="ignore"):
        return np.where(values == 0, low - ZERO, np.log10(values))


def _calibrated(low: int, high: float) -> Axis:
    ticks = [(low - ZERO, "0"), *((float(power), plain(10.0**power)) for power in _whole(low, high))]
    return Axis(low - ZERO - AIR[0], high + AIR[1], ticks)


def _linear(figure: Figure, values: np.ndarray) -> Axis:
    """Axis from 0 to 100 % or to the highest value, with at most five ticks at round figures."""
    top = 100.0 if figure.unit == "%" else float(np.nanmax(values))
    low, high = charts.score_range(np.array([0.0, top]), None)
    if figure.unit == "%":
        step = 50.0
    else:
        power = 10.0 ** np.floor(np.log10(top)) if top > 0 else 1.0
        step = next(step for step in (0.5 * power, power, 2 * power, 5 * power) if top / step <= 4)
    return Axis(low, high, [(at * step, plain(at * step)) for at in range(int(top / step + 1e-9) + 1)])
