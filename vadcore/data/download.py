"""Download published archives with progress, checksum verification and resume."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vadcore.utils.errors import VadError

ATTEMPTS = 5  # failed attempts in a row without new data before giving up
PAUSE = 2.0  # seconds before the second attempt; doubles with each further attempt
TIMEOUT = 60.0  # seconds without data
BLOCK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes
    ----------
    url: address of the file.
    sha256: checksum of the file. None if no checksum is published; the log then says that the file was not verified.
    page: web page to download the file by hand, for error messages.
    """

    url: str
    sha256: str | None
    page: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


class _Moved(Exception):
    """The file on the server changed since the first part was downloaded."""


def fetch(published: Published, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Download ``published`` into ``folder`` and return its path. An existing file is only verified.

    A partial download is kept in ``<name>.part``; the next call resumes it. Raises :class:`VadError` if the download
    fails or the checksum is wrong (the file is then removed).
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / published.name, folder / f"{published.name}.part"
    if not target.exists():
        _fetch(published, part, say)
        part.replace(target)
        _tag(part).unlink(missing_ok=True)
    if published.sha256 is None:
        say(f"{target.name}: not verified, no checksum of it is published")
        return target
    found = sha256(target)
    if found != published.sha256:
        target.unlink()
        raise VadError(
            f"{published.url}: sha256 is {found}, expected {published.sha256}; the file was removed: run again, or "
            f"{_by_hand(published)}"
        )
    say(f"{target.name}: sha256 verified")
    return target


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(published: Published, part: Path, say: Callable[[str], None]) -> None:
    attempt = 0
    while True:
        before = _length(part)
        try:
            _receive(published, part, say)
            return
        except _Moved:
            part.unlink(missing_ok=True)
            say(f"{published.name}: changed on the server since the download began; starting over")
            attempt, why = attempt + 1, "the file keeps changing on the server"
        except urllib.error.HTTPError as error:
            why = f"{error.code} {error.reason}"
            attempt = ATTEMPTS if 400 <= error.code < 500 and error.code not in (408, 429) else attempt + 1
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
                raise  # a disk error, not a network error
            why = str(getattr(error, "reason", error)) or type(error).__name__
            attempt = 1 if _length(part) > before else attempt + 1
        if attempt >= ATTEMPTS:
            kept = (
                f"; {_megabytes(_length(part))} are kept, the same command goes on from there" if part.exists() else ""
            )
            raise VadError(f"{published.url}: cannot be downloaded ({why}){kept}; or {_by_hand(published)}")
        time.sleep(PAUSE * 2 ** (attempt - 1))


def _receive(published: Published, part: Path, say: Callable[[str], None]) -> None:
    """Request the missing rest of ``part`` once."""
    have = _length(part)
    headers = {"User-Agent": "vadcore", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _tag(part).exists():
            headers["If-Range"] = _tag(part).read_text(encoding="utf-8")
    try:
        response = urllib.request.urlopen(urllib.request.Request(published.url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # no bytes after ours: the file is complete or has changed
            if error.headers.get("Content-Range", "") == f"bytes */{have}":
                return
            raise _Moved from None
        raise
    with response:
        if response.status != 206:  # whole file: the server cannot resume or the file has changed
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _Moved
        stated = response.headers.get("Content-Length")
        whole = have + int(stated) if stated else None
        tag = response.headers.get("ETag", "")
        # A weak ETag does not guarantee the same bytes (RFC 9110, 13.1.5); use the date instead.
        tag = response.headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        if tag:
            _tag(part).write_text(tag, encoding="utf-8")
        else:
            _tag(part).unlink(missing_ok=True)
        size = _megabytes(whole) if whole else "unknown size"
        say(f"{published.url}: {size}" + (f", going on from {_megabytes(have)}" if have else ""))
        with part.open("ab" if have else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                _progress(published.name, have, have + len(block), whole, say)
                have += len(block)
    if whole is not None and have < whole:
        raise http.client.IncompleteRead(b"", whole - have)


def _progress(name: str, before: int, now: int, whole: int | None, say: Callable[[str], None]) -> None:
    """Log a line for every tenth of the file, or every 100 MB if its size is unknown."""
    step = max(1, whole // 10) if whole else 100_000_000
    if now // step > before // step:
        say(f"{name}: {_megabytes(now)}" + (f" of {_megabytes(whole)}, {100 * now // whole} %" if whole else ""))


def _by_hand(published: Published) -> str:
    return f"fetch it by hand ({published.page}) and set dataset.*.source to the file or its folder"


def _tag(part: Path) -> Path:
    """Path of the file that stores the version (ETag or date) of the partial download ``part``."""
    return part.with_name(f"{part.name}.version")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
