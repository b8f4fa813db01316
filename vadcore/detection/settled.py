"""Check whether an incoming file is completely written."""

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

PATIENCE = 3  # multiple of the usual wait after which an unreadable file counts as broken


class Settled:
    """Decides whether a video file is completely written.

    It is if its size and modification time have not changed for ``seconds``, no process on this machine has it open for
    writing, and it can be opened as a video. A file that cannot be opened also counts as complete after ``PATIENCE`` times
    ``seconds``; reading it then reports the error.

    memory: file that stores the observed sizes and times between processes. It is needed because modification times can
    be wrong (a camera's clock may be ahead). seconds: see above. clock: current time in seconds since the epoch.
    """

    def __init__(self, memory: Path, seconds: float, clock: Callable[[], float] = time.time):
        self.memory, self.seconds, self._clock = memory, seconds, clock
        self._before: dict[str, list] = {}
        with suppress(FileNotFoundError):
            self._before = json.loads(memory.read_text(encoding="utf-8"))
        self._now: dict[str, list] = {}

    def is_whole(self, path: Path, name: str) -> bool:
        """Whether the file ``path`` is completely written. name: key of the file in ``memory``."""
        now = self._clock()
        try:
            found = path.stat()
        except FileNotFoundError:  # removed in the meantime
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
        """Write the files that were checked since creation to ``memory``; all other entries are dropped."""
        write_json(self.memory, self._now)


def _opens(path: Path) -> bool:
    if not is_text(path):  # OpenCV would crash; the inbox renames the file when it takes it
        return False
    try:
        video_fps(path)
    except VadError:
        return False
    return True


def open_for_writing(path: Path) -> bool:
    """Whether a process on this machine has the file open for writing; False if the system cannot tell.

    Linux refuses a read lease on a file that is open for writing. If a writer opens the file while the lease is held, the
    kernel signals the holder; SIGURG is used because it is ignored by default.
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
