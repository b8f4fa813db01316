"""The files of an inbox: which are videos, which of them are completely written, and why the others are not scored."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from vadcore.data.video import VIDEO_ENDINGS
from vadcore.data.video_index import video_index
from vadcore.detection.naming import is_text
from vadcore.utils.errors import VadError

PATIENCE = 3  # multiple of the settle time after which an unreadable file counts as broken


def is_video(name: str) -> bool:
    """Whether a file name is that of a video."""
    return Path(name).suffix.lower() in VIDEO_ENDINGS and not name.startswith(".")


def incoming(folder: Path, others: Collection[Path]) -> Iterator[tuple[Path, str | None]]:
    """Yield everything below ``folder`` with the reason why it is not scored; None for videos.

    Left out are ``others``, resolved paths of folders, and hidden files that are not named like videos: they belong to
    programs.
    """
    for here, names, files in os.walk(folder):
        entered = []
        for path in (Path(here, name) for name in names):
            if path.resolve() in others:
                continue
            if path.name.startswith("."):
                yield path, "a hidden folder; rename it"
            elif path.is_symlink():
                yield path, "a link to a folder; bring the folder itself"
            else:
                entered.append(path.name)
        names[:] = entered  # os.walk enters these
        for path in (Path(here, name) for name in files):
            if is_video(path.name):
                there = os.path.isfile(path)  # noqa: PTH113 - False, not an error, without permission
                yield path, None if there else "a broken link, a pipe or without permission; replace it by the video"
            elif is_video(path.name.lstrip(".")):
                yield path, "hidden; rename it"
            elif not path.name.startswith("."):
                ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
                yield path, f"{ending}, unlike a video; rename it if it is one"


def is_settled(path: Path, seconds: float, now: float) -> bool:
    """Whether a video file is completely written.

    It is if it has not changed for ``seconds``, no process on this machine has it open for writing, and it can be opened as
    a video. A file that cannot be opened also counts as complete after ``PATIENCE`` times ``seconds``; reading it then
    reports the error.

    now: current time in seconds since the epoch. Where the modification time is later, such as that of a camera whose
    clock is ahead, the time counts at which this machine changed the file.
    """
    try:
        found = path.stat()
    except FileNotFoundError:  # removed in the meantime
        return False
    unchanged = now - (found.st_mtime if found.st_mtime <= now else found.st_ctime)
    if unchanged < seconds or _open_for_writing(path):
        return False
    if unchanged >= PATIENCE * seconds:
        return True
    with suppress(VadError):
        return is_text(path) and not video_index(path).cut_off  # PyAV cannot open other names
    return False


def _open_for_writing(path: Path) -> bool:
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
