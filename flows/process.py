"""Child processes of a flow: they end with it, at their timeout, and when the worker that started the flow is gone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows import guard

LOOK_SECONDS = 1.0  # between checks for the worker that started this process
_BAR = re.compile(r"\[\d+:\d\d.*(/s|s/\w+)(, .*)?\]$")  # a progress bar ends with its times and its rate


@dataclass(frozen=True)
class Ended:
    """Result of a command.

    Attributes
    ----------
    code: exit code, 0 for success; 128 + N after signal N.
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


class Process:
    """Run ``command`` in ``folder`` inside :mod:`flows.guard`, which stops it when this process ends.

    Parameters
    ----------
    environment: environment variables. ``OMP_NUM_THREADS`` in it takes precedence over ``threads``.
    nice: added to the niceness of the process.
    threads: number of compute threads; None for the default.
    whom: who is interrupted on a stop, see :mod:`flows.guard`.
    seconds: timeout after which the process is stopped and ``overdue`` is set.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        nice: int = 0,
        threads: int | None = None,
        whom: str = "below",
        seconds: float = float("inf"),
    ):
        self.overdue = False
        self._popen = subprocess.Popen(
            [sys.executable, "-P", guard.__file__, str(nice), whom, str(guard.GRACE_SECONDS), *command],
            cwd=folder,
            env={**({} if threads is None else {"OMP_NUM_THREADS": str(threads)}), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # signals to this process's group, such as Ctrl-C, must not reach it
        )
        self._timer = threading.Timer(max(0.0, min(seconds, threading.TIMEOUT_MAX)), self.expire)
        self._timer.daemon = True
        self._timer.start()

    def expire(self) -> None:
        """Stop the process because its time is over, unless it has ended."""
        if self.poll() is None:
            self.overdue = True
            self.stop()

    def stop(self) -> None:
        """Ask the process to stop, without waiting; the guard kills it if it does not stop."""
        self._popen.stdin.close()

    def poll(self) -> int | None:
        """Return the exit code as in :meth:`wait`; None while the process runs."""
        return None if self._popen.poll() is None else self.wait()

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the exit code; 128 + N after signal N. Raises subprocess.TimeoutExpired after ``seconds``."""
        code = self._popen.wait(seconds)
        self._timer.cancel()
        return code if code >= 0 else 128 - code

    def lines(self) -> Iterator[str]:
        """Yield the output line by line, also every state of a progress bar, until the process ends."""
        for line in self._popen.stdout:
            if line.strip():
                yield line.rstrip()


def follow(process: Process, log: Callable[[str], None]) -> Ended:
    """Pass the output of a process to ``log`` and wait for its end. If ``log`` raises, the process is stopped."""
    lines = []
    try:
        for line in process.lines():
            lines.append(line)
            log(line)
        return Ended(process.wait(), lines, process.overdue)
    finally:
        process.stop()


def by_worker() -> bool:
    """Return True if a Prefect worker started this process to run a flow."""
    return bool(os.environ.get("PREFECT__FLOW_RUN_ID"))


@contextmanager
def end_with_worker() -> Iterator[None]:
    """If a worker started this process: exit when the worker is gone; the guards stop what this process has started.

    A killed worker cannot cancel its runs, a restarted worker does not know them, and Prefect gives each run a session of
    its own, out of reach of the guard. Prefect's heartbeats only report such a run, after minutes. It is left as a killed
    run; the next worker in this checkout resumes it.
    """
    parent, done = os.getppid(), threading.Event()

    def exit_if_alone() -> None:
        if os.getppid() != parent:
            os._exit(1)  # without sending a state to Prefect

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            exit_if_alone()

    if not by_worker():
        yield
        return
    threading.Thread(target=watch, name="end-with-worker", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        exit_if_alone()  # a stage may fail on the worker's missing console before the next check


def run_command(*words: str, nice: int = 0, threads: int | None = None, seconds: float = float("inf")) -> Ended:
    """Run ``python -m <words>`` in the current folder, log its output to Prefect and stop it when the flow ends.

    ``nice``, ``threads``, ``seconds``: see :class:`Process`.
    """
    from prefect.logging import get_run_logger  # flows.serve sets Prefect's environment before the first import

    command = [sys.executable, "-m", *words]
    process = Process(command, Path.cwd(), os.environ, nice, threads, whom="all", seconds=seconds)
    try:
        with end_with_worker():
            return follow(process, get_run_logger().info)
    finally:
        process.wait()  # it may take until the guard kills it
