"""Names that files come with, brought to what people and other programs can read."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

from vadcore.data.formats.clip_files import clip_name

LONGEST = 180  # characters of a key; what is made of it (".<key>.partial", "<key>.mp4.reason.txt") stays below 255


def shown(name: str) -> str:
    """``name`` on one line, in characters that can be printed and stored: all others become U+FFFD. A file's name may hold
    any bytes; those that are no UTF-8 come as surrogates."""
    return "".join("\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") else sign for sign in name)


def is_text(path: Path | str) -> bool:
    """Whether the path is UTF-8. OpenCV ends the whole process where it is not."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def result_key(text: str) -> str:
    """``text`` as the name of a folder of results, at most ``LONGEST`` characters; what is shortened ends with a digest of
    the whole, so that names that begin alike stay apart."""
    name = clip_name(text)
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}-{digest}"
