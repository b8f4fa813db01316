"""Waiting for processes, for tests."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.helpers.project import LONG_ENOUGH

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], seconds: float = LONG_ENOUGH) -> Found:
    """Call ``condition`` until it returns something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def scheduler_address(file: Path) -> str | None:
    """The address in the file that a dask scheduler writes when it has started; None before the file is whole."""
    try:
        return json.loads(file.read_text())["address"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None
