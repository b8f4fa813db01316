"""Child processes of a flow: they end with it, at their timeout, and when the worker that started the flow is gone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows import guard

LOOK_SECONDS = 1.0  # between checks for the worker that started this process
_BAR = re.compile(r"\[\d+:\d\d.*(/s|s/\w+)(, .*)?\]$")  # a progress bar ends with its times and its rate


class Process:
    """Run ``command`` in ``folder`` inside :mod:`flows.guard`, which stops it when this process ends.

    Parameters
    ----------
    nice: added to the niceness of the process.
    whom: who is interrupted on a stop, see :mod:`flows.guard`.
    seconds: timeout after which the process is stopped and ``overdue`` is set.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        nice: int = 0,
        whom: str = "below",
        seconds: float = float("inf"),
    ):
        self.overdue = False
        self._popen = subprocess.Popen(
            [sys.executable, "-P", guard.__file__, str(nice), whom, *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # signals to this process's group, such as Ctrl-C, must not reach it
        )
        self._timer = threading.Timer(max(0.0, seconds), self.expire) if seconds < float("inf") else None
        if self._timer:
            self._timer.daemon = True
            self._timer.start()

    def expire(self) -> None:
        """Stop the process because its time is over, unless it has ended."""
        if self.poll() is None:
            self.overdue = True
            self.stop()

    def stop(self) -> None:
        """Ask the process to stop, without waiting; the guard kills it if it does not stop."""
        if not self._popen.stdin.closed:
            self._popen.stdin.close()

    def poll(self) -> int | None:
        """Return the exit code as in :meth:`wait`; None while the process runs."""
        code = self._popen.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the exit code; 128 + N after signal N. Raises subprocess.TimeoutExpired after ``seconds``."""
        code = self._popen.wait(seconds)
        if self._timer:
            self._timer.cancel()
        return code if code >= 0 else 128 - code

    def lines(self) -> Iterator[str]:
        """Yield the output line by line, also every state of a progress bar, until the process ends."""
        for line in self._popen.stdout:
            if line.strip():
                yield line.rstrip()


class Stoppable(Protocol):
    """Work that a flow run has started: a process, or all stages of a pipeline."""

    def stop(self) -> None: ...


def by_worker() -> bool:
    """Return True if a Prefect worker started this process to run a flow."""
    return bool(os.environ.get("PREFECT__FLOW_RUN_ID"))


@contextmanager
def end_with_parent(work: Stoppable) -> Iterator[None]:
    """If a worker started this process: stop ``work`` and exit when the worker is gone.

    A killed worker cannot cancel its runs, a restarted worker does not know them, and Prefect gives each run a session of
    its own, out of reach of the guard. The run is left as a killed run; the next worker in this checkout resumes it.
    """
    if not by_worker():
        yield
        return
    from prefect.logging import get_run_logger  # flows.serve sets Prefect's environment before the first import
    from prefect.logging.handlers import APILogHandler

    parent, done, log = os.getppid(), threading.Event(), get_run_logger()

    def end_if_alone() -> None:
        if os.getppid() == parent:
            return
        try:  # the worker's console is gone: rich raises SystemExit in the thread that writes to it
            log.error("the worker (process %d) has ended: stopping", parent)
        finally:
            try:
                work.stop()
                APILogHandler().flush()  # send pending log records; waits 5 seconds at most
            finally:
                os._exit(1)

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            end_if_alone()

    watcher = threading.Thread(target=watch, name="end-with-parent", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()  # if it is stopping the work, it exits the process and sends Prefect no state
        end_if_alone()  # a stage may fail on the worker's missing console before the next check


@dataclass(frozen=True)
class Ended:
    """Result of a command.

    Attributes
    ----------
    code: exit code, 0 for success.
    lines: its output.
    overdue: whether it reached its timeout.
    """

    code: int
    lines: list[str]
    overdue: bool

    @property
    def reason(self) -> str:
        """Why the command failed: its last ``error:`` line, else its last output line and its exit code."""
        if 128 < self.code < 255:
            return f"killed (exit code {self.code}), probably out of memory"
        errors = [line.removeprefix("error: ") for line in self.lines if line.startswith("error: ")]
        words = [line for line in self.lines if not _BAR.search(line)]
        return errors[-1] if errors else f"{words[-1] if words else 'no output'} (exit code {self.code})"


def run_command(*words: str, nice: int = 0, threads: int | None = None, seconds: float = float("inf")) -> Ended:
    """Run ``python -m <words>`` in the current folder, log its output to Prefect and stop it when the flow ends.

    Parameters
    ----------
    nice: added to the niceness of the process.
    threads: number of compute threads; used only if OMP_NUM_THREADS is not set.
    seconds: timeout, after which the command is stopped.
    """
    from prefect.logging import get_run_logger

    log, lines = get_run_logger(), []
    environment = dict(os.environ)
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    process = Process([sys.executable, "-m", *words], Path.cwd(), environment, nice, whom="all", seconds=seconds)
    try:
        with end_with_parent(process):
            for line in process.lines():
                log.info(line)
                lines.append(line)
    finally:
        process.stop()  # after an exception the process may still run
        code = process.wait()
    return Ended(code, lines, process.overdue)
