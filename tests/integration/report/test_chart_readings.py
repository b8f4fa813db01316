"""Charts in the browser: displayed values and axis positions."""

import pytest
from playwright.sync_api import expect

from tests.helpers.report_page import open_all, point_at, press, resize


def test_pointer_shows_rates_and_scores(page):
    rates = page.locator(".chart.rates").first
    point_at(rates.locator(".plot"), 0.5)
    expect(rates.locator(".at")).to_contain_text("12 ")  # the nearest of the rates 1, 12 and 100
    open_all(page)
    scores = page.locator(".chart.steps").first
    point_at(scores.locator(".plot"), 0.5)
    expect(scores.locator(".at")).to_contain_text("score ")


def test_rate_values_zero_none_and_extrapolated(page):
    readings = []
    for chart, key in ((0, "Home"), (0, "ArrowRight"), (0, "End"), (3, "Home")):
        slider = page.locator(".chart.rates").nth(chart).get_by_role("slider")
        press(slider, key)
        place, *values = slider.get_attribute("aria-valuetext").rpartition(": ")[2].split(", ")
        readings.append((place, [value.split(" ") for value in values]))
    models = ("future_frame", "convlstm_ae", "frame_diff")
    assert readings == [
        ("1 · extrapolated", [[model, "0"] for model in models]),
        ("12 · extrapolated for 1 of 3", [[model, "31.5"] for model in models]),
        ("100", [[model, "200"] for model in models]),
        ("1 · extrapolated", [[model, "none"] for model in models]),
    ]


def test_both_axes_have_equal_scale(page):
    chart = page.locator(".chart.rates").first
    place = "spans => spans.map(span => [span.textContent, span.getBoundingClientRect()])"
    middle = {text: box["y"] + box["height"] / 2 for text, box in chart.locator(".yticks span").evaluate_all(place)}
    centre = {text: box["x"] + box["width"] / 2 for text, box in chart.locator(".xticks span").evaluate_all(place)}
    assert list(middle) == ["0", "1", "10", "100"]
    for low, high in (("1", "10"), ("10", "100")):
        assert centre[high] - centre[low] == pytest.approx(middle[low] - middle[high], abs=1)
    plot = chart.locator(".plot").bounding_box()
    assert centre["1"] == pytest.approx(plot["x"], abs=1)
    assert middle["1"] < middle["0"] < plot["y"] + plot["height"]


def test_ticks_align_with_plot(page):
    open_all(page)
    for width in (390, 1200):
        resize(page, width)
        charts = page.locator(".chart:has(.xticks)").evaluate_all(
            """charts => charts.map(chart => [".plot", ".xticks"].map(part => {
                const {left, right} = chart.querySelector(part).getBoundingClientRect();
                return [left, right];
            }))"""
        )
        assert len(charts) >= 10
        for plot, ticks in charts:
            assert ticks == pytest.approx(plot, abs=1), width


def test_histogram_shows_its_last_bar(page):
    open_all(page)
    scores = page.locator(".chart.steps").first
    press(scores.get_by_role("slider"), "End")
    shares = [float(text) for text in scores.locator(".val").all_text_contents()]
    assert len(shares) == 3
    assert shares[2] > 0  # it holds all higher scores


def test_rollout_baselines_look_different(page):
    chart = page.locator(".chart[data-x=step]").first
    looks = chart.locator("svg path.free:not(.dots)").evaluate_all(
        "paths => paths.map(path => { const {stroke, strokeDasharray} = getComputedStyle(path);"
        "return `${stroke} ${strokeDasharray}`; })"
    )
    assert len(looks) == len(set(looks)) == 4
    assert not any(look.startswith("none") for look in looks)
