"""One pipeline run at a time in a checkout, what a killed one has left there, and a dvc.lock that stays whole."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import yaml
from dvc.lock import LockError, make_lock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from filelock import FileLock, Timeout
from voluptuous import Invalid

from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, write_json

POLL_SECONDS = 1.0  # between looks at whether the run that is waited for has ended
LAST_SECONDS = 90.0  # that a run without its worker may take to end: its stages are asked first, and killed after 20


def by_worker() -> bool:
    """Whether a worker has started this process to run a flow."""
    return bool(os.environ.get("PREFECT__FLOW_RUN_ID"))


class Refused(VadError):
    """Another pipeline run is at work in the checkout."""


class Checkout:
    """The project's folder. What is kept here lies in ``.dvc/tmp``, which DVC hides from git.

    ================================  =================================================================================
    ``vad-pipeline.lock``             held while a pipeline runs; the system frees it when the process is gone
    ``vad-pipeline.json``             who holds it: flow run, host, process, whether a worker started it, leases of
                                      concurrency slots. Still there though the lock is free: that run was killed
    ``vad-unpushed.json``             addresses of stages whose outs the DVC remote may not have yet
    ``vad-dvc.lock``                  dvc.lock as it was when it was last known to be whole
    ================================  =================================================================================
    """

    def __init__(self, root: Path):
        self.root = root
        self._folder = root / ".dvc" / "tmp"
        if not (root / "dvc.yaml").exists() or not (root / ".dvc").is_dir():
            raise VadError(f"{root}: no dvc.yaml and .dvc here; run this in the project's folder")
        self._lock = self._folder / "vad-pipeline.lock"
        self._holder = self._folder / "vad-pipeline.json"
        self._unpushed = self._folder / "vad-unpushed.json"
        self._whole = self._folder / "vad-dvc.lock"
        self._writing = threading.Lock()

    @contextmanager
    def hold(self, name: str, flow_run: str, wait_seconds: float = 0.0, say=print) -> Iterator[dict | None]:
        """Hold the checkout for the flow run ``flow_run``, called ``name``; yields what a killed run has left behind.

        Raises Refused, naming the holder, where another run holds it for longer than ``wait_seconds``.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock, timeout=0)
        try:
            try:
                lock.acquire()
            except Timeout:
                if not wait_seconds:
                    raise
                say(f"waiting, {wait_seconds / 3600:g} hours at most: {self._who()}")
                lock.acquire(timeout=wait_seconds, poll_interval=POLL_SECONDS)
        except Timeout as error:
            raise Refused(f"refused: {self._who()}; wait for it, or cancel it") from error
        try:
            left = self.left_behind()
            known = {"name": name, "flow_run": flow_run, "host": socket.gethostname(), "process": os.getpid()}
            known |= {"since": f"{datetime.now():%Y-%m-%d %H:%M}", "by_worker": by_worker()}
            self._write_holder({**known, "leases": []})
            yield left
        finally:
            with self._writing:
                self._holder.unlink(missing_ok=True)
            lock.release()

    def cut_off(self) -> dict | None:
        """What a killed run has left behind; None where there is none, or where a run is at work.

        A run whose worker has just been killed is given the time to stop its stages.
        """
        left = self.left_behind()
        try:
            if left is not None:
                with FileLock(self._lock, timeout=LAST_SECONDS if left["by_worker"] else 0):
                    return self.left_behind()
        except Timeout:
            return None
        return None

    def left_behind(self) -> dict | None:
        try:
            return json.loads(self._holder.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def note_leases(self, leases: list[str], held: bool) -> None:
        """Remember leases of concurrency slots while they are ``held``: a killed run cannot give them back itself."""
        with self._writing:
            if (holder := self.left_behind()) is None:
                return  # the run has ended, and with it what it held
            others = [lease for lease in holder["leases"] if lease not in leases]
            self._write_holder({**holder, "leases": [*others, *leases] if held else others})

    def _write_holder(self, holder: dict) -> None:
        write_json(self._holder, holder)

    def _who(self) -> str:
        holder = self.left_behind()
        if holder is None:  # it has the lock and is about to write, or is about to let go
            return f"another pipeline run is at work in {self.root}"
        return (
            f"pipeline run {holder['name']} (process {holder['process']} on {holder['host']}, since {holder['since']}) "
            f"is at work in {self.root}"
        )

    @property
    def unpushed(self) -> list[str]:
        """Addresses of stages whose outs may be missing in the DVC remote."""
        return json.loads(self._unpushed.read_text(encoding="utf-8")) if self._unpushed.exists() else []

    def note_unpushed(self, addresses: set[str], pushed: bool) -> None:
        with self._writing:
            known = set(self.unpushed)
            write_json(self._unpushed, sorted(known - addresses if pushed else known | addresses))

    def keep_lock_file(self) -> None:
        """Keep a copy of dvc.lock, if it is whole. Where DVC is at work on it, the next call will do."""
        path = self.root / "dvc.lock"
        if path.exists():
            try:
                with self._dvc_lock(wait=False):
                    if _whole(path):
                        with complete(self._whole) as temporary:
                            shutil.copy(path, temporary)
            except LockError:
                return

    def mend_lock_file(self, killed: bool) -> str | None:
        """Put the kept copy in the place of a broken dvc.lock; a line that says so, None where nothing is broken.

        DVC writes the file in place, so a process that is killed while it does leaves the first part of it, and that may
        well be valid YAML. ``killed``: a process was; then the first part of what the copy holds is a break too. Another
        file that is whole stays, whatever it lacks: a person has brought it here. Raises VadError where there is no copy.
        """
        path = self.root / "dvc.lock"
        if not path.exists():
            return None
        with self._dvc_lock(wait=True):
            stages = _whole(path)
            kept = _whole(self._whole) if self._whole.exists() else None
            if stages is not None and not (killed and kept is not None and self._cut_off_lock_file(stages, kept)):
                return None
            if kept is None:
                raise VadError(
                    f"{path}: broken, by a process that was killed; bring it back with: git checkout dvc.lock"
                )
            with complete(path) as temporary:
                shutil.copy(self._whole, temporary)
        return "dvc.lock was broken by a process that was killed; put back as it was after the stage before"

    def _cut_off_lock_file(self, stages: dict[str, dict], kept: dict[str, dict]) -> bool:
        """Whether dvc.lock, which holds ``stages``, is the beginning of a file: of the copy, which holds ``kept``; or of one
        whose earlier stages have changed since, and whose last one lacks outs. (One that breaks off right behind a changed
        stage cannot be told from a person's own. DVC finds in its cache what that lacks.)"""
        text, whole = (path.read_bytes() for path in (self.root / "dvc.lock", self._whole))
        if len(text) < len(whole) and whole.startswith(text):
            return True
        last = next(reversed(stages), None)
        return last is not None and [*kept][: len(stages)] == [*stages] and not _outs(kept[last]) <= _outs(stages[last])

    def _dvc_lock(self, wait: bool):
        return make_lock(str(self._folder / "lock"), tmp_dir=str(self._folder), wait=wait)


def _whole(path: Path) -> dict[str, dict] | None:
    """The stages in a dvc.lock, in its order; None where it is broken."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        COMPILED_LOCKFILE_SCHEMA(content)
        return dict(content.get("stages", {})) if text.endswith("\n") else None
    except (yaml.YAMLError, UnicodeDecodeError, Invalid, AttributeError, TypeError):
        return None


def _outs(stage: dict) -> set[str]:
    """The outs of a stage in a dvc.lock of which all is said: their sizes come last."""
    return {out["path"] for out in stage.get("outs", []) if "size" in out}
