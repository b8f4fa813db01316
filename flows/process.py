"""A child process that ends with this process: read its output line by line, stop it at its timeout."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flows import guard

PROGRESS_SECONDS = 10.0  # minimum time between two reported states of a progress bar
LAST_SECONDS = 2.0  # how long to wait for remaining output after the process has ended


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
        self._end = time.monotonic() + seconds
        self._popen = subprocess.Popen(
            [sys.executable, "-P", guard.__file__, str(nice), whom, *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # signals to this process's group, such as Ctrl-C, must not reach it
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

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
        return code if code >= 0 else 128 - code

    def lines(self) -> Iterator[str]:
        """Yield the output line by line until the process ends.

        Of a progress bar, which rewrites its line, yield one state every :data:`PROGRESS_SECONDS` and the last one.
        """
        yield from thinned(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        pipe = self._popen.stdout.fileno()
        ended = None  # when the end of the process was noticed
        while True:
            if select.select([pipe], [], [], 0.2)[0]:
                chunk = os.read(pipe, 65536)
                if not chunk:
                    break
                yield chunk
            elif ended is None and self._popen.poll() is not None:
                ended = time.monotonic()
            elif ended is not None and time.monotonic() - ended > LAST_SECONDS:
                break  # a process that it started still holds the pipe open
            if time.monotonic() > self._end and not self.overdue:
                self.overdue = True
                self.stop()
        self._popen.stdout.close()


def thinned(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield lines from chunks of output; skip empty lines and most states of progress bars."""
    text, rewriting = b"", False
    shown, said = -PROGRESS_SECONDS, b""  # time and text of the last reported state of a bar

    def worth_it(state: bytes) -> bool:
        return bool(state.strip()) and state != said and time.monotonic() - shown >= PROGRESS_SECONDS

    for chunk in chunks:
        text += chunk
        while ending := _ENDING.search(text):
            line, text = text[: ending.start()].rstrip(), text[ending.end() :]
            rewriting = ending[0] == b"\r"
            if rewriting and worth_it(line):
                shown, said = time.monotonic(), line
                yield _decoded(line)
            elif not rewriting:
                if line.strip() and line != said:
                    yield _decoded(line)
                said = b""
        state = text.rstrip()
        if rewriting and worth_it(state):  # a bar writes its carriage return before a state, not after it
            shown, said = time.monotonic(), state
            yield _decoded(state)
    if text.strip() and text.rstrip() != said:
        yield _decoded(text.rstrip())


_ENDING = re.compile(rb"\r?\n|\r(?=.)", re.DOTALL)  # a \r at the end may be half of \r\n


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")
