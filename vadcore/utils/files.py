"""Atomic file writing and file digests."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LEAST_FREE = 1 << 16  # bytes; with less free space, a failed write counts as disk full


@contextmanager
def complete(path: Path | str) -> Iterator[Path]:
    """Context manager for atomic writing: yields a temporary path in the same folder.

    The temporary file is renamed to ``path`` if the block ends without an exception; otherwise it is deleted. If the disk is
    full, raises OSError (ENOSPC) with ``path``, even if the writing library raised something else.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:8]}.partial")  # a name has 255 bytes at most
    try:
        yield temporary
        temporary.replace(path)
    except Exception as error:
        if getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(path.parent).free < LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def text_encoding(data: bytes) -> str:
    """Return the encoding of a text that a person edited: UTF-8, UTF-16, UTF-32 or else cp1252."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    for encoding, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
        if zeros.count(0) > 0.4 * len(zeros):  # of text in Latin letters, without a byte order mark
            return encoding
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def decode_text(data: bytes) -> str:
    """Decode a text in the encoding that :func:`text_encoding` finds."""
    return data.decode(text_encoding(data), errors="replace")


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value) -> None:
    """Write a JSON file atomically. Keys keep their order. Raises ValueError for NaN, which is not valid JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sweep_partial(folder: Path | str) -> None:
    """Remove the temporary files of interrupted processes below ``folder``."""
    for stray in Path(folder).rglob("*.partial"):
        stray.unlink(missing_ok=True)


def sha256_files(paths: Iterable[Path]) -> str:
    """Return one SHA-256 over the bytes of ``paths`` in order, each preceded by its length."""
    digest = hashlib.sha256()
    for path in paths:
        path = Path(path)
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def digest_of(value) -> str:
    """Return a short digest (16 hex digits) of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
