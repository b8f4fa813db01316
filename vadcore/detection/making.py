"""Atomic creation of a results folder: by one process at a time, and without overwriting the results of another video.

::

    out/.<key>.partial/lock      held by the process that makes the results
    out/.<key>.partial/made/     unfinished results; renamed to out/<key> when complete
    out/.<key>.partial/before/   earlier results of the same video; removed together with the partial folder

Leftovers of a killed process are recognised by a lock that no process holds.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vadcore.detection.held import LOCK, hold
from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files

EVENTS = "events.json"
MADE, BEFORE = "made", "before"
PATIENCE = 1.0  # seconds to wait for the lock; removing the leftovers of a killed process takes less


class Taken(VadError):
    """The results folder belongs to another video, or another process is making it."""


@contextmanager
def making(folder: Path, video: Path) -> Iterator[Path]:
    """Context manager: yields a temporary folder, which becomes ``folder`` when the block ends without an exception.

    folder: results folder. video: the video whose results are made. Raises :class:`Taken`, before the block, if
    ``folder`` belongs to another video or another process is making it.
    """
    beside = partial_of(folder)
    lock = _begin(beside)
    try:
        sweep(folder.parent)
        _restore(beside, folder)
        if folder.exists() and not made_from(folder, video):
            raise Taken(f"{folder}: there already, of another video; move it away, or choose another folder: --out")
        _empty(beside)  # leftovers of a killed process
        made = beside / MADE
        made.mkdir()
        yield made
        if folder.exists():
            folder.rename(beside / BEFORE)
        made.rename(folder)
    finally:
        _clear(beside, folder, lock)


def partial_of(folder: Path) -> Path:
    """Path of the partial folder in which ``folder`` is made."""
    return folder.with_name(f".{folder.name}.partial")


def made_from(folder: Path, video: Path) -> bool:
    """Whether ``folder`` contains the results of a video with the same content (SHA-256) as the file ``video``."""
    try:
        about = json.loads((folder / EVENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("sha256") == sha256_files([video])


def sweep(out: Path) -> None:
    """Remove the leftovers of killed processes in ``out``."""
    for stray in out.glob(".*.partial"):
        if not (stray / LOCK).exists():
            with suppress(OSError):  # without a lock it is ours only if it is empty
                stray.rmdir()
        elif (lock := hold(stray)) is not None:
            _clear(stray, stray.with_name(stray.name[1 : -len(".partial")]), lock)


def _begin(beside: Path) -> int:
    end = time.monotonic() + PATIENCE
    while True:
        beside.mkdir(parents=True, exist_ok=True)
        if (lock := hold(beside)) is not None:
            return lock
        if time.monotonic() > end:
            raise Taken(f"{beside}: another process is making these results; wait for it, or choose another --out")
        time.sleep(0.01)


def _restore(beside: Path, folder: Path) -> None:
    """Finish the second rename if a process was killed between the two: the new results were complete."""
    if (beside / BEFORE).exists() and (beside / MADE).exists() and not folder.exists():
        (beside / MADE).rename(folder)


def _clear(beside: Path, folder: Path, lock: int) -> None:
    """Remove the partial folder and release its lock.

    The folder is renamed first, so that its name is free at once and no process uses a half-removed folder.
    """
    _restore(beside, folder)
    gone = beside.with_name(f".{uuid.uuid4().hex}.partial")
    beside.rename(gone)
    _empty(gone)
    (gone / LOCK).unlink()
    gone.rmdir()
    os.close(lock)


def _empty(folder: Path) -> None:
    """Remove everything in ``folder`` except the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
