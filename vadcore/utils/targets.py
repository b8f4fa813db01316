"""Parse the target of an alert: a URL or a command."""

from __future__ import annotations

import re
import shlex
import urllib.parse
from collections.abc import Sequence

from vadcore.utils.errors import VadError

Target = str | tuple[str, ...]  # a URL, or a command and its arguments


def target_of(given: str | Sequence[str]) -> Target:
    """Parse an http or https URL or a command.

    A command is a list of words, which is used as it is, or a string, which is split like in a shell. Raises
    :class:`VadError` if ``given`` is neither.
    """
    if not isinstance(given, str):
        if not given or not all(isinstance(word, str) and word for word in given):
            raise VadError(f"alert: {given!r} is not a command; give a list of words, the program first")
        return tuple(given)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given):
        try:
            words = shlex.split(given)
        except ValueError as error:  # unclosed quotation mark
            raise VadError(
                f"alert: {given!r} is not a command ({error}); correct it, or give a list of words"
            ) from error
        if not words:
            raise VadError(f"alert: {given!r} is not a command; name a program or a URL, or leave it out")
        return tuple(words)
    parts = urllib.parse.urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise VadError(
            f"alert: {given!r} is not an http or https URL; correct it, or give a command as a list of words"
        )
    return given
