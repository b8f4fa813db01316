"""The report of many systems in the browser: curves, pictures and names stay visible."""

import pytest
from playwright.sync_api import expect

from tests.helpers.report_page import caption, edges, eventually, plot, resize, wait_for_frame
from tests.integration.report.conftest import CROWD

SCREENS = [(390, 844), (1366, 768), (1920, 1080)]
FIRST_AND_LAST = (0, len(CROWD) - 1)


@pytest.fixture
def page(visit, crowded_report):
    return visit(crowded_report)


@pytest.fixture(params=SCREENS, ids=lambda size: "{}x{}".format(*size))
def sized(request, page):
    """The page at a screen size."""
    resize(page, *request.param)
    return page


def _bottom_of_bar(page) -> float:
    """The bottom edge of the switch bar if it is sticky, else 0."""
    bar = page.locator(".bar")
    stays = bar.evaluate("bar => getComputedStyle(bar).position") == "sticky"
    return edges(bar)[1] if stays else 0


def test_pictures_stay_visible(sized):
    clip, height = sized.locator("#d1c3"), sized.viewport_size["height"]

    def in_sight():
        for tile in clip.locator(".tile").all():
            top, bottom = edges(tile)
            assert 0 <= top < bottom <= height

    for system in FIRST_AND_LAST:
        plot(clip, system).hover()
        expect(caption(clip)).to_contain_text("frame ")
        eventually(sized, in_sight)


def test_jump_targets_are_visible(sized):
    page = sized
    page.locator(".found summary").click()
    number = page.locator(".found li").first.get_attribute("data-clip")
    page.locator(".found li button").first.click()

    def clip_in_sight():
        assert edges(page.locator(f"#{number} header"))[0] >= _bottom_of_bar(page)
        assert edges(page.locator(f"#{number} .tile").first)[1] <= page.viewport_size["height"]

    eventually(page, clip_in_sight)
    clip = page.locator("#d1c1")
    clip.locator(".alarms summary").click()
    for system in FIRST_AND_LAST:
        clip.locator(f".alarms li[data-system='{system}'] button").first.click()

        def curve_in_sight(system=system):
            top, bottom = edges(clip.locator(".lane").nth(system))
            assert top >= _bottom_of_bar(page)
            assert bottom <= edges(clip.locator(".snapshots"))[0] + 1

        eventually(page, curve_in_sight)


def test_bar_position_and_full_names(sized):
    page = sized
    cut = page.locator("#d1c1 .name").evaluate_all(
        "names => names.filter(name => name.scrollWidth > name.clientWidth || name.scrollHeight > name.clientHeight + 1)"
        ".map(name => name.textContent)"
    )
    assert cut == []
    tall = page.locator("#d1c1 .lane").evaluate_all("lanes => Math.max(...lanes.map(lane => lane.offsetHeight))")
    assert tall < 80
    page.locator("h3", has_text="Training and calibration").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#terms').scrollIntoView()")

    def bar_is_above():
        assert edges(page.locator(".bar"))[1] <= 0

    eventually(page, bar_is_above)


def test_curves_are_uncovered_on_low_screens(page):
    for size in ((844, 390), (683, 384), (1280, 500)):
        resize(page, *size)
        for system in (0, 6, len(CROWD) - 1):
            area = plot(page.locator("#d1c3"), system)

            def uncovered(area=area, size=size, system=system):
                area.evaluate("area => area.scrollIntoView({block: 'center'})")
                covering = area.evaluate(
                    """area => {
                        const {left, top, width, height} = area.getBoundingClientRect();
                        return [0.1, 0.9].flatMap(across => [0.1, 0.9].map(down => {
                            const there = document.elementFromPoint(left + across * width, top + down * height);
                            return area.contains(there) ? "" : (there?.outerHTML ?? "outside").slice(0, 80);
                        })).join("");
                    }"""
                )
                assert covering == "", (size, system)

            eventually(page, uncovered)


def test_print_shows_table_and_details(page):
    resize(page, 1047, 718)  # A4 landscape with margins of 1 cm
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wait_for_frame(page)
    right = "parts => Math.max(...parts.map(part => part.getBoundingClientRect().right))"
    assert page.locator("table.results td, table.results th").evaluate_all(right) <= 1047
    closed = page.locator("details.system:not([open])")
    expect(closed).to_have_count(0)
    expect(page.locator(".bar")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(closed).not_to_have_count(0)
