"""One pipeline run at a time in a checkout; recovery after a kill: resume the run, free its slots, mend dvc.lock."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID

import yaml
from dvc.lock import LockError, make_lock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from filelock import FileLock, Timeout
from voluptuous import Invalid

from flows.process import by_worker
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, write_json

LIMIT = "gpu"  # the global concurrency limit, of which a heavy stage takes one slot, and the work pool
POLL_SECONDS = 1.0  # between checks for the end of the run that holds the lock
LAST_SECONDS = 90.0  # for a run to end after its worker is gone; it takes a second, or longer on a busy machine


class Refused(VadError):
    """Raised when another pipeline run holds the checkout."""


class Checkout:
    """The project folder. The files below are kept in ``.dvc/tmp``, which DVC hides from git.

    ================================  =================================================================================
    ``vad-pipeline.lock``             lock held while a pipeline runs; the system releases it when the process ends
    ``vad-pipeline.json``             the holder of the lock: flow run, host, process, whether a worker started it, leases
                                      of concurrency slots. If it exists while the lock is free, that run was killed
    ``vad-unpushed.json``             addresses of stages whose outs the DVC remote may lack
    ``vad-dvc.lock``                  copy of the last dvc.lock that was known to be complete
    ================================  =================================================================================
    """

    def __init__(self, root: Path):
        if not (root / "dvc.yaml").exists() or not (root / ".dvc").is_dir():
            raise VadError(f"{root}: no dvc.yaml and .dvc here; run this in the project's folder")
        self.root, self._folder, self._writing = root, root / ".dvc" / "tmp", threading.Lock()
        self._lock, self._holder = self._folder / "vad-pipeline.lock", self._folder / "vad-pipeline.json"
        self._unpushed, self._whole = self._folder / "vad-unpushed.json", self._folder / "vad-dvc.lock"

    @contextmanager
    def hold(self, name: str, flow_run: str, wait_seconds: float = 0.0, say=print) -> Iterator[dict | None]:
        """Lock the checkout for the flow run ``name`` with the id ``flow_run``; yield the record of a killed run, or None.

        Raises Refused, with the name of the holder, if another run holds the lock for longer than ``wait_seconds``.
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
            left = self.read_holder()
            known = {"name": name, "flow_run": flow_run, "host": socket.gethostname(), "process": os.getpid()}
            known |= {"since": f"{datetime.now():%Y-%m-%d %H:%M}", "by_worker": by_worker()}
            write_json(self._holder, {**known, "leases": []})
            yield left
        finally:
            with self._writing:
                self._holder.unlink(missing_ok=True)
            lock.release()

    def killed_run(self) -> dict | None:
        """Return the record of a killed run; None if there is none or a run is active.

        If the worker of a run was just killed, wait up to LAST_SECONDS for that run to end.
        """
        if (left := self.read_holder()) is None:
            return None
        try:
            with FileLock(self._lock, timeout=LAST_SECONDS if left["by_worker"] else 0):
                return self.read_holder()
        except Timeout:
            return None

    def read_holder(self) -> dict | None:
        try:
            return json.loads(self._holder.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def note_leases(self, leases: list[str], held: bool) -> None:
        """Record leases of concurrency slots while they are ``held``, because a killed run cannot release them itself."""
        with self._writing:
            if (holder := self.read_holder()) is None:
                return  # the run has ended and released its slots
            others = [lease for lease in holder["leases"] if lease not in leases]
            write_json(self._holder, {**holder, "leases": [*others, *leases] if held else others})

    def _who(self) -> str:
        holder = self.read_holder()
        if holder is None:  # the holder has not written its record yet, or is about to release the lock
            return f"another pipeline run is active in {self.root}"
        place = f"process {holder['process']} on {holder['host']}, since {holder['since']}"
        return f"pipeline run {holder['name']} ({place}) is running in {self.root}"

    @property
    def unpushed(self) -> list[str]:
        """Addresses of stages whose outs may be missing in the DVC remote."""
        return json.loads(self._unpushed.read_text(encoding="utf-8")) if self._unpushed.exists() else []

    def note_unpushed(self, addresses: set[str], pushed: bool) -> None:
        with self._writing:
            known = set(self.unpushed)
            write_json(self._unpushed, sorted(known - addresses if pushed else known | addresses))

    def keep_lock_file(self) -> None:
        """Copy dvc.lock if it is complete. If DVC is using it, skip it; the next call makes the copy."""
        path = self.root / "dvc.lock"
        with suppress(LockError), self._dvc_lock(wait=False):
            if path.exists() and _whole(path):
                _copy(path, self._whole)

    def mend_lock_file(self, killed: bool) -> str | None:
        """Replace a damaged dvc.lock by the kept copy. Return a message, or None if nothing is damaged.

        DVC writes dvc.lock in place. A process killed while writing leaves only the beginning of the file, which can be
        valid YAML. If ``killed`` is True (a process was killed), a file that is the beginning of the copy also counts as
        damaged. Any other complete file is kept, even if it lacks stages: a person put it there.

        Raises VadError if dvc.lock is damaged and there is no copy.
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
                raise VadError(f"{path}: damaged by a killed process; restore it with: git checkout dvc.lock")
            _copy(self._whole, path)
        return "dvc.lock was damaged by a killed process; restored the copy made after the previous stage"

    def _cut_off_lock_file(self, stages: dict[str, dict], kept: dict[str, dict]) -> bool:
        """Return True if dvc.lock was truncated by a kill.

        That is the case if it is the beginning of the copy, or if its last stage lacks outs that the copy has and its stages
        are the first ones of the copy (earlier stages may have changed). ``stages`` and ``kept`` are the stages of dvc.lock
        and of the copy. A file that ends directly after a changed stage looks like one that a person put there and is kept;
        DVC then restores the missing stages from its cache.
        """
        text, whole = (path.read_bytes() for path in (self.root / "dvc.lock", self._whole))
        if len(text) < len(whole) and whole.startswith(text):
            return True
        last = next(reversed(stages), None)
        return last is not None and [*kept][: len(stages)] == [*stages] and not _outs(kept[last]) <= _outs(stages[last])

    def _dvc_lock(self, wait: bool):
        return make_lock(str(self._folder / "lock"), tmp_dir=str(self._folder), wait=wait)


def _copy(path: Path, target: Path) -> None:
    with complete(target) as temporary:
        shutil.copy(path, temporary)


def _whole(path: Path) -> dict[str, dict] | None:
    """Return the stages of a dvc.lock in file order; None if the file is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        COMPILED_LOCKFILE_SCHEMA(content)
        return dict(content.get("stages", {})) if text.endswith("\n") else None
    except (yaml.YAMLError, UnicodeDecodeError, Invalid, AttributeError, TypeError):
        return None


def _outs(stage: dict) -> set[str]:
    """Return the paths of the complete outs of a stage in dvc.lock: those with a size, which is written last."""
    return {out["path"] for out in stage.get("outs", []) if "size" in out}


def clean_up(checkout: Checkout, left: dict | None, identity: str, log) -> None:
    """Clean up for the run ``identity``, which now holds the checkout. ``left``: record of a killed run, or None."""
    if mended := checkout.mend_lock_file(killed=left is not None):
        log.warning("%s", mended)
    if left and left["flow_run"] != identity:  # else a worker resumes the run
        mark_crashed(left)
        log.info("continues %s, which was killed", left["name"])


def requeue(checkout: Checkout) -> str | None:
    """Put the run that was killed in this checkout back into its queue, so that a worker resumes it. Return its name.

    Returns None if there is no such run, if it was started from a shell, or if it was being cancelled.
    """
    left = checkout.killed_run()
    return None if left is None else _close(left, resume=True)


def mark_crashed(left: dict) -> None:
    """Release the slots of a killed run, and mark it as crashed in Prefect, so that it is not shown as running."""
    _close(left, resume=False)


def _close(left: dict, resume: bool) -> str | None:
    """Release the slots of a killed run, which would expire after five minutes, and give it a state in Prefect.

    Returns its name if it goes back into its queue.
    """
    from prefect.client.orchestration import get_client  # flows.serve sets its environment before the first import
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry, Cancelled, Crashed

    with get_client(sync_client=True) as client:
        for lease in left.get("leases", []):
            client.release_concurrency_slots_with_lease(lease)
        try:
            run = client.read_flow_run(UUID(left["flow_run"]))
        except ObjectNotFound:  # of another server
            return None
        if run.state.is_cancelling():
            state = Cancelled(message="its process was killed")
        elif run.state.is_running() and not resume:
            state = Crashed(message="its process was killed; the next run continued")
        elif run.state.is_running() and run.deployment_id:
            state = AwaitingRetry(message="its process was killed; the run continues")
        else:
            return None
        client.set_flow_run_state(run.id, state, force=True)
        return run.name if state.is_scheduled() else None
