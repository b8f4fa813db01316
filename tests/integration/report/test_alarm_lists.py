"""Alarm lists in the browser: true and false alarms, jumps and hidden systems."""

import pandas as pd
from playwright.sync_api import expect

from tests.helpers.report_page import eventually, shown_frame
from tests.integration.report.conftest import DATASET, MODELS


def test_list_marks_true_and_false_alarms(page, report):
    frames = pd.read_parquet(report.parents[1] / "scores" / DATASET / "future_frame" / "frames.parquet")
    assert (frames.groupby("clip")["label"].sum() > 0).tolist() == [True, False, True, False]
    normal = page.locator("#d1c2")
    normal.locator(".alarms summary").click()
    expect(normal.locator(".raised b").first).to_be_visible()
    assert set(normal.locator(".raised b").all_text_contents()) == {"false alarm"}
    abnormal = page.locator("#d1c1")
    abnormal.locator(".alarms summary").click()
    within = abnormal.locator(".raised li", has_text="true alarm").first
    expect(within).to_be_visible()
    assert 30 <= int(within.get_attribute("data-frame")) <= 69


def test_click_jumps_to_alarm_peak(page, clip):
    clip.locator(".alarms summary").click()
    alarm = clip.locator(".alarms .raised li").last
    peak, system = int(alarm.get_attribute("data-frame")), int(alarm.get_attribute("data-system"))
    alarm.get_by_role("button").click()
    expect(clip.locator(".at")).to_contain_text(f"frame {peak} ")
    expect(clip.locator("select")).to_have_value(MODELS[system])

    def near():
        assert abs(shown_frame(clip) - peak) <= 5

    eventually(page, near)


def test_switch_hides_curves_and_alarms(page, clip):
    summary, switch = clip.locator(".alarms summary"), page.locator(".chip.s0")
    summary.click()
    alarms = clip.locator(".alarms li.s0")
    expect(alarms.first).to_be_visible()
    switch.click()
    expect(clip.locator(".lane.s0")).to_be_hidden()
    expect(alarms.first).to_be_hidden()
    expect(clip.locator("option.s0")).to_have_css("display", "none")
    expect(clip.locator("option.s1")).not_to_have_css("display", "none")
    expect(clip.locator(".lane.s1")).to_be_visible()
    expect(summary).to_contain_text(f"{alarms.count()} hidden")
    switch.click()
    expect(summary).not_to_contain_text("hidden")
