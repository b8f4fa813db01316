"""Chromium and the pages that all browser tests of the report share.

The fixtures have package scope, not session scope: Playwright runs an event loop in the test thread, and it has to stop
before tests that start their own loop.
"""

import pandas as pd
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.helpers.report_data import build, change_row, write_rollouts, write_system
from tests.helpers.report_page import LONG_ENOUGH
from vadcore.evaluation.cost import write_cost

DATASET = "street"
MODELS = ["future_frame", "convlstm_ae", "frame_diff"]
SPEEDS = [107.4, 1250.0, 42.0]  # frames a second, of MODELS
CROWD = [f"latent_lstm-cae_vae-loss{number}-diffs" for number in range(13)]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    from tests.helpers.browser import MISSING, find_chromium  # a plugin, which pytest has to import first

    browser_tests = [item for item in items if "chromium" in getattr(item, "fixturenames", ())]
    for item in browser_tests:
        item.add_marker(pytest.mark.xdist_group("browser"))
        if find_chromium() is None:
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.fixture(scope="package")
def chromium():
    from tests.helpers.browser import find_chromium

    expect.set_options(timeout=1000 * LONG_ENOUGH)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"], timeout=1000 * LONG_ENOUGH
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def desk(chromium):
    """A desktop page that all tests share."""
    page = chromium.new_page()
    page.set_default_timeout(1000 * LONG_ENOUGH)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    yield page
    page.close()


@pytest.fixture
def visit(desk):
    """A function that loads a report in the desktop page."""

    def visit(file) -> Page:
        desk.mouse.move(0, 0)
        desk.set_viewport_size({"width": 1280, "height": 720})
        desk.goto(file.as_uri())
        return desk

    yield visit
    desk.emulate_media(media="null", color_scheme="null", reduced_motion="null")
    assert desk.complaints == []


@pytest.fixture(scope="package")
def report(chromium, tmp_path_factory):
    """``index.html`` of three systems on four clips, with most parts of a report."""
    root = tmp_path_factory.mktemp("report")
    for position, model in enumerate(MODELS):
        write_system(root, DATASET, model, check_points=(100, 200))
        scored = root / "scores" / DATASET / model
        operating = pd.read_csv(scored / "operating.csv")
        operating["extrapolated"] = [True, model == "frame_diff", False]
        operating.to_csv(scored / "operating.csv", index=False)
        change_row(scored, eer=(0.2, 0.1, 0.3)[position], ap=(0.7, 0.6, 0.8)[position])
        write_cost(scored, {"score_fps": SPEEDS[position]})
    write_rollouts(root / "scores" / DATASET / "future_frame", 20.0, 1.5)
    build(root, [DATASET], MODELS)
    return root / "reports" / "index.html"


@pytest.fixture
def page(visit, report) -> Page:
    return visit(report)


@pytest.fixture
def clip(page):
    """The card of the first clip, whose frames 40 to 69 are abnormal."""
    return page.locator("#d1c1")


@pytest.fixture(scope="package")
def crowded_report(chromium, tmp_path_factory):
    """``index.html`` of many systems, as in published result tables."""
    root = tmp_path_factory.mktemp("crowded")
    for model in CROWD:
        write_system(root, "street", model)
    build(root, ["street"], CROWD)
    return root / "reports" / "index.html"
