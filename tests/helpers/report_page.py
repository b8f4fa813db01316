"""Actions in a report in the browser, and values that it shows."""

import time
from collections.abc import Callable

import cv2
import numpy as np
from playwright.sync_api import Locator, Page

LONG_ENOUGH = 120.0  # time limit for the browser in seconds; only a failure reaches it, even on a slow machine
COLUMN = "(rows, column) => rows.map(row => Number(row.cells[column].dataset.v))"


def wait_for_frame(page: Page) -> None:
    """Wait until the browser has drawn all earlier changes."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def eventually(page: Page, check: Callable[[], None]) -> None:
    """Call ``check`` once a frame until it raises no AssertionError."""
    end = time.monotonic() + LONG_ENOUGH
    while True:
        wait_for_frame(page)
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise


def resize(page: Page, width: int, height: int = 800) -> None:
    page.set_viewport_size({"width": width, "height": height})
    wait_for_frame(page)


def open_all(page: Page) -> None:
    """Open all ``details`` elements."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def point_at(element: Locator, across: float) -> None:
    """Move the pointer over an element, ``across`` its width."""
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    element.hover(position={"x": across * box["width"], "y": box["height"] / 2})


def press(slider: Locator, *keys: str) -> None:
    slider.focus()
    for key in keys:
        slider.press(key)


def plot(clip: Locator, system: int) -> Locator:
    """A system's curve in the card of a clip."""
    return clip.locator(".lane .plot").nth(system)


def caption(clip: Locator) -> Locator:
    """The text below the picture of the frame."""
    return clip.locator(".tiles figcaption").first


def shown_frame(clip: Locator) -> int:
    """The number of the frame whose pictures are shown."""
    return int(caption(clip).text_content().removeprefix("frame ").split(",")[0])


def grey_level(clip: Locator, kind: str) -> float:
    """The mean level of a picture as it appears on the screen."""
    picture = clip.locator(f".tile[data-kind={kind}]").screenshot()
    levels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
    return float(levels[6:-6, 6:-6].mean())  # without the round corners


def edges(element: Locator) -> tuple[float, float]:
    """Top and bottom on the screen."""
    box = element.bounding_box()
    return box["y"], box["y"] + box["height"]


def as_read(score: float) -> str:
    """A score as the page shows it. The page holds scores as float32."""
    return "no score" if np.isnan(score) else f"{float(f'{np.float32(score):.3g}'):g}"
