"""Run a command of the project from a flow: log its output to Prefect and stop it when the flow ends."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from prefect.logging import get_run_logger

from flows.orphan import end_with_parent
from flows.process import Process

_BAR = re.compile(r"\[\d+:\d\d.*(/s|s/\w+)(, .*)?\]$")  # a progress bar ends with its times and its rate


@dataclass(frozen=True)
class Ended:
    """Result of a command.

    Attributes
    ----------
    code: exit code, 0 for success.
    said: the lines that it printed.
    overdue: whether it reached its timeout.
    """

    code: int
    said: list[str]
    overdue: bool

    @property
    def reason(self) -> str:
        """Why the command failed: its last ``error:`` line, else its last output line and its exit code."""
        if 128 < self.code < 255:
            return f"killed (exit code {self.code}), perhaps for want of memory"
        errors = [line.removeprefix("error: ") for line in self.said if line.startswith("error: ")]
        words = [line for line in self.said if not _BAR.search(line)]
        return errors[-1] if errors else f"{words[-1] if words else 'it said nothing'} (exit code {self.code})"


def run_command(*words: str, nice: int = 0, threads: int | None = None, seconds: float = float("inf")) -> Ended:
    """Run ``python -m <words>`` in the current folder.

    Parameters
    ----------
    nice: added to the niceness of the process.
    threads: number of compute threads; used only if OMP_NUM_THREADS is not set.
    seconds: timeout, after which the command is stopped.
    """
    log, said = get_run_logger(), []
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    process = Process([sys.executable, "-m", *words], Path.cwd(), environment, nice, whom="all", seconds=seconds)
    try:
        with end_with_parent(process):
            for line in process.lines():
                log.info(line)
                said.append(line)
    finally:
        process.stop()  # after an exception the process may still run
        code = process.wait()
    return Ended(code, said, process.overdue)
