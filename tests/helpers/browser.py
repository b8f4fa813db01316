"""A pytest plugin: finds Chromium, and reports at the end how many tests were skipped without it."""

import shutil

import pytest

MISSING = "Chromium is not installed"
INSTALL = "sudo apt-get install chromium"  # Debian, Ubuntu


def find_chromium() -> str | None:
    """The path of Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    result = yield  # everything else is printed first
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(MISSING in str(report.longrepr) for report in skipped)
    if count:
        plural = "s" if count > 1 else ""
        terminalreporter.write_line(
            f"{count} browser test{plural} not run: {MISSING.lower()} (Debian: {INSTALL})", yellow=True
        )
    return result
