"""Files that appear complete or not at all, and digests of what lies on disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LEAST_FREE = 1 << 16  # bytes; with less, a failed write failed for lack of room


@contextmanager
def complete(path: Path | str) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` when the block ends without an exception.

    A full disk is an OSError (ENOSPC) that names ``path``, whatever the library that wrote made of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield temporary
        temporary.replace(path)
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(path.parent).free < LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, complete or not at all."""
    with complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value) -> None:
    """Write a JSON file, complete or not at all; keys keep their order. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sweep_partial(folder: Path | str) -> None:
    """Remove the temporary files that a killed process left below ``folder``."""
    for stray in Path(folder).rglob("*.partial"):
        stray.unlink(missing_ok=True)


def sha256_files(paths: Iterable[Path]) -> str:
    """One digest over the bytes of ``paths`` in order, each preceded by its length."""
    digest = hashlib.sha256()
    for path in paths:
        path = Path(path)
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def digest_of(value) -> str:
    """A short digest (16 hex digits) of anything JSON can hold, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
