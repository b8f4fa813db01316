"""A command or URL that is called once an event, in the background: it never holds up scoring, and a crash loses no call.

Alerts are laid ready inside the folder of a video's results, so that they appear with them, at once. From there
:func:`queue` moves them, by one rename, into the spool ``<out>/.alerts/pending/``; who is killed in between leaves them to
:func:`queue_left`. A :class:`Sender` calls for each one the target, with its JSON, until that succeeds or the time is up;
then the alert lies in ``.alerts/failed/`` with the reason; moved back to ``pending/`` it is tried once more. Only the
moment between a call's success and the removal of its file can bring an alert twice, which its ``id`` then shows.
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

READY = "alerts"  # in the folder of results
SPOOL = ".alerts"  # among the folders of results
REASON = ".reason.txt"  # beside an alert that was given up


def lay_ready(folder: Path, key: str, about: dict, results: Path) -> None:
    """Into a folder of results in the making, one file an event. results: what the folder will be called."""
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
    """Hand the alerts of a folder of results to the spool beside it. Nothing happens where there are none, or none left."""
    pending = results.parent / SPOOL / "pending"
    pending.mkdir(parents=True, exist_ok=True)
    try:
        (results / READY).rename(pending / f"{results.name}.{uuid.uuid4().hex[:8]}")
    except FileNotFoundError:
        return


def queue_left(out: Path) -> None:
    """:func:`queue` what a killed process has laid ready and not handed on."""
    for ready in _ready(out):
        queue(ready.parent)


def any_left(out: Path) -> bool:
    """Whether there are alerts among the results in ``out`` that nobody has sent."""
    return bool(_ready(out) or _pending(Path(out) / SPOOL))


def _ready(out: Path) -> list[Path]:
    """Alerts laid ready in results that are complete: what is still being made has a name with a dot in front."""
    return sorted(path for path in Path(out).glob(f"*/{READY}") if not path.parent.name.startswith("."))


def _pending(spool: Path) -> list[Path]:
    """The alerts in a spool. Another process may send them, and remove their folders, meanwhile."""
    found: list[Path] = []
    with suppress(FileNotFoundError):
        for folder in sorted((spool / "pending").iterdir()):
            with suppress(FileNotFoundError, NotADirectoryError):
                found += sorted(path for path in folder.iterdir() if path.suffix == ".json")
    return found


class Clock:
    """The time as a :class:`Sender` reads it, and how it waits; tests replace it."""

    def now(self) -> float:
        return time.monotonic()

    def date(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> None:
        event.wait(seconds)


class Sender:
    """Sends what lies in the spool of ``out``, from a thread of its own. Of several processes on one spool one sends.

    timeout: seconds for one call. first_wait, longest_wait: seconds after a failed call; the wait doubles. give_up: seconds
    from an alert's making after which a failed call is its last one. say: told what is wrong with a call, once until
    something else is or one succeeds; and of alerts that are given up.
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
        self._until: float | None = None  # when the thread has to end; None: nobody has asked it to
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    def waiting(self) -> int:
        """How many alerts lie in the spool."""
        return len(self._entries())

    def close(self, patience: float = 10.0) -> int:
        """Go on until all is sent, but no longer than ``patience`` seconds (and what a call under way takes); how many
        alerts are left to the next sender."""
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
            due: dict[Path, tuple[float, float]] = {}  # when to try again, and how long to wait after that
            while True:
                try:
                    self._round(due)
                except Exception as error:  # a full disk, say: nothing is lost, and there is another round
                    self._tell(f"{self.spool}: {error}")
                if self._over():
                    return
                left = self._entries()
                soonest = min((due[path][0] if path in due else 0.0 for path in left), default=float("inf"))
                self._rest(min(1.0, max(0.01, soonest - self._clock.now())))

    def _round(self, due: dict[Path, tuple[float, float]]) -> None:
        """Try every alert whose time has come."""
        entries = self._entries()
        for gone in due.keys() - set(entries):
            del due[gone]
        for path in entries:
            at, wait = due.get(path, (0.0, self.first_wait))
            if self._clock.now() < at:
                continue
            following = min(2 * wait, self.longest_wait)
            due[path] = self._clock.now() + wait, following  # should something break off here
            if self._send(path):
                del due[path]
            else:
                due[path] = self._clock.now() + wait, following
            if self._late():
                return

    def _over(self) -> bool:
        """Whether the thread has to end: it is asked to, and all is sent or its time is up. In this order: what was queued
        before :meth:`close` is seen."""
        return self._until is not None and (self._late() or not self._entries())

    def _late(self) -> bool:
        return self._until is not None and self._clock.now() >= self._until

    def _rest(self, seconds: float) -> None:
        if self._until is not None:
            seconds = min(seconds, max(0.0, self._until - self._clock.now()))
        self._clock.wait(self._wake, seconds)
        self._wake.clear()

    def _send(self, path: Path) -> bool:
        """Whether the alert needs no further call."""
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            queued, text = float(entry["queued"]), json.dumps(entry["alert"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._give_up(path, f"not readable ({error})")
            return True
        try:
            fault = call(self.target, text, self.timeout)
        except Exception as error:  # nobody foresaw it; the other alerts and the next ones are none the worse for it
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            self._said = ""
            path.unlink(missing_ok=True)
            path.with_suffix(REASON).unlink(missing_ok=True)  # of an alert that was moved back
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
        with suppress(OSError, ValueError):  # whoever listened is gone; that is no reason to send no alerts
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
    except OSError:  # not empty yet
        return
