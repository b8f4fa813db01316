"""The report of clips with more frames than a screen has pixels, and of clips that the labels leave out in part."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import sync_playwright

from tests.helpers.report_data import MODELS, THRESHOLD, build, write_system
from vadcore.report import sections

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
FRAMES, UNLABELLED = 5000, range(2000, 2101)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("long")
    write_system(root, "street", "convlstm_ae", clips=2, frames=FRAMES, unlabelled=UNLABELLED)
    return root


@pytest.fixture(scope="module")
def frames(root):
    """The first clip's scores, by frame number."""
    table = pd.read_parquet(root / "scores/street/convlstm_ae/frames.parquet")
    return table[table["clip"] == "01"].set_index("frame")


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def card(root, chromium):
    """The first clip of a page that has a score of each frame."""
    build(root, ["street"], ["convlstm_ae"])
    page = chromium.new_page()
    page.goto((root / "reports/index.html").as_uri())
    yield page.locator("#d1c1")
    page.close()


def press(card, *keys):
    slider = card.get_by_role("slider")
    slider.focus()
    for key in keys:
        slider.press(key)


def reading(card) -> tuple[str, bool]:
    """What the page says of the frame, and whether in the colour of alarms."""
    value = card.locator(".lane .val")
    return value.inner_text(), "over" in value.get_attribute("class").split()


def as_read(score: float) -> str:
    return "no score" if np.isnan(score) else f"{float(f'{score:.3g}'):g}"


def test_any_frame_of_a_long_clip_has_its_own_score_and_colour(card, frames):
    press(card, "Home")
    assert reading(card) == ("no score", False)
    colours = set()
    for frame in range(1, 120):
        press(card, "ArrowRight")
        assert card.locator(".at").inner_text().startswith(f"frame {frame} ")
        score = frames["score"][frame]
        assert reading(card) == (as_read(score), score >= THRESHOLD)
        colours.add(bool(score >= THRESHOLD))
    assert colours == {True, False}


def test_a_click_on_any_alarm_shows_the_score_of_its_peak(root, card):
    events = pd.read_csv(root / "scores/street/convlstm_ae/events.csv", dtype={"clip": str})
    events = events[events["clip"] == "01"].set_index("peak_frame")
    card.locator(".alarms summary").click()
    listed = card.locator(".raised li")
    assert listed.count() == len(events) > 10
    for number in range(listed.count()):
        alarm = listed.nth(number)
        alarm.get_by_role("button").click()
        peak = int(alarm.get_attribute("data-frame"))
        assert reading(card) == (as_read(events.loc[peak, "peak_score"]), True)


def test_what_the_labels_leave_out_is_neither_normal_nor_abnormal(card):
    said = {}
    press(card, "Home", *["Shift+ArrowRight"] * 199)
    for frame in range(1990, 2121, 10):
        said[frame] = card.locator(".at").inner_text().split(" · ")[-1]
        press(card, "Shift+ArrowRight")
    assert said == {frame: "no label" if frame in UNLABELLED else "normal" for frame in said}


def test_where_frames_share_a_score_it_is_the_highest_and_the_page_says_of_which(root, frames, chromium, monkeypatch):
    monkeypatch.setattr(sections, "frames_a_reading", lambda scores: 7)
    build(root, ["street"], ["convlstm_ae"], out="shared")
    page = chromium.new_page()
    page.goto((root / "shared/index.html").as_uri())
    card = page.locator("#d1c1")
    press(card, "Home", *["ArrowRight"] * 9)
    assert card.locator(".at").inner_text() == "frame 63 · 6.30 s · abnormal · highest scores of frames 63–69"
    highest = frames["score"].loc[63:69].max()
    assert reading(card) == (as_read(highest), highest >= THRESHOLD)
    press(card, "End")
    assert card.locator(".at").inner_text().endswith("highest scores of frames 4998–4999")
    assert reading(card)[0] == as_read(frames["score"].loc[4998:].max())
    page.close()


def test_a_hundred_clips_of_a_thousand_frames_stay_light_and_answer(tmp_path, chromium):
    for model in MODELS:
        write_system(tmp_path, "campus", model, clips=100, frames=1000)
    text = build(tmp_path, ["campus"])
    assert text.count('<article class="clip') == 100
    assert len(re.sub(r'src="data:[^"]*"', "", text).encode()) < 4_000_000
    page = chromium.new_page()
    page.goto((tmp_path / "reports/index.html").as_uri())
    page.locator(".index a").last.click()
    last = page.locator("#d1c100")
    press(last, "End")
    name, scores = last.locator("h4").inner_text(), []
    for model in MODELS:
        table = pd.read_parquet(tmp_path / "scores/campus" / model / "frames.parquet")
        scores.append(as_read(table.loc[table["clip"] == name, "score"].iloc[-1]))
    assert last.locator(".lane .val").all_inner_texts() == scores
    page.close()
