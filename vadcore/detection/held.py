"""A folder that belongs to one process, until that lets go of it or dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK = "lock"


def hold(folder: Path) -> int | None:
    """The descriptor of the lock in ``folder``; to close it is to let go. None where another process holds it, or has
    removed or renamed the folder meanwhile."""
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        return None
    if _locked(file) and _is_still(file, folder / LOCK):
        return file
    os.close(file)
    return None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
