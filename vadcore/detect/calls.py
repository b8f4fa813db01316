"""One call of a command or a URL with JSON."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

from vadcore.errors import VadError

Target = str | tuple[str, ...]  # a URL, or a command and its arguments


def target_of(given: str | Sequence[str]) -> Target:
    """A URL (http or https), or a command: a list of words, or one program. Raises :class:`VadError` for what is neither."""
    if not isinstance(given, str):
        if not given or not all(isinstance(word, str) and word for word in given):
            raise VadError(f"alert: {given!r} is no command; give a list of words, the program first")
        return tuple(given)
    if "://" not in given:
        return (given,)
    parts = urllib.parse.urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise VadError(f"alert: {given!r} is no http or https URL; correct it, or give a command as a list of words")
    return given


def call(target: Target, text: str, timeout: float) -> str | None:
    """One call: JSON ``text`` to a URL by POST, or to a command's standard input. What went wrong; None if nothing did.

    A URL's host is named in messages and nothing else of it, because the rest may be a secret.
    """
    return _post(target, text, timeout) if isinstance(target, str) else _command(target, text, timeout)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, without its JSON."""

    def redirect_request(self, *_):
        return None


def _post(url: str, text: str, timeout: float) -> str | None:
    request = urllib.request.Request(
        url, text.encode(), {"Content-Type": "application/json", "User-Agent": "vadcore"}, method="POST"
    )
    host = urllib.parse.urlsplit(url).hostname
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
            answer.read(1 << 16)
    except urllib.error.HTTPError as error:
        return f"{host} answered {error.code} {error.reason}"
    except OSError as error:  # URLError and time-outs too
        return f"no answer from {host} ({getattr(error, 'reason', error)})"
    except Exception as error:  # a server may answer with anything but HTTP
        return f"no HTTP from {host} ({type(error).__name__})"
    return None


def _command(words: Sequence[str], text: str, timeout: float) -> str | None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    try:
        process = subprocess.Popen(words, start_new_session=True, **pipes)
    except OSError as error:
        return f"{words[0]} cannot be started ({error.strerror})"
    try:
        _, said = process.communicate(text, timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"{words[0]} took more than {timeout:g} s"
    if process.returncode == 0:
        return None
    last = said.strip().splitlines()[-1:] or ["without a word"]
    return f"{words[0]} ended with {process.returncode}: {last[0][:200]}"
