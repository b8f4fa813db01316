"""The outbox, ``tracking/outbox``: a folder for each run, with the logged events that MLflow has not confirmed yet.

======================  ===============================================================================================
``run.json``            name, experiment, URI, tags, start, pipeline and uploader of the run; written once
``events.jsonl``        what the stage logged, one JSON object per line; the last one is ``end``. The stage holds a lock
                        on this file until it ends; the system releases it when the stage is killed
``files/``              copies of logged pictures, files and models
``state.json``          what has been sent: tracking URI, run id, bytes of ``events.jsonl`` that MLflow has confirmed;
                        what MLflow refused; the last fault; whether all is done
======================  ===============================================================================================

MLflow cannot do this itself: its asynchronous logging keeps events in memory and drops them while a server is down, and
its file store accepts no new data since version 3.13.

Times are milliseconds since 1970 UTC, as in MLflow. A folder is removed once its run has ended and everything was sent.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vadcore.utils.files import write_json

TRACKING = Path("tracking")  # in the project folder, the working folder of every stage


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def lock(file: IO) -> bool:
    """Lock an open file and return True; return False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


class EventLog:
    """One run in the outbox. ``about`` is its ``run.json``."""

    def __init__(self, folder: Path):
        self.folder, self.key = Path(folder), Path(folder).name
        self._events, self._state = self.folder / "events.jsonl", self.folder / "state.json"
        self.about = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    @classmethod
    def create(cls, outbox: Path, key: str, about: dict) -> EventLog:
        """Create the folder of a run that this process writes, until :meth:`close`."""
        folder = outbox / key
        (folder / "files").mkdir(parents=True)
        log = (folder / "events.jsonl").open("a", encoding="utf-8")
        lock(log)  # before run.json exists, by which other processes find the run
        write_json(folder / "run.json", about)
        run = cls(folder)
        run._log = log
        return run

    def append(self, event: dict) -> None:
        self._log.write(json.dumps(event) + "\n")
        self._log.flush()

    def close(self) -> None:
        """Release the lock: this process logs no more."""
        self._log.close()

    @property
    def state(self) -> dict:
        """What has been sent; empty before the first contact with MLflow."""
        return json.loads(self._state.read_text(encoding="utf-8")) if self._state.exists() else {}

    def save_state(self, state: dict) -> None:
        write_json(self._state, state)

    def events(self, offset: int = 0) -> Iterator[tuple[dict, int]]:
        """Yield the events from byte ``offset`` on, each with the offset of the next one.

        An incomplete last line is left out: its writer was killed or has not finished it yet.
        """
        with self._events.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield json.loads(line), offset

    def last_written(self) -> int:
        return int(self._events.stat().st_mtime * 1000)

    def ended(self) -> bool:
        """Return True if the stage has written its last event, ``end``."""
        with self._events.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            return re.search(rb'^{"end".*\n\Z', file.read(), re.MULTILINE) is not None

    def writer_lives(self) -> bool:
        """Return True if the stage may still log."""
        with self._events.open() as file:
            return not lock(file)

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def waiting_runs(tracking: Path = TRACKING) -> list[EventLog]:
    """Return all runs of the outbox, oldest first."""
    found = []
    for path in tracking.glob("outbox/*/run.json"):
        try:
            found.append(EventLog(path.parent))
        except FileNotFoundError:  # another process has just sent it
            continue
    return sorted(found, key=lambda run: run.about["start"])
