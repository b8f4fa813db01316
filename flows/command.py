"""A command of the project, run by a flow: its output live in Prefect's log, and gone when the flow is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from prefect.logging import get_run_logger

from flows.orphan import end_with_parent
from flows.process import Process


def run_command(*words: str) -> tuple[int, list[str]]:
    """Run ``python -m <words>`` in the current folder. Its exit code, and the lines that it printed."""
    log, said = get_run_logger(), []
    process = Process([sys.executable, "-m", *words], Path.cwd(), os.environ, whom="all")
    try:
        with end_with_parent(process):
            for line in process.lines():
                log.info(line)
                said.append(line)
    finally:
        process.stop()  # where this is not the end, but an exception
        code = process.wait()
    return code, said


def what_went_wrong(code: int, said: list[str]) -> str:
    """The command's own error line; of one that broke off the last line, and its exit code."""
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return errors[-1] if errors else f"{said[-1] if said else 'it said nothing'} (exit code {code})"
