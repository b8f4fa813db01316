"""Sortable tables in the browser."""

from playwright.sync_api import expect

from tests.helpers.report_page import COLUMN, eventually
from tests.integration.report.conftest import MODELS


def _sorted(page, table: str, column: int, falling: bool) -> list[float]:
    """Wait until a column is sorted, and return its values."""
    rows = page.locator(f"table.{table} tbody tr")
    values: list[float] = []

    def in_order():
        values[:] = rows.evaluate_all(COLUMN, column)
        assert values == sorted(values, reverse=falling)

    eventually(page, in_order)
    assert len(set(values)) > 1
    return values


def test_heading_cycles_sort_order(page):
    heading = page.locator("table.results thead tr:last-child th:nth-child(2) button")
    heading.click()
    falling = _sorted(page, "results", 1, falling=True)
    heading.click()
    assert _sorted(page, "results", 1, falling=False) == falling[::-1]
    heading.click()
    expect(page.locator("table.results tbody th").first).to_contain_text(MODELS[0])


def test_heading_has_accessible_name(page):
    expect(page.get_by_role("button", name="EER %", exact=True)).to_have_count(1)


def test_first_click_sorts_best_first(page):
    for title, falling in (("EER", False), ("AP", True)):
        heading = page.locator("table.results thead th", has_text=title).first
        heading.get_by_role("button").click()
        _sorted(page, "results", heading.evaluate("cell => cell.cellIndex"), falling)
