"""A command of the project, run by a flow: its output live in Prefect's log, and gone when the flow is."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from prefect.logging import get_run_logger

from flows.orphan import end_with_parent
from flows.process import Process

_BAR = re.compile(r"\[\d+:\d\d.*(/s|s/\w+)(, .*)?\]$")  # a state of a progress bar ends in its times and its rate


@dataclass(frozen=True)
class Ended:
    """A command that has ended. code: 0 when all went well; said: the lines that it printed; overdue: at its time limit."""

    code: int
    said: list[str]
    overdue: bool

    @property
    def reason(self) -> str:
        """What went wrong: the command's own error line; of one that broke off what it said last, and its exit code."""
        if 128 < self.code < 255:
            return f"killed (exit code {self.code}), perhaps for want of memory"
        errors = [line.removeprefix("error: ") for line in self.said if line.startswith("error: ")]
        words = [line for line in self.said if not _BAR.search(line)]
        return errors[-1] if errors else f"{words[-1] if words else 'it said nothing'} (exit code {self.code})"


def run_command(*words: str, nice: int = 0, threads: int | None = None, seconds: float = float("inf")) -> Ended:
    """Run ``python -m <words>`` in the current folder. nice: added to its priority number. threads: that it computes with,
    where OMP_NUM_THREADS does not say. seconds: after which it is stopped."""
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
        process.stop()  # where this is not the end, but an exception
        code = process.wait()
    return Ended(code, said, process.overdue)
