"""Layout of the report: widths, accessibility, dark mode, reduced motion."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.helpers.report_page import edges, eventually, open_all, resize


def test_no_horizontal_scrolling(page):
    open_all(page)
    for width in (360, 768, 1280):
        resize(page, width)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_axe_finds_no_violation(page):
    open_all(page)
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
        page.emulate_media(color_scheme=scheme)
        resize(page, width)
        found = Axe().run(page)
        assert found.response["passes"]
        assert found.violations_count == 0, f"{scheme}, {width} pixels\n{found.generate_report()}"


def test_dark_mode_has_a_dark_background(page):
    for scheme, background in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 21, 26)")):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("body")).to_have_css("background-color", background)


def test_animations_can_be_stopped(page):
    films = page.locator(".films").first
    moving, still = films.locator(".moving").first, films.locator(".still").first
    expect(moving).to_be_visible()
    films.locator(".play").click()
    expect(moving).to_be_hidden()
    expect(still).to_be_visible()
    films.locator(".play").click()
    expect(moving).to_be_visible()
    page.emulate_media(reduced_motion="reduce")
    expect(moving).to_be_hidden()
    expect(still).to_be_visible()


def test_switch_bar_is_sticky_on_desktop(page):
    def above():
        assert edges(page.locator(".bar"))[1] <= 0

    def in_sight():
        assert edges(page.locator(".bar"))[0] >= 0

    for width, check in ((390, above), (1200, in_sight)):
        resize(page, width)
        page.locator(".clip").last.scroll_into_view_if_needed()
        eventually(page, check)
