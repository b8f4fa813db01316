"""The making of a folder of results: by one process at a time, complete or not there, and never in the place of another
video's.

::

    out/.<key>.partial/lock      held by the process that makes it
    out/.<key>.partial/made/     the results, until they are complete; then they are renamed to out/<key>
    out/.<key>.partial/before/   results of the same video that were there before; they go with the rest

What a killed process left is recognised by its lock, which nobody holds any more.
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
PATIENCE = 1.0  # seconds; somebody who clears away what a killed process left needs no longer


class Taken(VadError):
    """Another video's results have the name, or another process is making some of that name."""


@contextmanager
def making(folder: Path, video: Path) -> Iterator[Path]:
    """A folder to put the results of ``video`` into; when the block ends without an exception it appears as ``folder``.

    Raises :class:`Taken`, before the block, where the place of ``folder`` is not this video's.
    """
    beside = partial_of(folder)
    lock = _begin(beside)
    try:
        sweep(folder.parent)
        _restore(beside, folder)
        if folder.exists() and not made_from(folder, video):
            raise Taken(f"{folder}: there already, of another video; move it away, or choose another folder: --out")
        _empty(beside)  # of what a process left that was killed
        made = beside / MADE
        made.mkdir()
        yield made
        if folder.exists():
            folder.rename(beside / BEFORE)
        made.rename(folder)
    finally:
        _clear(beside, folder, lock)


def partial_of(folder: Path) -> Path:
    """Where ``folder`` is made."""
    return folder.with_name(f".{folder.name}.partial")


def made_from(folder: Path, video: Path) -> bool:
    """Whether ``folder`` holds the results of a video with just the bytes of the file ``video``."""
    try:
        about = json.loads((folder / EVENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("sha256") == sha256_files([video])


def sweep(out: Path) -> None:
    """Clear away what killed processes left in ``out``."""
    for stray in out.glob(".*.partial"):
        if not (stray / LOCK).exists():
            with suppress(OSError):  # not of ours, unless it is empty
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
    """Killed between the two renames: the new results were complete."""
    if (beside / BEFORE).exists() and (beside / MADE).exists() and not folder.exists():
        (beside / MADE).rename(folder)


def _clear(beside: Path, folder: Path, lock: int) -> None:
    """Renamed first: its name is free at once, and nobody takes up what is half removed."""
    _restore(beside, folder)
    gone = beside.with_name(f".{uuid.uuid4().hex}.partial")
    beside.rename(gone)
    _empty(gone)
    (gone / LOCK).unlink()
    gone.rmdir()
    os.close(lock)


def _empty(folder: Path) -> None:
    """All but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
