"""A stage as a Prefect task: run ``dvc repro --single-item``, stream its output to the log, return its result as a state."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.checkout import Checkout
from flows.graph import Node
from flows.kinds import NICE, Kind, kind_of
from flows.process import Process
from flows.slots import Slots
from vadcore.utils.errors import VadError
from vadcore.utils.provenance import cores

BUSY_SECONDS = 5.0  # between attempts at a stage that another DVC process is using
STOP_SECONDS = 25.0  # for a stopped process to end; a worker kills a cancelled flow after 30

_RAN = re.compile(r"^Running stage '")
_CACHED = re.compile(r"^Stage '.*' (didn't change, skipping|is cached - skipping run)")
_BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
_EXIT = re.compile(r"exited with (-?\d+)$")
_CHATTER = re.compile(  # DVC's hints for interactive use, and what the task state already says
    r"^(To track the changes with git, run:|\s*git add .*|To enable auto staging, run:|\s*dvc config core\.autostage true"
    r"|Use `dvc push` to send.*|Data and pipelines are up to date\.)$"
)


@dataclass
class Done:
    """Result of a DVC command.

    Attributes
    ----------
    code: exit code, 0 for success.
    lines: its output.
    overdue: whether it reached its timeout.
    """

    code: int
    lines: list[str]
    overdue: bool


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

    def dvc(self, *words: str, log, nice: int = 0, threads: int | None = None, seconds: float = float("inf")) -> Done:
        """Run a DVC command until it ends or reaches its timeout of ``seconds``; stream its output to ``log``."""
        environment = {**self.environment, "PYTHONUNBUFFERED": "1"}
        # stages call `python -m tasks...`: let them find the Python that runs this
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        if threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *words]
        with self._lock:
            if self.stopping.is_set():
                return Done(130, [], False)
            process = self.start(command, self.checkout.root, environment, nice, seconds=seconds)
            self._running.add(process)
        lines = []
        try:
            for line in process.lines():
                lines.append(line)
                if not _CHATTER.match(line):
                    log.info(line)
            return Done(process.wait(), lines, process.overdue)
        finally:
            process.stop()  # after an exception the process may still run
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
        self.slots.release_all()


def stage_task(node: Node, work: Work, cached: str | None) -> Task:
    """Return the task of a stage. ``cached``: the reason why the stage does not have to run, or None.

    The task has no tags: for every tagged task Prefect requests slots of the limits on its tags, see :mod:`flows.slots`.
    """
    kind = kind_of(node.kind)

    @task(
        name=node.address,
        task_run_name=node.address,
        retries=kind.retries,
        retry_delay_seconds=list(kind.pause),
        retry_condition_fn=lambda task, run, state: _worth_another_try(state, kind),
        cache_policy=NO_CACHE,  # DVC decides whether a stage has to run
        persist_result=False,
    )
    def stage() -> State:
        return Completed(name="Cached", message=cached) if cached else run_stage(node, kind, work)

    return stage


def _worth_another_try(state: State, kind: Kind) -> bool:
    return state.name == "BrokeOff" or (kind.stubborn and state.name == "Failed")


def run_stage(node: Node, kind: Kind, work: Work) -> State:
    """Run a stage with DVC and return its result as a state.

    The name of the state is one of:

    - ``Completed``: the stage ran.
    - ``Cached``: DVC found that it does not have to run.
    - ``TimedOut``: it reached its timeout.
    - ``Failed``: it ended with an error message.
    - ``BrokeOff``: it crashed or was killed.
    - ``Cancelled``: the pipeline was stopped.
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
        return _failed("BrokeOff", f"{node.address}: {error}")


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
            return State(
                type=StateType.CANCELLED, name="Cancelled", message="stopped with the pipeline; goes on from here"
            )
        ran = any(map(_RAN.match, done.lines))
        if done.overdue or rest <= 0:
            limit = f"the limit of {node.kind} (flows/kinds.py or the parameter hours)"
            return _failed("TimedOut", f"{node.address}: stopped after {hours:g} hours, {limit}; the next run goes on")
        if done.code == 0:
            break
        if not ran and any(map(_BUSY.search, done.lines)):
            if not waiting:
                blocker = next((line.strip() for line in done.lines if "(PID " in line), "another DVC process")
                log.info("waiting for %s, which is at work on the same files", blocker)
            waiting = True
            work.stopping.wait(BUSY_SECONDS)
        elif not ran and pull and not any(line.startswith("error: ") for line in done.lines):
            log.warning("the DVC remote %s did not answer; going on without it", work.remote)
            pull = []
        else:
            return _what_went_wrong(node, work, done, log)
    work.checkout.keep_lock_file()
    if ran:
        push(work, {node.address}, log)
        return Completed(message=f"ran in {time.monotonic() - started:.0f} s")
    if work.remote and not any(map(_CACHED.match, done.lines)):
        return Completed(name="Cached", message=f"pulled from the DVC remote {work.remote}")
    restored = any("skipping run" in line for line in done.lines)
    return Completed(
        name="Cached", message="made before from the same inputs" if restored else "its inputs are the same"
    )


def _what_went_wrong(node: Node, work: Work, done: Done, log) -> State:
    said = [line for line in done.lines if line.startswith("error: ")]
    exits = [int(found[1]) for line in done.lines if (found := _EXIT.search(line))]
    killed = any(code < 0 or 128 < code < 255 for code in [done.code, *exits])  # 255 is the exit code of dvc itself
    if killed and (mended := work.checkout.mend_lock_file(killed=True)):
        log.warning(mended)
    if said and not killed:
        return _failed("Failed", f"{node.address}: {said[-1].removeprefix('error: ')}")
    reason = f"killed (exit code {exits[-1] if exits else done.code})" if killed else _last_words(done)
    return _failed("BrokeOff", f"{node.address}: {reason}")


def _last_words(done: Done) -> str:
    """Return the last line of the exception, else DVC's last ``ERROR:`` line, else the last line of output."""
    traces = [number for number, line in enumerate(done.lines) if line.startswith("Traceback (")]
    after = done.lines[traces[-1] + 1 :] if traces else []
    named = [line for line in after if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit|Warning)?(:|$)", line)]
    errors = [line for line in done.lines if line.startswith("ERROR: ")]
    return next(iter([*named, *errors[-1:], *done.lines[-1:], f"exit code {done.code}"]))


def _stopped() -> State:
    return State(type=StateType.CANCELLED, name="Cancelled", message="stopped with the pipeline; the next run goes on")


def _failed(name: str, message: str) -> State:
    return State(type=StateType.FAILED, name=name, message=message)


def push(work: Work, addresses: set[str], log) -> bool:
    """Push the outs of stages to the DVC remote, if there is one. If the push fails, log a warning and return False."""
    if not work.remote or not addresses:
        return True
    done = work.dvc("push", "--run-cache", "--remote", work.remote, *sorted(addresses), log=log)
    if done.code == 0:
        work.checkout.note_unpushed(addresses, pushed=True)
        return True
    log.warning("not pushed to the DVC remote %s: %s", work.remote, _last_words(done))
    return False
