"""The page in the browser with run.js, and without it."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.helpers.report_data import RUN
from tests.helpers.report_page import COLUMN
from tests.integration.report.conftest import MODELS, SPEEDS


@pytest.fixture
def bare(report, tmp_path):
    """The same page in its own folder, without run.js."""
    return Path(shutil.copy(report, tmp_path))


def cells(page, title: str):
    """The heading and the cells of a column of the results."""
    heading = page.locator("table.results thead th", has_text=title).first
    return heading, page.locator(f"table.results tbody td:nth-child({heading.evaluate('cell => cell.cellIndex') + 1})")


def test_date_commit_and_costs_are_shown(page):
    expect(page.locator("header .run")).to_contain_text(RUN["date"])
    expect(page.locator("header .run")).to_contain_text(f"commit {RUN['commit'][:12]}")
    expect(page.locator("#made")).to_contain_text(RUN["commit"])
    _, training = cells(page, "training")
    assert training.all_inner_texts() == ["1.6 min", "1.6 min", "0 s"]
    facts = page.locator("details.system dl.facts").first
    assert facts.locator("[data-run]").all_text_contents() == ["1.6 min", "61.2 windows/s", "1,234 MB"]


def test_cost_columns_sort_and_mark_best(page):
    heading, speeds = cells(page, "frames / s")
    assert speeds.all_inner_texts() == ["107", "1,250", "42"]
    assert speeds.evaluate_all("all => all.map(one => one.classList.contains('best'))") == [False, True, False]
    column = heading.evaluate("cell => cell.cellIndex")
    for order in (sorted(SPEEDS, reverse=True), sorted(SPEEDS)):
        heading.get_by_role("button").click()
        assert page.locator("table.results tbody tr").evaluate_all(COLUMN, column) == order


def test_page_without_run_js(visit, desk, bare):
    page = visit(bare)
    assert set(page.locator("[data-run]").all_text_contents()) == {"–"}
    heading, _ = cells(page, "frames / s")
    heading.get_by_role("button").click()
    assert [name.split()[0] for name in page.locator("table.results tbody th").all_inner_texts()] == MODELS
    assert all("ERR_FILE_NOT_FOUND" in text for text in desk.complaints)
    desk.complaints.clear()


def test_run_js_of_other_results(visit, report, bare):
    script = report.with_name("run.js").read_text()
    of = script.split('"of": "')[1].split('"')[0]
    bare.with_name("run.js").write_text(script.replace(of, "0" * len(of)))
    assert set(visit(bare).locator("[data-run]").all_text_contents()) == {"–"}
