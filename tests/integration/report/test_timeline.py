"""Timelines of the report in the browser: pointer, touch and keyboard."""

import pytest
from playwright.sync_api import expect

from tests.helpers.report_page import LONG_ENOUGH, caption, eventually, grey_level, plot, point_at, press, shown_frame
from tests.integration.report.conftest import MODELS


def test_pointer_shows_frame_prediction_and_error(page, clip):
    errors = []
    for across in (0.1, 0.4, 0.8):
        point_at(plot(clip, 0), across)
        eventually(page, lambda across=across: _shows(clip, across))
        errors.append(grey_level(clip, "error"))
    assert errors == sorted(errors)
    assert errors[2] > errors[0] + 20


def _shows(clip, across: float) -> None:
    frame = shown_frame(clip)
    assert abs(frame - across * 120) <= 6  # every tenth frame has pictures
    assert grey_level(clip, "frame") == pytest.approx(2 * frame, abs=4)
    assert grey_level(clip, "reconstruction") == pytest.approx(frame, abs=4)


def test_pointer_shows_label(page, clip):
    said = clip.locator(".at")
    for across, label in ((0.5, "abnormal"), (0.1, "normal")):
        point_at(plot(clip, 0), across)
        eventually(page, lambda label=label: _says(said, f" · {label}"))
    page.mouse.move(1, 1)
    expect(said).to_have_text("abnormal 40–69")


def _says(element, end: str) -> None:
    assert element.text_content().endswith(end)


def test_pictures_follow_pointed_system(clip):
    for system in (1, 2):
        point_at(plot(clip, system), 0.5)
        expect(clip.locator("select")).to_have_value(MODELS[system])
    expect(clip.locator(".tile[data-kind=reconstruction]")).to_be_hidden()  # frame_diff draws no frames
    expect(clip.locator(".tile[data-kind=error]")).to_be_visible()


def test_keyboard_moves_along_timeline(clip):
    slider = clip.get_by_role("slider")
    press(slider, "End", *["ArrowLeft"] * 9)
    spoken = slider.get_attribute("aria-valuetext")
    assert spoken.startswith("frame 110 ")
    assert all(model in spoken for model in MODELS)
    press(slider, "End")
    expect(clip.locator(".at")).to_contain_text("frame 119 ")
    expect(caption(clip)).to_have_text("frame 115, the nearest that has a picture")
    press(slider, *["ArrowLeft"] * 4)
    expect(clip.locator(".at")).to_contain_text("frame 115 ")
    expect(caption(clip)).to_have_text("frame 115")
    press(slider, "ArrowLeft")
    expect(caption(clip)).to_have_text("frame 115, the nearest that has a picture")
    slider.blur()
    expect(caption(clip)).to_have_text("frame 115")


def test_touch_reading_stays_until_next_touch(chromium, report):
    with chromium.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844}) as context:
        context.set_default_timeout(1000 * LONG_ENOUGH)
        page = context.new_page()
        page.goto(report.as_uri())
        first, second = page.locator("#d1c1"), page.locator("#d1c2")
        resting = first.locator(".at").text_content()
        plot(first, 0).tap(position={"x": 150, "y": 20})
        expect(first.locator(".at")).to_contain_text("frame ")
        expect(first.locator(".cross").first).to_be_visible()
        plot(second, 0).tap(position={"x": 200, "y": 20})
        expect(second.locator(".at")).to_contain_text("frame ")
        expect(first.locator(".at")).to_have_text(resting)


def test_touch_scrolling_clears_reading(clip):
    said = clip.locator(".at")
    resting = said.text_content()
    plot(clip, 0).hover()
    expect(said).not_to_have_text(resting)
    clip.get_by_role("slider").dispatch_event("pointercancel")
    expect(said).to_have_text(resting)


def test_hidden_system_shows_no_pictures(page, clip):
    select = clip.locator("select")
    select.select_option("convlstm_ae")
    page.locator(".chip.s1").click()
    expect(select).to_have_value("future_frame")
    page.locator(".chip.s0").click()
    expect(select).to_have_value("frame_diff")
    page.locator(".chip.s0").click()
    expect(select).to_have_value("frame_diff")  # a choice stays selected while its system is visible
