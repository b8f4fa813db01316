"""Send JSON to a command or a URL."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import suppress

from vadcore.detection.naming import printable
from vadcore.utils.targets import Target

TAIL = 4096  # bytes read from the end of a command's stderr; its last line is reported


def call(target: Target, text: str, timeout: float) -> str | None:
    """Send JSON ``text`` to a URL by POST or to the standard input of a command.

    timeout: seconds. Returns an error message, or None on success. Messages contain only the host of a URL, because the
    rest may be secret.
    """
    return _post(target, text, timeout) if isinstance(target, str) else _command(target, text, timeout)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST would become a GET without the JSON."""

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
    except OSError as error:  # includes URLError and time-outs
        return f"no answer from {host} ({getattr(error, 'reason', error)})"
    except Exception as error:  # the answer may not be HTTP
        return f"no HTTP from {host} ({type(error).__name__})"
    return None


def _command(words: Sequence[str], text: str, timeout: float) -> str | None:
    """Run a command with ``text`` as standard input; see :func:`call`.

    Uses files instead of pipes: a pipe would stay open while a background process of the command is running.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                words, stdin=given, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
        except (OSError, ValueError) as error:  # ValueError: null byte in an argument
            return f"{words[0]} cannot be started ({getattr(error, 'strerror', error)})"
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"{words[0]} took more than {timeout:g} s"
        if code == 0:
            return None
        said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
        last = said.read(TAIL).decode(errors="replace").strip().splitlines()[-1:] or ["without a word"]
        return f"{words[0]} ended with {code}: {printable(last[0][:200])}"


def _end(process: subprocess.Popen) -> None:
    """Kill the process and its process group, if permitted."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # a process stuck in the kernel is abandoned
        process.wait(1)
