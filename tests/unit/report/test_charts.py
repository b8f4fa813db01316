"""Curves, axes, figures and colours of the report's charts."""

import base64
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from tests.helpers.report_data import SAME, axis, curve_points, write_system
from vadcore.report import charts
from vadcore.report.events import decades, operating_curves
from vadcore.report.load import load_system
from vadcore.report.page import loss_charts, render_page


def test_thinning_keeps_peaks():
    y = np.random.default_rng(0).standard_normal(10_000)
    y[[1234, 7777]] = 50, -50
    kept = charts.thin(np.arange(10_000), y, buckets=100)
    assert len(kept) <= 2 * 100 + 2
    assert {0, 1234, 7777, 9999} <= set(kept.tolist())
    for start in range(0, 10_000, 100):
        part = y[start : start + 100]
        assert {start + part.argmax(), start + part.argmin()} <= set(kept.tolist())


def test_path_breaks_at_missing_scores():
    # low 0, high 10: y = 1000 - 100 * score
    d = charts.path(np.arange(7), np.array([1, 2, np.nan, 5, np.nan, 0, 10.0]), 0, 10)
    assert d == "M0 900l1-100M3 500l0 0M5 1000l1-1000"


def test_level_stretches_are_thinned():
    assert charts.path(np.arange(6), np.array([5, 5, 5, 5, 10, 10.0]), 0, 10) == "M0 500l3 0 1-500 1 0"


def test_histogram_starts_at_base_line():
    svg, top = charts.steps({"h0": np.array([1.0, 4.0])}, None)
    assert top == 4
    assert re.search(' d="(.*?)"', svg)[1] == "M0 1000l0-250 500 0 0-750 500 0 0 1000"


def test_operating_point_at_the_threshold():
    curve = pd.DataFrame({"fpr": [0, 0, 0.5, 1], "tpr": [0, 0.5, 0.75, 1], "threshold": [np.inf, 3, 2, 1]})
    assert charts.operating_point(curve, 2) == (0.5, 0.75)
    assert charts.operating_point(curve, 2.5) == (0, 0.5)


def test_score_axis_includes_the_threshold():
    low, high = charts.score_range(np.array([1.0, np.nan, 3.0]), 5.0)
    assert (low, high) == pytest.approx((1 - 0.16, 5 + 0.16))  # 4 % of 4 at both ends
    assert charts.score_range(np.array([2.0, 2.0]), None) == (1.5, 2.5)
    assert charts.score_range(np.array([np.nan]), None) == (0, 1)


def test_extrapolated_part_is_a_separate_path():
    curve = charts.RateCurve(
        "s0",
        np.array([0.0, 250, 500, 1000]),
        np.array([np.nan, 0, 5, 10]),
        np.array([True, True, False, False]),
        ["none", "0", "5", "10"],
    )
    svg = charts.rates([curve], (0, 10), [], ([0, 1000], [0, 10]))
    assert '<path class="s0" d="M500 500l500-500" data-read="none|0|5|10" data-extrapolated="1100"/>' in svg
    assert '<path class="extra s0" d="M250 1000l250-500"/>' in svg
    assert '<path class="grid" d="M0 0V1000M1000 0V1000M0 1000H1000M0 0H1000"/>' in svg


def test_decades_start_at_a_whole_power():
    assert decades(np.array([0, 1, 7000, np.nan])) == (0, pytest.approx(np.log10(7000)))
    assert decades(np.array([0.3, 100])) == (-1, 2)
    assert decades(np.array([10.0])) == (1, 2)


class TestRateCharts:
    """Measured rates over the requested rate."""

    ASKED = (1.0, 12.0, 100.0, 7000.0)

    def charts(self, folder, measured, extrapolated=(True, True, False, False)):
        write_system(folder, "street", "future_frame")
        file = folder / "scores" / "street" / "future_frame" / "operating.csv"
        table = {"target_far_per_hour": self.ASKED, "extrapolated": extrapolated, "chosen": [False, True, False, False]}
        table |= {"false_alarms_per_hour": measured, "detection_rate": [0, 0.5, 1, 1]}
        table |= {"alarm_precision": [np.nan, 1, 0.5, 0.25], "detection_delay_seconds": [np.nan, 0, 2.5, 0.2]}
        pd.DataFrame(table).to_csv(file, index=False)
        return operating_curves([load_system(folder / "scores", folder / "models", "street", "future_frame")])

    def test_zero_rate_has_its_own_row(self, tmp_path):
        chart = self.charts(tmp_path, [0, 0, 31.5, 400])[0]
        low, high = axis(chart["svg"])
        guessed, known = curve_points(chart["svg"], "extra s0"), curve_points(chart["svg"], "s0")
        across = [round(1000 * np.log10(rate) / np.log10(7000)) for rate in self.ASKED]
        assert [x for x, _ in guessed] == across[:3]
        assert [x for x, _ in known] == across[2:] == [across[2], 1000]
        ticks = {text: at for at, text in chart["upwards"]}
        assert list(ticks) == ["0", "1", "10", "100", "1,000"]
        assert [text for _, text in chart["across"]] == ["1", "10", "100", "1,000"]
        columns = np.diff([at for at, _ in chart["across"]])
        assert columns == pytest.approx(np.full(3, 100 / np.log10(7000)), abs=0.02)
        for _, y in guessed[:2]:
            assert y / 10 == pytest.approx(ticks["0"], abs=0.06)
        for (_, y), value in zip(known, (31.5, 400), strict=True):
            assert high - y / 1000 * (high - low) == pytest.approx(np.log10(value), abs=(high - low) / 1000)
        rows = np.diff([ticks[text] for text in ("1", "10", "100", "1,000")])
        assert rows == pytest.approx(np.full(3, rows[0]), abs=0.02)
        assert chart["shape"] == pytest.approx(-rows[0] / columns[0], abs=0.001)  # as wide as they are high

    def test_diagonal_is_where_rates_are_equal(self, tmp_path):
        chart = self.charts(tmp_path, [0, 0, 31.5, 400])[0]
        start, end = re.search(r'class="chance" d="M0 (\d+)L1000 (\d+)"', chart["svg"]).groups()
        ticks = {text: at for at, text in chart["upwards"]}
        highest = ticks["1"] + np.log10(7000) * (ticks["10"] - ticks["1"])
        assert (int(start) / 10, int(end) / 10) == pytest.approx((ticks["1"], highest), abs=0.1)

    def test_no_false_alarm_reads_zero(self, tmp_path):
        chart = self.charts(tmp_path, [0, 0, 0, 0])[0]
        assert 'data-read="0|0|0|0"' in chart["svg"]
        assert len({y for _, y in curve_points(chart["svg"], "s0")}) == 1

    def test_percent_axes_and_undefined_values(self, tmp_path):
        charts_drawn = self.charts(tmp_path, [0, 0, 31.5, 400])
        for chart in charts_drawn[1:3]:
            assert [text for _, text in chart["upwards"]] == ["0", "50", "100"]
        assert 'data-read="none|100|50|25"' in charts_drawn[2]["svg"]
        assert [text for _, text in charts_drawn[3]["upwards"]] == ["0", "1", "2"]
        assert 'data-read="none|0|2.5|0.2"' in charts_drawn[3]["svg"]

    def test_no_mark_without_extrapolation(self, tmp_path):
        for chart in self.charts(tmp_path, [0, 0, 31.5, 400], [False] * 4):
            assert not chart["extrapolated"]
            assert "extra" not in re.sub("data-extrapolated", "", chart["svg"])


def test_loss_chart_leaves_out_other_columns(tmp_path):
    write_system(tmp_path, "street", "future_frame")
    file = tmp_path / "models" / "street" / "future_frame" / "history.csv"
    file.write_text(  # the columns that training writes
        "phase,iteration,loss,discriminator,adversarial,intensity,gradient,flow,val,psnr,ssim,sharpness,step\n"
        "future_frame,10,8.4,0.24,0.12,0.08,0.17,4.1,,,,,10\n"
        "future_frame,20,7.1,0.25,0.12,0.07,0.16,3.4,0.0028,25.6,0.796,0.99,20\n"
    )
    system = load_system(tmp_path / "scores", tmp_path / "models", "street", "future_frame")
    ((_, chart),) = loss_charts(system)
    assert [curve.name for curve in chart["curves"]] == [
        *("loss", "discriminator", "adversarial", "intensity", "gradient", "flow"),
        "held-out normal clips",
    ]
    assert chart["logarithmic"]
    assert chart["low"] < 0.0028 < 8.4 < chart["high"]
    assert chart["svg"].count("<path") == 7


@pytest.fixture(scope="module")
def css(tmp_path_factory):
    """The style sheet of a page of 32 systems."""
    root = tmp_path_factory.mktemp("many")
    write_system(root, "street", "frame_diff", clips=1, frames=80)
    system = load_system(root / "scores", root / "models", "street", "frame_diff")
    systems = [replace(system, model=f"gru_ae-{number:02d}", number=number) for number in range(32)]
    page = render_page({"street": systems}, SAME, "", {}, {}, "Many systems")
    return page[page.index("<style>") : page.index("</style>")]


class TestStyles:
    """Colours and dashes of up to 32 systems."""

    def palettes(self, css):
        """The colours of the light and of the dark scheme, by name."""
        light, dark = (
            dict(re.findall(r"--(\w+):(#\w+)", block)) for block in re.findall(r":root\{(.*?)\}", css, re.DOTALL)
        )
        return light, dark

    def styles(self, css):
        """Colour's name, dashes and the rest of every system."""
        return [
            (re.search(r"--c:var\(--(p\d+)\)", rule)[1], tuple(re.findall(r"--(?!c:)[\w-]+:[^;]+", rule)))
            for rule in re.findall(r"^\.s\d+\{(.*)\}$", css, re.MULTILINE)
        ]

    def test_first_16_colours_differ(self, css):
        first = [colour for colour, _ in self.styles(css)[:16]]
        for palette in self.palettes(css):
            assert len({palette[colour] for colour in first}) == 16

    def test_first_32_styles_differ(self, css):
        styles = self.styles(css)
        assert len(styles) == len(set(styles)) == 32
        dashes = {dash for _, rest in styles for dash in rest if dash.startswith("--dash")}
        assert dashes == {"--dash:11 3 2 3"}
        assert "stroke-dasharray:var(--dash,none)" in css

    def test_colours_have_contrast(self, css):
        for palette in self.palettes(css):
            for colour, _ in self.styles(css)[:16]:
                assert contrast(palette[colour], palette["bg"]) >= 4.5  # names of systems are written in it
                assert contrast(palette[colour], palette["panel"]) >= 3

    def test_colours_differ_clearly(self, css):
        for palette in self.palettes(css):
            colours = [palette[colour] for colour, _ in self.styles(css)[:16]]
            for one, other in combinations(colours, 2):
                assert np.abs(levels(one) - levels(other)).max() > 0.15, (one, other)


def levels(colour):
    """Red, green and blue in 0..1 of ``#rgb`` or ``#rrggbb``."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])


def contrast(one, other):
    """The ratio of WCAG 2: from 1 to 21."""
    linear = [
        np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) for rgb in (levels(one), levels(other))
    ]
    low, high = sorted(rgb @ [0.2126, 0.7152, 0.0722] for rgb in linear)
    return (high + 0.05) / (low + 0.05)


def test_timeline_of_a_varying_rate():
    """The axis is time: 5 frames at 5 a second, then 25 a second, then a pause, where the curve is interrupted."""
    seconds = np.concatenate((np.arange(5) / 5, 1 + np.arange(10) / 25, [61, 61.04]))
    frames = pd.DataFrame(
        {"clip": "a", "frame": range(17), "fps": 25.0, "score": 1.0, "label": 0.0, "seconds": seconds}
    )
    frames.loc[5:14, "label"] = 1
    events = pd.DataFrame({"start_frame": [3], "end_frame": [6]})
    svg = str(charts.timeline(frames, events, None, 0, 2))
    assert 'viewBox="-0.5 0 1527 1000"' in svg
    assert '<rect class="truth" x="24.5" y="0" width="10"' in svg
    assert '<rect class="alarm" x="14.5" y="930" width="12"' in svg
    assert svg.count("M") == 2
    assert charts.duration(frames) == pytest.approx(61.08)
    positions = np.frombuffer(base64.b64decode(charts.pack_times(frames, 5)), "<i4")
    assert positions.tolist() == [0, 25, 30, 1525]
    assert charts.pack_times(frames.drop(columns="seconds"), 5) is None
