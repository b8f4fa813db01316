"""The report as a person meets it, in a real browser: pointing, pressing keys, clicking, on a desk and on a phone."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.helpers.report_data import RUN, build, write_system

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
MODELS = ["future_frame", "convlstm_ae", "frame_diff"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for model in MODELS:
        write_system(root, "street", model, check_points=(100, 200))
        operating = root / "scores" / "street" / model / "operating.csv"
        pd.read_csv(operating).assign(extrapolated=[True, model == "frame_diff", False]).to_csv(operating, index=False)
        metrics = root / "scores" / "street" / model / "metrics.json"
        figures = {"eer": (0.2, 0.1, 0.3), "ap": (0.7, 0.6, 0.8)}
        row = {key: values[MODELS.index(model)] for key, values in figures.items()}
        metrics.write_text(json.dumps(json.loads(metrics.read_text()) | row))
    build(root, ["street"], MODELS)
    return root / "reports" / "index.html"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, file):
    page = chromium.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def clip(page):
    """The card of the first clip, whose frames 40 to 69 are abnormal."""
    return page.locator("#d1c1")


def point_at(element, across: float) -> None:
    """Move the pointer over an element, ``across`` its width."""
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    element.hover(position={"x": across * box["width"], "y": box["height"] / 2})


def plot(clip, system: int):
    return clip.locator(".lane .plot").nth(system)


def shown_frame(clip) -> int:
    return int(clip.locator(".tiles figcaption").first.inner_text().removeprefix("frame ").split(",")[0])


def grey_of(clip, kind: str) -> float:
    """The mean level of a picture as it appears on the screen."""
    picture = clip.locator(f".tile[data-kind={kind}]").screenshot()
    levels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
    return float(levels[6:-6, 6:-6].mean())  # round corners


def test_moving_along_a_timeline_shows_the_frame_its_prediction_and_its_error(clip):
    errors = []
    for across in (0.1, 0.4, 0.8):
        point_at(plot(clip, 0), across)
        frame = shown_frame(clip)
        assert abs(frame - across * 120) <= 6  # pictures of every tenth frame
        assert grey_of(clip, "frame") == pytest.approx(2 * frame, abs=4)
        assert grey_of(clip, "shown") == pytest.approx(frame, abs=4)
        errors.append(grey_of(clip, "error"))
    assert errors == sorted(errors)
    assert errors[2] > errors[0] + 20


def test_the_line_above_says_which_frame_and_what_the_labels_say(page, clip):
    said = clip.locator(".at")
    point_at(plot(clip, 0), 0.5)
    assert said.inner_text().endswith("abnormal")
    point_at(plot(clip, 0), 0.1)
    assert said.inner_text().endswith(" normal")
    page.mouse.move(1, 1)
    assert said.inner_text() == "abnormal 40–69"


def test_the_pictures_are_those_of_the_system_that_one_points_at(clip):
    point_at(plot(clip, 1), 0.5)
    assert clip.locator("select").input_value() == "convlstm_ae"
    point_at(plot(clip, 2), 0.5)
    assert clip.locator("select").input_value() == "frame_diff"
    assert not clip.locator(".tile[data-kind=shown]").is_visible()  # it draws no frames
    assert clip.locator(".tile[data-kind=error]").is_visible()


def test_the_keyboard_moves_along_a_timeline(page, clip):
    slider = clip.get_by_role("slider")
    slider.focus()
    page.keyboard.press("End")
    assert clip.locator(".at").inner_text().startswith("frame 119")
    assert shown_frame(clip) == 115
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    spoken = slider.get_attribute("aria-valuetext")
    assert spoken.startswith("frame 110 ")
    assert all(model in spoken for model in MODELS)


def test_what_a_finger_has_touched_stays_until_it_touches_something_else(chromium, file):
    context = chromium.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(file.as_uri())
    first, second = page.locator("#d1c1"), page.locator("#d1c2")
    resting = first.locator(".at").text_content()
    first.scroll_into_view_if_needed()
    plot(first, 0).tap(position={"x": 150, "y": 20})
    assert first.locator(".at").inner_text().startswith("frame ")
    assert first.locator(".cross").first.is_visible()
    plot(second, 0).tap(position={"x": 200, "y": 20})
    assert second.locator(".at").inner_text().startswith("frame ")
    assert first.locator(".at").text_content() == resting
    context.close()


def test_a_finger_that_scrolls_the_page_leaves_no_reading(page, clip):
    area = clip.get_by_role("slider")
    resting = clip.locator(".at").text_content()
    plot(clip, 0).hover()
    assert clip.locator(".at").text_content() != resting
    area.dispatch_event("pointercancel")
    assert clip.locator(".at").text_content() == resting


def test_the_list_of_a_clip_says_what_is_true_and_what_was_missed(page, file):
    frames = pd.read_parquet(file.parents[1] / "scores/street/future_frame/frames.parquet")
    assert (frames.groupby("clip")["label"].sum() > 0).tolist() == [True, False, True, False]
    normal = page.locator("#d1c2")
    normal.locator(".alarms summary").click()
    assert set(normal.locator(".raised b").all_inner_texts()) == {"false alarm"}
    abnormal = page.locator("#d1c1")
    abnormal.locator(".alarms summary").click()
    assert "true alarm" in abnormal.locator(".raised b").all_inner_texts()
    within = abnormal.locator(".raised li", has_text="true alarm").first
    assert 30 <= int(within.get_attribute("data-frame")) <= 69


def test_an_alarm_is_listed_and_a_click_jumps_to_its_peak(clip):
    clip.locator(".alarms summary").click()
    alarm = clip.locator(".alarms .raised li").last
    peak, system = int(alarm.get_attribute("data-frame")), int(alarm.get_attribute("data-system"))
    alarm.get_by_role("button").click()
    assert clip.locator(".at").inner_text().startswith(f"frame {peak} ")
    assert abs(shown_frame(clip) - peak) <= 5
    assert clip.locator("select").input_value() == MODELS[system]


def test_hiding_a_system_hides_its_curves_and_alarms(page, clip):
    clip.locator(".alarms summary").click()
    assert clip.locator(".alarms li.s0").first.is_visible()
    page.locator(".chip.s0").click()
    assert not clip.locator(".lane.s0").is_visible()
    assert not clip.locator(".alarms li.s0").first.is_visible()
    assert clip.locator("option.s0").evaluate("option => getComputedStyle(option).display") == "none"
    assert clip.locator("option.s1").evaluate("option => getComputedStyle(option).display") != "none"
    assert clip.locator(".lane.s1").is_visible()
    summary = clip.locator(".alarms summary")
    assert f"{clip.locator('.alarms li.s0').count()} hidden with their systems" in summary.inner_text()
    page.locator(".chip.s0").click()
    assert "hidden" not in summary.inner_text()


def test_the_pictures_are_never_those_of_a_hidden_system(page, clip):
    clip.locator("select").select_option("convlstm_ae")
    page.locator(".chip.s1").click()
    assert clip.locator("select").input_value() == "future_frame"
    page.locator(".chip.s0").click()
    assert clip.locator("select").input_value() == "frame_diff"
    page.locator(".chip.s0").click()
    assert clip.locator("select").input_value() == "frame_diff"  # one's choice, while it can be seen


def test_a_heading_sorts_the_table(page):
    column = "cells => cells.map(cell => Number(cell.dataset.v))"
    heading = page.locator("table.results thead tr:last-child th:nth-child(2) button")
    heading.click()
    falling = page.locator("table.results tbody td:nth-child(2)").evaluate_all(column)
    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) > 1
    heading.click()
    assert page.locator("table.results tbody td:nth-child(2)").evaluate_all(column) == falling[::-1]
    heading.click()
    assert page.locator("table.results tbody th").all_inner_texts()[0].startswith(MODELS[0])  # as it was


def test_a_heading_is_called_by_its_text_alone(page):
    assert page.get_by_role("button", name="EER %", exact=True).count() == 1


@pytest.mark.parametrize(("title", "low_first"), [("EER", True), ("AP", False)])
def test_the_first_click_brings_the_best_to_the_top(page, title, low_first):
    heading = page.locator("table.results thead th", has_text=title).first
    heading.get_by_role("button").click()
    column = heading.evaluate("cell => cell.cellIndex")
    values = page.locator("table.results tbody tr").evaluate_all(
        "(rows, column) => rows.map(row => Number(row.cells[column].dataset.v))", column
    )
    assert values == sorted(values, reverse=not low_first)
    assert len(set(values)) > 1


def test_charts_of_rates_and_scores_read_their_axes(page):
    rates = page.locator(".chart.rates").first
    point_at(rates.locator(".plot"), 0.5)
    assert rates.locator(".at").inner_text().startswith("asked for, an hour: 12 ")  # one of 1, 12 and 100
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    scores = page.locator(".chart.steps").first
    point_at(scores.locator(".plot"), 0.5)
    assert scores.locator(".at").inner_text().startswith("score ")


def test_a_rate_of_0_is_said_and_so_is_where_there_is_no_figure(page):
    said = []
    for chart, keys in ((0, ["Home"]), (0, ["ArrowRight"]), (0, ["End"]), (3, ["Home"])):
        slider = page.locator(".chart.rates").nth(chart).get_by_role("slider")
        slider.focus()
        for key in keys:
            page.keyboard.press(key)
        said.append(slider.get_attribute("aria-valuetext"))
    assert said == [
        "asked for, an hour: 1 · extrapolated, future_frame 0, convlstm_ae 0, frame_diff 0",
        "asked for, an hour: 12 · extrapolated for 1 of 3, future_frame 31.5, convlstm_ae 31.5, frame_diff 31.5",
        "asked for, an hour: 100, future_frame 200, convlstm_ae 200, frame_diff 200",
        "asked for, an hour: 1 · extrapolated, future_frame none, convlstm_ae none, frame_diff none",
    ]


def test_a_decade_is_as_wide_as_it_is_high(page):
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


@pytest.mark.parametrize("width", [390, 1200])
def test_ticks_stand_below_their_plot(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    edges = page.locator(".chart:has(.xticks)").evaluate_all(
        """charts => charts.map(chart => [".plot", ".xticks"].map(part => {
            const {left, right} = chart.querySelector(part).getBoundingClientRect();
            return [left, right];
        }))"""
    )
    assert len(edges) >= 10
    for plot, ticks in edges:
        assert ticks == pytest.approx(plot, abs=1)


def test_a_histogram_can_be_read_up_to_its_last_bar(page):
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    scores = page.locator(".chart.steps").first
    scores.get_by_role("slider").focus()
    page.keyboard.press("End")
    shares = [float(text) for text in scores.locator(".val").all_inner_texts()]
    assert len(shares) == 3
    assert shares[2] > 0  # it holds all that is higher


def test_on_a_phone_the_switches_of_systems_do_not_stay_above_the_timelines(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator(".clip").last.scroll_into_view_if_needed()
    bar = page.locator(".bar").bounding_box()
    assert bar["y"] + bar["height"] <= 0
    page.set_viewport_size({"width": 1200, "height": 800})
    page.locator(".clip").last.scroll_into_view_if_needed()
    assert page.locator(".bar").bounding_box()["y"] >= 0


def test_a_picture_that_is_not_of_the_frame_under_the_cursor_says_so(page, clip):
    caption = clip.locator(".tiles figcaption").first
    clip.get_by_role("slider").focus()
    page.keyboard.press("End")
    assert caption.inner_text() == "frame 115, the nearest that has a picture"
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert clip.locator(".at").inner_text().startswith("frame 115 ")
    assert caption.inner_text() == "frame 115"
    page.keyboard.press("ArrowLeft")
    assert caption.inner_text() == "frame 115, the nearest that has a picture"
    clip.get_by_role("slider").blur()
    assert caption.inner_text() == "frame 115"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_passes_the_accessibility_rules_of_axe(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page)
    assert found.response["passes"]
    assert found.violations_count == 0, found.generate_report()


def test_kept_results_sort_by_their_mean_and_pass_the_rules(chromium, tmp_path):
    write_system(tmp_path, "ped2", "frame_diff")
    (tmp_path / "kept").mkdir()
    shared = {"dataset": "ped2", "label_set": "intervals (.mat)", "train_seconds": 100.0}
    figures = (("conv_ae", 1, 0.7), ("gru_ae-1", 1, 0.95), ("gru_ae-2", 2, 0.75), ("hog_hof_ae", 1, None))
    rows = [shared | {"model": model, "seed": seed, "auc_micro": auc} for model, seed, auc in figures]
    (tmp_path / "kept/ped2-cpu.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    build(tmp_path, ["ped2"], ["frame_diff"], kept=tmp_path / "kept")
    page = chromium.new_page(viewport={"width": 360, "height": 800})
    page.goto((tmp_path / "reports/index.html").as_uri())
    page.get_by_role("button", name="AUC micro, raw").last.click()
    systems = page.locator("table.kept tbody th").all_inner_texts()
    assert [text.split()[0] for text in systems] == ["gru_ae", "conv_ae", "hog_hof_ae"]
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()
