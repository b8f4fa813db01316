"""The outbox, ``tracking/outbox``: a folder for each run, with the logged events that MLflow has not confirmed yet.

======================  ===============================================================================================
``run.json``            name, experiment, tags, start, pipeline, process: written once, at the start of the run
``events.jsonl``        what the stage logged, one JSON object per line, in order; the last one is ``end``
``system.jsonl``        system metrics in the same form, written by the uploader process
``files/``              copies of logged pictures, files and models
``state.json``          what has been sent: tracking URI, run id, bytes of each ``.jsonl`` that MLflow has confirmed;
                        what MLflow refused; the last fault; whether all is done
======================  ===============================================================================================

MLflow cannot do this itself: its asynchronous logging keeps events in memory and drops them while a server is down, and
its file store accepts no new data since version 3.13.

Times are milliseconds since 1970 UTC, as in MLflow. A folder is removed once its run has ended and everything was sent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from vadcore.utils.files import write_json

TRACKING = Path("tracking")  # in the project folder, the working folder of every stage
LOGS = ("events.jsonl", "system.jsonl")
QUIET_SECONDS = 600  # a run of another machine without writes for this long belongs to a dead process


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def this_process() -> dict:
    """Return the identity of this process: host, pid and creation time, because a pid can be reused."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "created": psutil.Process().create_time()}


def is_alive(process: dict) -> bool:
    """Return True if ``process`` (see :func:`this_process`) of this machine still runs."""
    try:
        found = psutil.Process(process["pid"])
        return abs(found.create_time() - process["created"]) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class EventLog:
    """One run in the outbox. ``about`` is its ``run.json``."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.key = self.folder.name
        self.about = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    @classmethod
    def create(cls, outbox: Path, key: str, about: dict) -> EventLog:
        """Create the folder of a run. ``about`` needs: name, experiment, uri, tags, start, pipeline, process, uploader."""
        folder = outbox / key
        (folder / "files").mkdir(parents=True)
        for name in LOGS:
            (folder / name).touch()
        write_json(folder / "run.json", about)
        return cls(folder)

    @property
    def state(self) -> dict:
        """What has been sent; empty before the first contact with MLflow."""
        path = self.folder / "state.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def save_state(self, state: dict) -> None:
        write_json(self.folder / "state.json", state)

    def append(self, name: str, event: dict) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as log:
            log.write(json.dumps(event) + "\n")

    def events(self, name: str = "events.jsonl", offset: int = 0) -> Iterator[tuple[dict, int]]:
        """Yield the events of a log from byte ``offset`` on, each with the offset of the next one.

        An incomplete last line is left out: its writer was killed or has not finished it yet.
        """
        with (self.folder / name).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield json.loads(line), offset

    def ended(self) -> bool:
        """Return True if the stage has written its last event, ``end``."""
        with (self.folder / "events.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().splitlines(keepends=True)
        return bool(lines) and lines[-1].endswith(b"\n") and lines[-1].startswith(b'{"end"')

    def writer_lives(self) -> bool:
        """Return True if the stage may still log. On another machine, only a recent write shows that it runs."""
        process = self.about["process"]
        if process["host"] != socket.gethostname():
            last = max((self.folder / name).stat().st_mtime for name in LOGS)
            return time.time() - last < QUIET_SECONDS
        return is_alive(process)

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
