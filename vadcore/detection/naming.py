"""Convert arbitrary file names to printable names and to names of results folders."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection
from itertools import count
from pathlib import Path

from vadcore.data.formats.clip_files import clip_name

LONGEST = 180  # characters of a key; derived names (".<key>.partial", "<key>.mp4.reason.txt") stay below 255


def printable(name: str) -> str:
    """Replace control characters and surrogates in ``name`` with U+FFFD, so that it can be printed on one line and stored.

    A file name may contain any bytes; Python represents bytes that are not UTF-8 as surrogates.
    """
    return "".join("\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in name)


def is_text(path: Path | str) -> bool:
    """Whether the path is valid UTF-8. PyAV cannot open other paths."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def result_key(text: str) -> str:
    """Convert ``text`` to the name of a results folder, at most ``LONGEST`` characters.

    A shortened name ends with a digest of the whole text, so that texts with the same beginning give different names.
    """
    name = clip_name(text)
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}-{digest}"


def free_name(name: str, taken: Collection[str]) -> str:
    """Return ``name``, or the first of ``name-2``, ``name-3``, ... that is not in ``taken``."""
    names = (f"{name}-{number}" if number > 1 else name for number in count(1))
    return next(free for free in names if free not in taken)
