"""Alert queue: call a command or URL once per event, in the background, with retries.

Sending does not delay scoring, and no alert is lost in a crash.

1. :func:`lay_ready` writes the alerts into the results folder of a video, so that both appear atomically.
2. :func:`queue` moves them to the spool ``<out>/.alerts/pending/`` with one rename. If the process is killed before that,
   :func:`queue_left` moves them later.
3. A :class:`Sender` calls the target with the JSON of each alert and retries until the call succeeds or the time limit is
   reached. An alert that reaches the limit is moved to ``.alerts/failed/`` with the reason. To try it once more, move it
   back to ``pending/``.

An alert is sent twice only if the process dies between a successful call and the removal of the alert file. Both calls
then have the same ``id``.
"""

from __future__ import annotations

import fcntl
import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vadcore.detection.calls import call
from vadcore.utils.files import write_json, write_text
from vadcore.utils.targets import Target

READY = "alerts"  # folder inside a results folder
SPOOL = ".alerts"  # folder beside the results folders
REASON = ".reason.txt"  # suffix of the file beside a failed alert


def lay_ready(folder: Path, key: str, about: dict, results: Path) -> None:
    """Write one alert file per event into a results folder that is still being made.

    folder: the unfinished results folder. key: results key, part of the alert ``id``. about: content of events.json.
    results: final path of the folder.
    """
    if not about["events"]:
        return
    (folder / READY).mkdir()
    shared = {name: about[name] for name in ("video", "detector", "threshold", "target_far_per_hour")}
    for event in about["events"]:
        number = event["number"]
        alert = {
            "id": f"{key}-{number}-{uuid.uuid4().hex[:8]}",
            **shared,
            "event": event,
            "results": str(results.resolve()),
        }
        write_json(folder / READY / f"{number:05d}.json", {"queued": time.time(), "alert": alert})


def queue(results: Path) -> None:
    """Move the alerts of a results folder to the spool beside it. Does nothing if there are no alerts."""
    pending = results.parent / SPOOL / "pending"
    pending.mkdir(parents=True, exist_ok=True)
    try:
        (results / READY).rename(pending / f"{results.name}.{uuid.uuid4().hex[:8]}")
    except FileNotFoundError:
        return


def queue_left(out: Path) -> None:
    """Apply :func:`queue` to alerts that a killed process wrote but did not queue."""
    for ready in _ready(out):
        queue(ready.parent)


def any_left(out: Path) -> bool:
    """Whether ``out`` contains alerts that have not been sent."""
    return bool(_ready(out) or _pending(Path(out) / SPOOL))


def _ready(out: Path) -> list[Path]:
    """Alert folders in complete results folders. Names of unfinished results folders begin with a dot."""
    return sorted(path for path in Path(out).glob(f"*/{READY}") if not path.parent.name.startswith("."))


def _pending(spool: Path) -> list[Path]:
    """Alert files in a spool. Another process may send them and remove their folders at the same time."""
    found: list[Path] = []
    with suppress(FileNotFoundError):
        for folder in sorted((spool / "pending").iterdir()):
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
    """Sends the alerts in the spool of ``out`` from a background thread.

    If several processes use one spool, a lock ensures that only one of them sends.

    Parameters
    ----------
    out: folder that contains the results folders and the spool.
    target: URL or command to call.
    timeout: time limit of one call, seconds.
    first_wait, longest_wait: wait after a failed call, seconds. It starts at ``first_wait``, doubles with every failure,
        and is at most ``longest_wait``.
    give_up: age of an alert, seconds, from which a failed call is not retried.
    say: called with messages about failed calls and about alerts that are given up. The same failure is reported only
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
        say: Callable[[str], None] = print,
        clock: Clock | None = None,
    ):
        self.spool, self.target = Path(out) / SPOOL, target
        self.timeout, self.first_wait, self.longest_wait, self.give_up = timeout, first_wait, longest_wait, give_up
        self._say, self._said = say, ""
        self._clock = clock or Clock()
        (self.spool / "pending").mkdir(parents=True, exist_ok=True)
        self._lock = (self.spool / "lock").open("w")
        self._wake = threading.Event()
        self._until: float | None = None  # time at which the thread must end; None until close() is called
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that there may be new alerts."""
        self._wake.set()

    def waiting(self) -> int:
        """Number of alerts in the spool."""
        return len(self._entries())

    def close(self, patience: float = 10.0) -> int:
        """Send the remaining alerts, then stop. Returns the number of alerts left for the next sender.

        patience: maximum time in seconds; a call in progress may still finish.
        """
        self._until = self._clock.now() + patience
        self._wake.set()
        self._thread.join(patience + self.timeout + 1)
        return self.waiting()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *exception) -> None:
        if self._thread.is_alive() and self._until is None:
            self.close(0.0 if any(exception) else 10.0)

    def _entries(self) -> list[Path]:
        return _pending(self.spool)

    def _work(self) -> None:
        with self._lock:
            while not _locked(self._lock):
                if self._over():
                    return
                self._rest(1.0)
            due: dict[Path, tuple[float, float]] = {}  # alert -> (time of the next try, wait after that)
            while True:
                try:
                    self._round(due)
                except Exception as error:  # a full disk, for example: no alert is lost, the next round retries
                    self._tell(f"{self.spool}: {error}")
                if self._over():
                    return
                left = self._entries()
                soonest = min((due[path][0] if path in due else 0.0 for path in left), default=float("inf"))
                self._rest(min(1.0, max(0.01, soonest - self._clock.now())))

    def _round(self, due: dict[Path, tuple[float, float]]) -> None:
        """Try every alert that is due."""
        entries = self._entries()
        for gone in due.keys() - set(entries):
            del due[gone]
        for path in entries:
            at, wait = due.get(path, (0.0, self.first_wait))
            if self._clock.now() < at:
                continue
            following = min(2 * wait, self.longest_wait)
            due[path] = self._clock.now() + wait, following  # set now in case _send raises
            if self._send(path):
                del due[path]
            else:
                due[path] = self._clock.now() + wait, following
            if self._late():
                return

    def _over(self) -> bool:
        """Whether the thread must end: :meth:`close` was called, and all alerts are sent or the time limit is reached.

        ``_until`` is checked first, so that alerts queued before :meth:`close` are seen.
        """
        return self._until is not None and (self._late() or not self._entries())

    def _late(self) -> bool:
        return self._until is not None and self._clock.now() >= self._until

    def _rest(self, seconds: float) -> None:
        if self._until is not None:
            seconds = min(seconds, max(0.0, self._until - self._clock.now()))
        self._clock.wait(self._wake, seconds)
        self._wake.clear()

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
            self._said = ""
            path.unlink(missing_ok=True)
            path.with_suffix(REASON).unlink(missing_ok=True)  # exists if the alert was moved back from failed/
            _remove_empty(path.parent)
            return True
        if self._clock.date() - queued < self.give_up:
            if fault != self._said:
                self._said = fault
                self._tell(f"{path}: alert not sent yet: {fault}; it is tried again")
            return False
        self._give_up(path, fault)
        return True

    def _give_up(self, path: Path, why: str) -> None:
        failed = self.spool / "failed" / path.parent.name
        failed.mkdir(parents=True, exist_ok=True)
        path.replace(failed / path.name)
        path.with_suffix(REASON).unlink(missing_ok=True)
        write_text((failed / path.name).with_suffix(REASON), f"{why}\n")
        _remove_empty(path.parent)
        self._tell(f"{failed / path.name}: alert given up: {why}")

    def _tell(self, text: str) -> None:
        with suppress(OSError, ValueError):  # output is closed; alerts must still be sent
            self._say(text)


def _locked(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty
        return
