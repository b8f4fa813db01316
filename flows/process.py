"""A process that ends with this one, however this one ends; read line by line, stopped at its time limit."""

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

PROGRESS_SECONDS = 10.0  # between two states of a progress bar that are passed on
LAST_SECONDS = 2.0  # how long the rest of the output is waited for when the process has ended


class Process:
    """``command``, run in ``folder`` inside :mod:`flows.guard`, which lets it end with this process.

    nice: added to its priority number. whom: who is asked to stop, see there. seconds: after which it is stopped;
    ``overdue`` then says so.
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
            start_new_session=True,  # what is sent to this process's group, Ctrl-C above all, is not for that one
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def stop(self) -> None:
        """Ask it to stop; the guard kills it when it does not. Returns at once."""
        if not self._popen.stdin.closed:
            self._popen.stdin.close()

    def poll(self) -> int | None:
        """Its exit code, as :meth:`wait` gives it; None while it runs."""
        code = self._popen.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, 128 + N after signal N. Raises subprocess.TimeoutExpired after ``seconds``."""
        code = self._popen.wait(seconds)
        return code if code >= 0 else 128 - code

    def lines(self) -> Iterator[str]:
        """What it prints, line by line, until it ends. Of a progress bar, which rewrites its line, one state every
        :data:`PROGRESS_SECONDS` and the last one."""
        yield from thinned(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        pipe = self._popen.stdout.fileno()
        ended = None  # when the process was seen to have ended
        while True:
            if select.select([pipe], [], [], 0.2)[0]:
                chunk = os.read(pipe, 65536)
                if not chunk:
                    break
                yield chunk
            elif ended is None and self._popen.poll() is not None:
                ended = time.monotonic()
            elif ended is not None and time.monotonic() - ended > LAST_SECONDS:
                break  # something that it left behind holds the pipe open
            if time.monotonic() > self._end and not self.overdue:
                self.overdue = True
                self.stop()
        self._popen.stdout.close()


def thinned(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines from pieces of output, empty ones left out, states of progress bars thinned."""
    text, rewriting = b"", False
    shown, said = -PROGRESS_SECONDS, b""  # when a state of a bar was last passed on, and which

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
        if rewriting and worth_it(state):  # a bar says "go back" before a state, not after it
            shown, said = time.monotonic(), state
            yield _decoded(state)
    if text.strip() and text.rstrip() != said:
        yield _decoded(text.rstrip())


_ENDING = re.compile(rb"\r?\n|\r(?=.)", re.DOTALL)  # a \r alone at the end may be half of \r\n


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")
