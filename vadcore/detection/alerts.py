"""Alert queue: call a command or URL once per event, in the background, with retries.

Sending does not delay scoring, and no alert is lost in a crash.

1. :func:`write_ready` writes the alerts into the results folder of a video, so that both appear atomically.
2. :func:`queue` moves them to the queue ``<out>/.alerts/pending/`` with one rename. If the process is killed before that,
   :func:`queue_left` moves them later.
3. A :class:`Sender` calls the target with the JSON of each alert and retries until the call succeeds or the time limit is
   reached. An alert that reaches the limit is moved to ``.alerts/failed/`` with the reason. To try it once more, move it
   back to ``pending/``. (tenacity repeats one call and blocks meanwhile; here a failing alert does not delay the others.)

An alert is sent twice only if the process dies between a successful call and the removal of the alert file. Both calls
then have the same ``id``.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from vadcore.detection.naming import printable
from vadcore.utils.files import write_json, write_text
from vadcore.utils.targets import Target

READY = "alerts"  # folder inside a results folder
QUEUE = ".alerts"  # folder beside the results folders
REASON = ".reason.txt"  # suffix of the file beside a failed alert
TAIL = 4096  # bytes read from the end of a command's stderr; its last line is reported


def write_ready(folder: Path, key: str, about: dict, results: Path) -> None:
    """Write one alert file per event into a results folder that is still being made.

    folder: the unfinished results folder. key: results key, part of the alert ``id``. about: content of events.json.
    results: final path of the folder.
    """
    shared = {name: about[name] for name in ("video", "detector", "threshold", "target_far_per_hour")}
    shared["results"] = str(results.resolve())
    for event in about["events"]:
        alert = {"id": f"{key}-{event['number']}-{uuid.uuid4().hex[:8]}", **shared, "event": event}
        write_json(folder / READY / f"{event['number']:05d}.json", {"queued": time.time(), "alert": alert})


def queue(results: Path) -> None:
    """Move the alerts of a results folder to the queue beside it. Does nothing if there are no alerts."""
    pending = results.parent / QUEUE / "pending"
    pending.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (results / READY).rename(pending / f"{results.name}.{uuid.uuid4().hex[:8]}")


def queue_left(out: Path) -> None:
    """Apply :func:`queue` to alerts that a killed process wrote but did not queue."""
    for ready in _ready(out):
        queue(ready.parent)


def any_left(out: Path) -> bool:
    """Whether ``out`` contains alerts that have not been sent."""
    return bool(_ready(out) or _pending(Path(out)))


def _ready(out: Path) -> list[Path]:
    """Alert folders in complete results folders. Names of unfinished results folders begin with a dot."""
    return sorted(Path(out).glob(f"[!.]*/{READY}"))


def _pending(out: Path) -> list[Path]:
    """Alert files in the queue. Another process may send them and remove their folders at the same time."""
    found: list[Path] = []
    with suppress(FileNotFoundError):
        for folder in sorted((out / QUEUE / "pending").iterdir()):
            with suppress(FileNotFoundError, NotADirectoryError):
                found += sorted(path for path in folder.iterdir() if path.suffix == ".json")
    return found


class Clock:
    """Clock and wait function of a :class:`Sender`; replaced in tests."""

    def now(self) -> float:
        return time.monotonic()

    def date(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> None:
        event.wait(seconds)


class Sender:
    """Sends the queued alerts of ``out`` from a background thread.

    If several processes use one queue, a lock ensures that only one of them sends.

    Parameters
    ----------
    out: folder that contains the results folders and the queue.
    target: URL or command to call.
    timeout: time limit of one call, seconds.
    first_wait, longest_wait: wait after a failed call, seconds. It starts at ``first_wait``, doubles with every failure,
        and is at most ``longest_wait``.
    give_up: age of an alert, seconds, from which a failed call is not retried.
    log: called with messages about failed calls and about alerts that are given up. The same failure is reported only
        once, until it changes or a call succeeds.
    clock: for tests.
    """

    def __init__(
        self,
        out: Path | str,
        target: Target,
        timeout: float = 10.0,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        give_up: float = 3600.0,
        log: Callable[[str], None] = print,
        clock: Clock | None = None,
    ):
        self.out, self.target, self._log = Path(out), target, log
        self.timeout, self.first_wait, self.longest_wait, self.give_up = timeout, first_wait, longest_wait, give_up
        self._clock, self._last_fault = clock or Clock(), ""
        self.folder = self.out / QUEUE
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        self._wake = threading.Event()
        self._until = math.inf  # time at which the thread must end, set by close()
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that there may be new alerts."""
        self._wake.set()

    def close(self, patience: float = 10.0) -> int:
        """Send the remaining alerts, then stop. Returns the number of alerts left for the next sender.

        patience: maximum time in seconds; a call in progress may still finish.
        """
        self._until = self._clock.now() + patience
        self._wake.set()
        self._thread.join(patience + self.timeout + 1)
        return len(_pending(self.out))

    def _work(self) -> None:
        due: dict[Path, tuple[float, float]] = {}  # alert -> (time of the next try, wait after that)
        with self._lock:
            while True:
                try:
                    with suppress(BlockingIOError):  # another process is sending
                        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until the thread ends
                        self._round(due)
                except Exception as error:  # a full disk, for example: no alert is lost, the next round retries
                    self._tell(f"{self.folder}: {error}")
                # the limit is read first, so that alerts queued before close() are seen
                if (until := self._until) < math.inf and (self._clock.now() >= until or not _pending(self.out)):
                    return
                soonest = min((at for at, _ in due.values()), default=math.inf)
                rest = min(1.0, max(0.01, soonest - self._clock.now()), max(0.0, until - self._clock.now()))
                self._clock.wait(self._wake, rest)
                self._wake.clear()

    def _round(self, due: dict[Path, tuple[float, float]]) -> None:
        """Try every alert that is due."""
        entries = _pending(self.out)
        for gone in due.keys() - set(entries):
            del due[gone]
        for path in entries:
            at, wait = due.get(path, (0.0, self.first_wait))
            if not at <= self._clock.now() < self._until:
                continue
            try:
                sent = self._send(path)
            finally:  # also if it raises, such as on a full disk
                due[path] = self._clock.now() + wait, min(2 * wait, self.longest_wait)
            if sent:
                del due[path]

    def _send(self, path: Path) -> bool:
        """Try to send one alert. Returns False if it must be retried."""
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            queued, text = float(entry["queued"]), json.dumps(entry["alert"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._give_up(path, f"not readable ({error})")
            return True
        try:
            fault = call(self.target, text, self.timeout)
        except Exception as error:  # an unexpected error must not stop the other alerts
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            self._last_fault = ""
            path.unlink(missing_ok=True)
            self._tidy(path)
        elif self._clock.date() - queued < self.give_up:
            if fault != self._last_fault:
                self._tell(f"{path}: alert not sent yet: {fault}; it is tried again")
            self._last_fault = fault
            return False
        else:
            self._give_up(path, fault)
        return True

    def _give_up(self, path: Path, why: str) -> None:
        failed = self.folder / "failed" / path.parent.name / path.name
        failed.parent.mkdir(parents=True, exist_ok=True)
        path.replace(failed)
        write_text(failed.with_suffix(REASON), f"{why}\n")
        self._tidy(path)
        self._tell(f"{failed}: alert given up: {why}")

    def _tidy(self, path: Path) -> None:
        """Delete the reason file of a finished alert, and its folder if that is empty."""
        path.with_suffix(REASON).unlink(missing_ok=True)  # exists if the alert was moved back from failed/
        with suppress(OSError):
            path.parent.rmdir()

    def _tell(self, text: str) -> None:
        with suppress(OSError, ValueError):  # output is closed; alerts must still be sent
            self._log(text)


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
    headers, host = {"Content-Type": "application/json", "User-Agent": "vadcore"}, urllib.parse.urlsplit(url).hostname
    request = urllib.request.Request(url, text.encode(), headers, method="POST")
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
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(text.encode())
        given.seek(0)
        nothing = subprocess.DEVNULL
        try:
            process = subprocess.Popen(words, stdin=given, stdout=nothing, stderr=errors, start_new_session=True)
        except (OSError, ValueError) as error:  # ValueError: null byte in an argument
            return f"{words[0]} cannot be started ({getattr(error, 'strerror', error)})"
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a process stuck in the kernel is abandoned
                process.wait(1)
            return f"{words[0]} took more than {timeout:g} s"
        if code == 0:
            return None
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - TAIL))
        last = errors.read(TAIL).decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        return f"{words[0]} ended with {code}: {printable(last[0][:200])}"
