"""Measure the size of a report, and how fast Chromium opens it and responds to the reader.

    python -m benchmarks.report_speed [reports/index.html] [--out benchmarks/results/report-speed.json]

Every round starts a new browser without a cache, with a screen of 1366 x 768. *open* ends with the page's load event.
The other actions begin with the pointer move or click and end when a screenshot of the result is complete; taking the
screenshot is included in the time. Actions: *point* at a curve of the clip in the middle of the list, *sort* the
results table, *jump* to the first listed alarm (if any), *hide* a system. The median and the slowest of all rounds are
stored.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

from benchmarks.result import read_report, write_result
from vadcore.utils.errors import VadError

SCREEN = {"width": 1366, "height": 768}
LONG_ENOUGH = 120_000  # timeout of an action in milliseconds, for a busy machine


def one_round(browser: Browser, report: Path) -> dict[str, float]:
    """Run every action once and return its seconds by name."""
    page = browser.new_page(viewport=SCREEN)
    page.set_default_timeout(LONG_ENOUGH)
    took = {"open": _seconds(lambda: page.goto(report.resolve().as_uri()))}

    clips = page.locator("article.clip")
    plot = clips.nth(clips.count() // 2).locator(".plot").first
    heading, switch = page.locator("th button").nth(1), page.locator(".bar label").first
    steps = [("point", plot, plot.hover), ("sort", heading, heading.click), ("hide", switch, switch.click)]
    page.locator(".found").evaluate_all("lists => lists.forEach(list => list.open = true)")
    alarm = page.locator(".found li button").first
    if alarm.count():
        steps.insert(2, ("jump", alarm, alarm.click))
    for name, element, act in steps:
        element.scroll_into_view_if_needed()
        page.screenshot()  # draw everything visible first
        took[name] = _seconds(lambda act=act: (act(), page.screenshot()))
    page.close()
    return took


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def chromium() -> Iterator[Browser]:
    """Launch a new Chromium without a cache. Raises :class:`VadError` if none is installed."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise VadError("no Chromium on the PATH; install it (Debian: sudo apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def measure(report: Path, rounds: int, launch: Callable[[], AbstractContextManager[Browser]] = chromium) -> list[dict]:
    """Return one row per action with median and slowest seconds, and with facts about the report.

    launch: starts the browser of a round. Raises :class:`VadError` if the report or its metrics.json is missing, if the
    report shows no clips, or if Chromium is not installed.
    """
    beside = report.with_name("metrics.json")
    if not report.exists() or not beside.exists():
        raise VadError(f"{report}: not there, or not beside its metrics.json; run dvc repro first")
    text = report.read_text(encoding="utf-8")
    clips = text.count('<article class="clip')
    if not clips:
        raise VadError(f"{report}: shows no clips, so there is nothing to point at; run dvc repro first")
    rows = read_report(beside)
    run = rows[0]["run"]
    facts = {
        "profile": run["profile"],
        "report_commit": run["commit"],
        "data_sets": sorted({row["dataset"] for row in rows}),
        "systems": len(rows),
        "clips": clips,
        "megabytes": round(report.stat().st_size / 1e6, 1),
    }
    taken = []
    for _ in range(rounds):
        with launch() as browser:
            taken.append(one_round(browser, report))
            version = browser.version
    return [
        facts
        | {"chromium": version, "action": action, "rounds": rounds}
        | {"seconds": round(median(values), 2), "slowest_seconds": round(max(values), 2)}
        for action in taken[0]
        if (values := [took[action] for took in taken])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, nargs="?", default=Path("reports/index.html"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        rows = measure(options.report, options.rounds)
    except VadError as error:
        sys.exit(f"error: {error}")
    print("{profile}: {systems} systems, {clips} clips, {megabytes} MB".format_map(rows[0]))
    for row in rows:
        print(f"{row['action']:6} {row['seconds']:5.2f} s, slowest {row['slowest_seconds']:.2f} s")
    if options.out:
        write_result(options.out, rows, profile=None)


if __name__ == "__main__":
    main()
