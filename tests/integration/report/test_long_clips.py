"""Reports of long clips, many clips and partly labelled clips, in the browser."""

import re

import pandas as pd
import pytest
from playwright.sync_api import expect

from tests.helpers.report_data import THRESHOLD, build, write_system
from tests.helpers.report_page import as_read, press
from tests.integration.report.conftest import MODELS
from vadcore.report import charts

FRAMES, UNLABELLED = 3000, range(400, 501)
READ_ALL = """area => {
    const chart = area.closest(".chart"), value = chart.querySelector(".lane .val"), readings = [];
    const press = key => area.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    for (press("Home"); ; press("ArrowRight")) {
        readings.push([chart.querySelector(".at").textContent, value.textContent, value.classList.contains("over")]);
        if (area.getAttribute("aria-valuenow") === area.getAttribute("aria-valuemax")) return readings;
    }
}"""

CLICK_ALL = """alarms => alarms.map(alarm => {
    alarm.querySelector("button").click();
    const value = alarm.closest(".chart").querySelector(".lane .val");
    return [value.textContent, value.classList.contains("over")];
})"""


@pytest.fixture(scope="module")
def report(chromium, tmp_path_factory):
    """``index.html`` of one system on clips with more frames than a curve has points."""
    assert FRAMES > 2 * charts.BUCKETS
    root = tmp_path_factory.mktemp("long")
    write_system(root, "campus", "convlstm_ae", clips=2, frames=FRAMES, unlabelled=UNLABELLED)
    build(root, ["campus"], ["convlstm_ae"])
    return root / "reports" / "index.html"


@pytest.fixture
def page(visit, report):
    return visit(report)


def _scores(report, model="convlstm_ae"):
    """Scores by clip and frame."""
    file = report.parents[1] / "scores/campus" / model / "frames.parquet"
    return pd.read_parquet(file).set_index(["clip", "frame"])["score"]


def test_score_label_and_colour_per_frame(page, report):
    card = page.locator("#d1c1")
    scores = _scores(report)[card.locator("h4").text_content()]
    readings = card.get_by_role("slider").evaluate(READ_ALL)
    assert len(readings) == FRAMES
    labels = {}
    for frame, (said, value, over) in enumerate(readings):
        assert said.startswith(f"frame {frame} ")
        assert (value, over) == (as_read(scores[frame]), bool(scores[frame] >= THRESHOLD)), frame
        labels.setdefault(said.split(" · ")[-1], []).append(frame)
    assert {over for *_, over in readings} == {True, False}
    assert labels["no label"] == list(UNLABELLED)
    assert labels["abnormal"] == list(range(40, 70))
    assert len(labels) == 3


def test_alarms_show_peak_score(page, report):
    card = page.locator("#d1c1")
    events = pd.read_csv(report.parents[1] / "scores/campus/convlstm_ae/events.csv", dtype={"clip": str})
    events = events[events["clip"] == card.locator("h4").text_content()].set_index("peak_frame")
    card.locator(".alarms summary").click()
    alarms = card.locator(".raised li")
    peaks = [int(number) for number in alarms.evaluate_all("alarms => alarms.map(alarm => alarm.dataset.frame)")]
    assert len(peaks) == len(events) > 10
    expected = [[as_read(events.loc[peak, "peak_score"]), True] for peak in peaks]
    assert alarms.evaluate_all(CLICK_ALL) == expected
    alarms.first.get_by_role("button").click()
    expect(card.locator(".lane .val")).to_have_text(expected[0][0])


def test_page_of_a_hundred_clips(visit, tmp_path):
    for model in MODELS:
        write_system(tmp_path, "campus", model, clips=100, frames=1000)
    text = build(tmp_path, ["campus"], MODELS)
    assert text.count('<article class="clip') == 100
    assert len(re.sub(r'src="data:[^"]*"', "", text).encode()) < 4_000_000
    report = tmp_path / "reports" / "index.html"
    page = visit(report)
    page.locator(".index a").last.click()
    last = page.locator("#d1c100")
    expect(last).to_be_in_viewport()
    press(last.get_by_role("slider"), "End")
    end = (last.locator("h4").text_content(), 999)
    expect(last.locator(".lane .val")).to_have_text([as_read(_scores(report, model)[end]) for model in MODELS])


def test_merged_frames_show_highest_score(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "frames_per_score", lambda scores: 7)
    write_system(tmp_path, "campus", "frame_diff", clips=1, frames=1000)
    build(tmp_path, ["campus"], ["frame_diff"])
    report = tmp_path / "reports" / "index.html"
    scores, card = _scores(report, "frame_diff")["01"], visit(report).locator("#d1c1")
    value, said = card.locator(".lane .val"), card.locator(".at")
    for keys, frames in ((["Home", *["ArrowRight"] * 9], range(63, 70)), (["End"], range(994, 1000))):
        press(card.get_by_role("slider"), *keys)
        expect(said).to_contain_text(f"frames {frames[0]}–{frames[-1]}")
        highest = scores.loc[list(frames)].max()
        expect(value).to_have_text(as_read(highest))
        assert ("over" in value.get_attribute("class").split()) == (highest >= THRESHOLD)
