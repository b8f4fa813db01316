"""Waiting for a condition, with a time limit that only a failure reaches."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.project import LONG_ENOUGH


def wait_until(condition: Callable[[], object], failure: Callable[[], object] = lambda: "", pause: float = 0.02):
    """Wait until ``condition()`` is true, and return its value. After LONG_ENOUGH it fails with ``failure()``."""
    end = time.monotonic() + LONG_ENOUGH
    while not (found := condition()):
        assert time.monotonic() < end, failure()
        time.sleep(pause)
    return found


def pid_in(file: Path) -> int:
    """Wait until a process has written its PID to a file, and return the PID."""
    wait_until(lambda: file.exists() and file.read_text())
    return int(file.read_text())
