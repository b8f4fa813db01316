"""A stage as a Prefect task: its kind, its slot of the limit ``gpu``, ``dvc repro --single-item``, the result as a state."""

from __future__ import annotations

import contextvars
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType
from prefect.concurrency.context import ConcurrencyContext
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed

from flows.graph import Node
from flows.process import Ended, Process, follow
from flows.recovery import LIMIT, Checkout
from vadcore.utils.errors import VadError
from vadcore.utils.provenance import cores

NICE = 10  # niceness of light stages and of scoring new footage, so that they do not slow down a training
LIGHT_AT_ONCE = 2  # number of light stages at a time; each already spreads its clips over all cores
BUSY_SECONDS = 5.0  # between attempts at a stage that another DVC process is using
STOP_SECONDS = 25.0  # for a stopped process to end; a worker kills a cancelled flow after 30
ASK_SECONDS = 10.0  # for a slot, before the next look whether the run is stopped
KEEP_SECONDS = 60.0  # a slot held for longer is released after the stage, so that other flows get one


@dataclass(frozen=True)
class Kind:
    """How stages of a kind are run.

    Attributes
    ----------
    heavy: takes a slot of the limit ``gpu``, so that it has all cores or the GPU to itself: on two cores, two trainings with
        two threads each are eight times slower side by side than one after the other. Light stages run at the same time,
        with the lowest priority and one thread each. With the run parameter ``heavy_at_once`` > 1, several heavy stages run
        at a time and share the cores.
    hours: timeout; it is final, without a retry.
    retries: number of retries of a stage that crashed or was killed. A stage that ended with an error message is not
        retried, because the error would occur again.
    pause: seconds before each retry.
    stubborn: also retry a stage that ended with an error message, such as that of a web server.
    outside: reads data that DVC does not track, a folder of footage or a web site; the parameter ``refresh`` runs it again
        although nothing seems changed.
    """

    heavy: bool
    hours: float
    retries: int = 1
    pause: tuple[float, ...] = (10,)
    stubborn: bool = False
    outside: bool = False


KINDS = {
    "configure": Kind(heavy=False, hours=1),  # takes seconds
    "prepare": Kind(heavy=False, hours=12, retries=2, pause=(15, 60), stubborn=True, outside=True),  # downloads
    "extract": Kind(heavy=False, hours=12),  # a retry continues with the next clip
    "optical_flow": Kind(heavy=True, hours=24),
    # trainings resume from their checkpoints; GPU jobs can fail transiently
    "train_flownet": Kind(heavy=True, hours=72, retries=2),
    "train": Kind(heavy=True, hours=72, retries=2),
    "score": Kind(heavy=True, hours=24),
    "fuse": Kind(heavy=False, hours=12),  # only combines stored scores
    "report": Kind(heavy=False, hours=1),  # takes about a minute
}
OTHER = Kind(heavy=True, hours=24)  # a kind that is not in the table might need the GPU

_RAN = re.compile(r"^Running stage '")
_CACHED = re.compile(r"^Stage '.*' (didn't change, skipping|is cached - skipping run)")
_BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
_EXIT = re.compile(r"exited with (-?\d+)$")
_CHATTER = re.compile(  # DVC's hints for interactive use, and what the task state already says
    r"^(To track the changes with git, run:|\s*git add .*|To enable auto staging, run:|\s*dvc config core\.autostage true"
    r"|Use `dvc push` to send.*|Data and pipelines are up to date\.)$"
)


def kind_of(name: str) -> Kind:
    return KINDS.get(name, OTHER)


class Slots:
    """The slots of the limit ``gpu`` that one pipeline run holds.

    A Prefect server with an SQLite database refuses every second request for a slot while it records task states, and its
    client retries only after two or four seconds. Therefore short stages share a slot, one after the other.
    """

    def __init__(self, checkout: Checkout, stopping: threading.Event):
        self._checkout, self._stopping, self._lock = checkout, stopping, threading.Lock()
        self._idle: list[tuple[Callable[[], None], float]] = []  # how to release the slot, since when it is held

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Wait for a slot and hold it. Yield False if the run is stopped first.

        Raises VadError if the server gives no slot.
        """
        with self._lock:
            slot = self._idle.pop() if self._idle else None
        while slot is None and not self._stopping.is_set():
            try:
                slot = self._take(), time.monotonic()
            except TimeoutError:
                continue
            except Exception as error:  # whatever the server or its client raise
                raise VadError(f"no slot of the concurrency limit {LIMIT}: {error}") from error
        try:
            yield slot is not None
        finally:
            if slot and (self._stopping.is_set() or time.monotonic() - slot[1] >= KEEP_SECONDS):
                slot[0]()
            elif slot:
                with self._lock:
                    self._idle.append(slot)

    def release_idle(self) -> None:
        """Release the slots that no stage uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for release, _ in idle:
            release()

    def _take(self) -> Callable[[], None]:
        """Take a slot and return the function that releases it. Raises TimeoutError if none is free in ASK_SECONDS."""
        context = contextvars.copy_context()  # of its own: Prefect releases the slots of a task's context with the task
        held = context.run(self._enter)
        return lambda: context.run(held.close)

    def _enter(self) -> ExitStack:
        with ExitStack() as stack:
            leases = stack.enter_context(ConcurrencyContext()).cleanup_lease_ids
            # a training that has a slot survives a temporary outage of the server
            options = {"strict": True, "raise_on_lease_renewal_failure": False, "timeout_seconds": ASK_SECONDS}
            stack.enter_context(concurrency(LIMIT, occupy=1, **options))
            noted = list(map(str, leases))
            self._checkout.note_leases(noted, held=True)
            stack.callback(self._checkout.note_leases, noted, held=False)
            return stack.pop_all()


@dataclass
class Work:
    """What the stages of one pipeline run share.

    Attributes
    ----------
    environment: environment variables of the stages' processes.
    heavy_at_once: number of heavy stages at a time.
    forced: addresses of stages that run even if nothing has changed.
    remote: name of the DVC remote; None if there is none.
    hours: timeouts by kind; they replace those of the table.
    start: function that starts a process, with the arguments of Process.
    """

    checkout: Checkout
    environment: Mapping[str, str]
    heavy_at_once: int = 1
    forced: Collection[str] = ()
    remote: str | None = None
    hours: Mapping[str, float] = field(default_factory=dict)
    start: Callable[..., Process] = Process

    def __post_init__(self):
        self.stopping = threading.Event()
        self.slots = Slots(self.checkout, self.stopping)
        self._running: set[Process] = set()
        self._lock = threading.Lock()

    def dvc(self, *words: str, log, nice: int = 0, threads: int | None = None, seconds: float = float("inf")) -> Ended:
        """Run a DVC command until it ends or reaches its timeout of ``seconds``; stream its output to ``log``."""
        environment = {**self.environment, "PYTHONUNBUFFERED": "1"}
        # stages call `python -m tasks...`: let them find the Python that runs this
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *words]
        with self._lock:
            if self.stopping.is_set():
                return Ended(130, [], False)
            process = self.start(command, self.checkout.root, environment, nice, threads, seconds=seconds)
            self._running.add(process)
        try:
            return follow(process, lambda line: _CHATTER.match(line) or log.info(line))
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Stop every process and wait until they have ended; after that no process can be started."""
        with self._lock:
            self.stopping.set()
            running = list(self._running)
        for process in running:
            process.stop()
        end = time.monotonic() + STOP_SECONDS
        while self._running and time.monotonic() < end:
            time.sleep(0.05)
        self.slots.release_idle()


def stage_task(node: Node, work: Work, cached: str | None) -> Task:
    """Return the task of a stage. ``cached``: the reason why the stage does not have to run, or None.

    The task has no tags: for every tagged task Prefect requests slots of the limits on its tags, see :class:`Slots`.
    """
    kind = kind_of(node.kind)
    again = {"BrokeOff", "Failed"} if kind.stubborn else {"BrokeOff"}

    @task(
        name=node.address,
        task_run_name=node.address,
        retries=kind.retries,
        retry_delay_seconds=list(kind.pause),
        retry_condition_fn=lambda task, run, state: state.name in again,
        cache_policy=NO_CACHE,  # DVC decides whether a stage has to run
        persist_result=False,
    )
    def stage() -> State:
        return Completed(name="Cached", message=cached) if cached else run_stage(node, kind, work)

    return stage


def run_stage(node: Node, kind: Kind, work: Work) -> State:
    """Run a stage with DVC and return its result as a state.

    The name of the state is ``Completed`` (the stage ran), ``Cached`` (DVC found that it does not have to run),
    ``TimedOut``, ``Failed`` (it ended with an error message), ``BrokeOff`` (it crashed or was killed) or ``Cancelled`` (the
    pipeline was stopped).
    """
    log = get_run_logger()
    if not kind.heavy:
        return _repro(node, kind, work, log, nice=NICE, threads=1)
    # a stage that runs alone keeps its default threads, so its result is that of plain `dvc repro`
    threads = max(1, cores() // work.heavy_at_once) if work.heavy_at_once > 1 else None
    try:
        with work.slots.one() as there_is_one:
            return _repro(node, kind, work, log, nice=0, threads=threads) if there_is_one else _stopped()
    except VadError as error:
        return failed("BrokeOff", f"{node.address}: {error}")


def _repro(node: Node, kind: Kind, work: Work, log, nice: int, threads: int | None) -> State:
    hours = work.hours.get(node.kind, kind.hours)
    started = time.monotonic()
    words = ["repro", "--single-item", *(["--force"] if node.address in work.forced else []), node.address]
    pull = ["--pull"] if work.remote else []
    waiting = False
    if work.remote:
        work.checkout.note_unpushed({node.address}, pushed=False)
    while True:
        rest = started + hours * 3600 - time.monotonic()
        done = work.dvc(*words, *pull, log=log, nice=nice, threads=threads, seconds=rest)
        if work.stopping.is_set():
            return _stopped()
        ran = any(map(_RAN.match, done.lines))
        if done.overdue or rest <= 0:
            limit = f"the limit of {node.kind} (flows/stage.py or the parameter hours)"
            said = f"{node.address}: stopped after {hours:g} hours, {limit}; the next run continues"
            return failed("TimedOut", said)
        if done.code == 0:
            break
        if not ran and any(map(_BUSY.search, done.lines)):
            if not waiting:
                blocker = next((line.strip() for line in done.lines if "(PID " in line), "another DVC process")
                log.info("waiting for %s, which uses the same files", blocker)
            waiting = True
            work.stopping.wait(BUSY_SECONDS)
        elif not ran and pull and not any(line.startswith("error: ") for line in done.lines):
            log.warning("the DVC remote %s did not answer; continuing without it", work.remote)
            pull = []
        else:
            return _failure(node, work, done, log)
    work.checkout.keep_lock_file()
    if ran:
        push(work, {node.address}, log)
        return Completed(message=f"ran in {time.monotonic() - started:.0f} s")
    if work.remote and not any(map(_CACHED.match, done.lines)):
        why = f"pulled from the DVC remote {work.remote}"
    elif any("skipping run" in line for line in done.lines):
        why = "restored from DVC's cache"
    else:
        why = "its inputs have not changed"
    return Completed(name="Cached", message=why)


def _failure(node: Node, work: Work, done: Ended, log) -> State:
    said = [line for line in done.lines if line.startswith("error: ")]
    exits = [int(found[1]) for line in done.lines if (found := _EXIT.search(line))]
    killed = any(code < 0 or 128 < code < 255 for code in [done.code, *exits])  # 255 is the exit code of dvc itself
    if killed and (mended := work.checkout.mend_lock_file(killed=True)):
        log.warning(mended)
    if said and not killed:
        return failed("Failed", f"{node.address}: {said[-1].removeprefix('error: ')}")
    reason = f"killed (exit code {exits[-1] if exits else done.code})" if killed else _failure_reason(done)
    return failed("BrokeOff", f"{node.address}: {reason}")


def _failure_reason(done: Ended) -> str:
    """Return the last line of the exception, else DVC's last ``ERROR:`` line, else the last line of output."""
    traces = [number for number, line in enumerate(done.lines) if line.startswith("Traceback (")]
    after = done.lines[traces[-1] + 1 :] if traces else []
    named = [line for line in after if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit|Warning)?(:|$)", line)]
    errors = [line for line in done.lines if line.startswith("ERROR: ")]
    return next(iter([*named, *errors[-1:], *done.lines[-1:], f"exit code {done.code}"]))


def _stopped() -> State:
    return Cancelled(message="stopped with the pipeline; the next run continues")


def failed(name: str, message: str) -> State:
    return State(type=StateType.FAILED, name=name, message=message)


def push(work: Work, addresses: set[str], log) -> bool:
    """Push the outs of stages to the DVC remote, if there is one. If the push fails, log a warning and return False."""
    if not work.remote or not addresses:
        return True
    done = work.dvc("push", "--run-cache", "--remote", work.remote, *sorted(addresses), log=log)
    if done.code == 0:
        work.checkout.note_unpushed(addresses, pushed=True)
        return True
    log.warning("not pushed to the DVC remote %s: %s", work.remote, _failure_reason(done))
    return False
