"""The report of as many systems as a table of the field has, in a real browser: what one reads stays in sight."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from tests.helpers.report_data import build, write_rollouts, write_system

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
MODELS = [f"latent_lstm-cae_vae-loss{number}-diffs" for number in range(13)]
SCREENS = [(390, 844), (1366, 768), (1920, 1080)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("crowded")
    for model in MODELS:
        write_system(root, "street", model)
    for model in MODELS[:2]:
        write_rollouts(root / "scores" / "street" / model, 20.0, 1.5)
    build(root, ["street"], MODELS)
    return root / "reports" / "index.html"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=SCREENS, ids=lambda size: f"{size[0]}x{size[1]}")
def page(request, chromium, file):
    page = chromium.new_page(viewport=dict(zip(("width", "height"), request.param, strict=True)))
    page.goto(file.as_uri())
    yield page
    page.close()


def edges(element) -> tuple[float, float]:
    box = element.bounding_box()
    return box["y"], box["y"] + box["height"]


def test_pictures_stay_in_sight_while_one_reads_any_curve_above_them(page):
    clip = page.locator("#d1c3")
    height = page.viewport_size["height"]
    for lane in (0, len(MODELS) - 1):
        clip.locator(".lane .plot").nth(lane).hover()
        for tile in clip.locator(".tile").all():
            top, bottom = edges(tile)
            assert 0 <= top < bottom <= height
        assert clip.locator(".tiles figcaption").first.inner_text().startswith("frame ")


def test_what_one_jumps_to_is_below_the_bar_and_in_sight(page):
    page.locator(".found summary").click()
    page.locator(".found li button").first.click()
    number = page.locator(".found li").first.get_attribute("data-clip")
    heading = page.locator(f"#{number} header")
    stays = page.locator(".bar").evaluate("bar => getComputedStyle(bar).position") == "sticky"
    assert edges(heading)[0] >= (edges(page.locator(".bar"))[1] if stays else 0)
    assert edges(page.locator(f"#{number} .tile").first)[1] <= page.viewport_size["height"]
    page.locator(".found summary").click()


def test_a_click_in_the_list_of_a_clip_shows_the_curve_of_that_system(page):
    clip = page.locator("#d1c1")
    clip.locator(".alarms summary").click()
    for number in (0, len(MODELS) - 1):
        clip.locator(f".alarms li[data-system='{number}'] button").first.click()
        lane = edges(clip.locator(".lane").nth(number))
        stays = page.locator(".bar").evaluate("bar => getComputedStyle(bar).position") == "sticky"
        assert lane[0] >= (edges(page.locator(".bar"))[1] if stays else 0)
        assert lane[1] <= edges(clip.locator(".moment"))[0] + 1
    clip.locator(".alarms summary").click()


def test_the_bar_ends_with_the_curves(page):
    page.locator("h3", has_text="Training and calibration").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#terms').scrollIntoView()")
    assert edges(page.locator(".bar"))[1] <= 0


def test_names_of_systems_are_whole(page):
    cut = page.locator("#d1c1 .name").evaluate_all(
        "names => names.filter(name => name.scrollWidth > name.clientWidth || name.scrollHeight > name.clientHeight + 1)"
        ".map(name => name.textContent)"
    )
    assert cut == []
    tall = page.locator("#d1c1 .lane").evaluate_all("lanes => Math.max(...lanes.map(lane => lane.offsetHeight))")
    assert tall < 80


def test_what_predictions_are_compared_with_is_drawn_and_told_apart(page):
    chart = page.locator(".chart[data-x=step]").first
    looks = chart.locator("svg path.free:not(.dots)").evaluate_all(
        "paths => paths.map(path => { const {stroke, strokeDasharray} = getComputedStyle(path);"
        "return `${stroke} ${strokeDasharray}`; })"
    )
    assert len(looks) == len(set(looks)) == 4
    assert not any(look.startswith("none") for look in looks)


@pytest.mark.parametrize("size", [(844, 390), (683, 384), (1280, 500)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_on_a_low_screen_nothing_covers_the_curves(chromium, file, size):
    page = chromium.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
    page.goto(file.as_uri())
    for number in (0, 6, len(MODELS) - 1):
        plot = page.locator("#d1c3 .lane .plot").nth(number)
        plot.evaluate("plot => plot.scrollIntoView({block: 'center'})")
        for across in (0.1, 0.9):
            for down in (0.1, 0.9):
                covering = plot.evaluate(
                    """(plot, [across, down]) => {
                        const {left, top, width, height} = plot.getBoundingClientRect();
                        const there = document.elementFromPoint(left + across * width, top + down * height);
                        return plot.contains(there) ? null : (there?.outerHTML ?? "outside").slice(0, 80);
                    }""",
                    [across, down],
                )
                assert covering is None
    page.close()


def test_on_paper_the_table_is_whole_and_what_was_closed_is_open(chromium, file):
    page = chromium.new_page(viewport={"width": 1047, "height": 718})  # of A4 across, less a centimetre all round
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    edges = "parts => parts.map(part => part.getBoundingClientRect().right)"
    assert max(page.locator("table.results td, table.results th").evaluate_all(edges)) <= 1047
    assert page.locator("details.system:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.system:not([open])").count() > 0
    page.close()
