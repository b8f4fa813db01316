"""Folder lock: held by one process, released when the process releases it or dies in any way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK = "lock"


def hold(folder: Path) -> int | None:
    """Lock ``folder``. Returns the file descriptor of the lock; closing it releases the lock.

    Returns None if another process holds the lock or has removed or renamed the folder in the meantime.
    """
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
