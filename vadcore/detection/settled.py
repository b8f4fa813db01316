"""Whether a file that comes in from anywhere has come in whole."""

from __future__ import annotations

import fcntl
import json
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vadcore.data.video import video_fps
from vadcore.detection.naming import is_text
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json

PATIENCE = 3  # times the usual wait that an unreadable file is left alone before it counts as broken


class Settled:
    """A video is whole when its size and time have not changed for ``seconds``, nobody on this machine holds it open for
    writing, and it can be opened. One that cannot be opened is given ``PATIENCE`` times as long; then it is as whole as it
    will get, and who reads it says what is wrong.

    memory: a file that remembers from one process to the next what was seen, for times that are not to be trusted (a
    camera's clock may be ahead). clock: the current time in seconds since the epoch.
    """

    def __init__(self, memory: Path, seconds: float, clock: Callable[[], float] = time.time):
        self.memory, self.seconds, self._clock = memory, seconds, clock
        self._before: dict[str, list] = {}
        with suppress(FileNotFoundError):
            self._before = json.loads(memory.read_text(encoding="utf-8"))
        self._now: dict[str, list] = {}

    def is_whole(self, path: Path, name: str) -> bool:
        """Of the file ``path``, remembered as ``name``."""
        now = self._clock()
        try:
            found = path.stat()
        except FileNotFoundError:  # taken away meanwhile
            return False
        identity = [found.st_size, found.st_mtime_ns]
        known = self._before.get(name)
        since = known[2] if known and known[:2] == identity else now
        self._now[name] = [*identity, since]
        quiet = now - min(since, found.st_mtime if found.st_mtime <= now else now)
        if quiet < self.seconds or open_for_writing(path):
            return False
        return quiet >= PATIENCE * self.seconds or _opens(path)

    def save(self) -> None:
        """Remember what was asked about; all else is forgotten."""
        write_json(self.memory, self._now)


def _opens(path: Path) -> bool:
    if not is_text(path):  # not to be tried; the inbox gives the file another name when its time has come
        return False
    try:
        video_fps(path)
    except VadError:
        return False
    return True


def open_for_writing(path: Path) -> bool:
    """Whether some process of this machine holds the file open for writing; False where the system cannot tell.

    Linux grants a read lease to no one while a writer is there. The signal that a later writer would send to the holder of
    the lease is one that is ignored by default.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    with suppress(OSError), path.open("rb") as file:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
