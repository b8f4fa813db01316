"""Run the stages of dvc.yaml in a Prefect flow; ``python -m flows.pipeline`` does the same from a shell."""

from __future__ import annotations

import argparse
import os
import queue
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_UI_URL,
    temporary_settings,
)
from prefect.states import Completed

from flows import artifacts, remote
from flows.graph import CHANGED, CLEAN, Graph
from flows.process import end_with_worker
from flows.recovery import LIMIT, Checkout, Refused, clean_up
from flows.stage import KINDS, LIGHT_AT_ONCE, Work, failed, kind_of, stage_task
from vadcore.utils.errors import VadError

# for the server that a run without PREFECT_API_URL starts; Prefect's 20 are too few on a busy machine
START_SECONDS = 300
CONFIGURE = "configure"  # the stage that all others depend on


def long_start_timeout() -> AbstractContextManager:
    """Wait up to START_SECONDS for a temporary Prefect server to start, unless Prefect's own setting is set."""
    return temporary_settings(set_defaults={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: START_SECONDS})


def _choose(
    graph: Graph, states: dict[str, str], log, names: tuple[Collection[str], ...], force: bool, refresh: bool
) -> tuple[set[str], set[str]]:
    """Return the stages to bring up to date, and those of them that run even if nothing has changed.

    These are the requested ones (``names``: arguments of :meth:`Graph.select`) and the stages downstream of them. A
    downstream stage is left out if it also depends on a stage that is out of date and not requested.
    """
    chosen, after = graph.select(*names)
    for address in [address for address in graph.nodes if address in after]:
        stale = sorted(one for one in graph.ancestors(address) - chosen if states[one] != CLEAN)
        if stale:
            log.info("%s is left out: it also needs %s", address, ", ".join(stale))
        else:
            chosen.add(address)
    outside = {address for address in chosen if kind_of(graph.nodes[address].kind).outside}
    return chosen, chosen if force else outside if refresh else set()


@flow(name="pipeline", persist_result=False)
def pipeline(
    datasets: list[str] | None = None,
    models: list[str] | None = None,
    targets: list[str] | None = None,
    force: bool = False,
    refresh: bool = False,
    dry: bool = False,
    hours: dict[str, float] | None = None,
    heavy_at_once: int = 1,
    wait_hours: float = 0.0,
) -> State:
    """Bring the stages of dvc.yaml in the current folder up to date.

    Args:
        datasets: run only stages of these data sets and their dependencies; default: all.
        models: run only stages of these models and their dependencies; default: all.
        targets: run only these stages (addresses or names) and their dependencies.
        force: run all selected stages even if nothing has changed.
        refresh: read the sources of the footage again; DVC does not track them.
        dry: only report what would be done. (The stage configure runs if params.yaml has changed, to find out.)
        hours: timeouts in hours by kind of stage; they replace those of flows/stage.py.
        heavy_at_once: number of stages that use the GPU or all cores at a time on this machine; at most the number of
            slots of the limit ``gpu``, which all machines share.
        wait_hours: how long to wait for another pipeline run in this folder before the run is refused.
    """
    log = get_run_logger()
    if not PREFECT_API_URL.value():
        log.info("PREFECT_API_URL is not set: this run starts a server of its own; `make serve` runs a permanent one")
    try:
        if unknown := ", ".join(sorted(set(hours or {}) - set(KINDS))):
            raise VadError(f"hours: no kind of stage is called {unknown}; there are: {', '.join(KINDS)}")
        if heavy_at_once < 1:
            raise VadError(f"heavy_at_once: {heavy_at_once}: must be at least 1")
        checkout = Checkout(Path.cwd())
        names = datasets or (), models or (), targets or ()
        choose = partial(_choose, log=log, names=names, force=force, refresh=refresh)
        if dry:
            return _plan(checkout, choose, log)
        name, identity = runtime.flow_run.name, runtime.flow_run.id
        with checkout.hold(name, identity, wait_hours * 3600, log.info) as left:
            clean_up(checkout, left, identity, log)
            return _run(checkout, choose, hours or {}, heavy_at_once, f"{name}/{identity}", log)
    except VadError as error:
        log.error("%s", error)
        return failed("Refused" if isinstance(error, Refused) else "Failed", str(error))


def _configured(checkout: Checkout, work: Work) -> tuple[Graph, dict[str, str], dict[str, State]]:
    """Run the stage configure if it has to run. Return the graph, the state of every stage, and the result of configure.

    All other stages depend on it, and most of them on settings that it does not change. Their states are exact only after
    it ran.
    """
    graph, done = Graph(checkout.root), {}
    work.remote = graph.remote
    states = graph.states()
    if states.get(CONFIGURE, CLEAN) != CLEAN:
        done[CONFIGURE] = stage_task(graph.nodes[CONFIGURE], work, None)(return_state=True)
        if done[CONFIGURE].is_completed():
            graph = Graph(checkout.root)
            states = graph.states()
    return graph, states, done


def _plan(checkout: Checkout, choose: Callable, log) -> State:
    graph, states, configured = _configured(checkout, Work(checkout, os.environ))
    if not all(state.is_completed() for state in configured.values()):
        return _summary(configured, None, 0.0)
    chosen, forced = choose(graph, states)
    states.update(dict.fromkeys(forced, CHANGED))
    tried = set() if graph.remote else set(graph.nodes)
    running, wanted = remote.missing_here(graph, chosen, states, tried)
    would = dict.fromkeys((address for address in graph.nodes if address in chosen), "nothing")
    would |= dict.fromkeys(running, "run") | dict.fromkeys(wanted, "pull")
    for address, what in would.items():
        log.info("%s: %s", address, what)
    artifacts.plan_table([{"stage": stage, "now": states[stage], "would": what} for stage, what in would.items()])
    return Completed(message=f"dry run: {len(running)} of {len(would)} stages would run")


def _run(checkout: Checkout, choose: Callable, hours: dict[str, float], heavy_at_once: int, key: str, log) -> State:
    started = time.monotonic()
    checkout.keep_lock_file()
    work = Work(checkout, {**os.environ, "VAD_PIPELINE": key}, hours=hours)
    with end_with_worker():
        try:
            graph, states, configured = _configured(checkout, work)
            if not all(state.is_completed() for state in configured.values()):
                return _summary(configured, None, time.monotonic() - started)
            chosen, work.forced = choose(graph, states)
            chosen -= configured.keys()
            running, said = remote.pull_inputs(graph, chosen, states, work)
            if any(kind_of(graph.nodes[address].kind).heavy for address in running):
                slots = _limit()
                work.heavy_at_once = min(heavy_at_once, slots)
                if slots < heavy_at_once:
                    more = f"prefect gcl update {LIMIT} --limit {heavy_at_once}"
                    log.warning("heavy_at_once is %d, the limit %s has %d slots: %s", heavy_at_once, LIMIT, slots, more)
            log.info("%d stages, %d of them may have to run", len(chosen), len(running))
            results = {**configured, **_walk(graph, chosen, running, said, work)}
            owed = remote.push_unpushed(work)
        finally:
            work.stop()
    reported = any(graph.nodes[one].kind == "report" and state.is_completed() for one, state in results.items())
    artifacts.create_artifacts(key, _page(key), checkout.root, reported, log)
    return _summary(results, owed, time.monotonic() - started)


def _limit() -> int:
    """Return the size of the limit ``gpu``: how many heavy stages may run at a time on all machines together."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(LIMIT).limit
        except ObjectNotFound as error:
            said = f"Prefect has no concurrency limit {LIMIT!r}; create it, one slot for a GPU or for a machine without"
            raise VadError(f"{said}: prefect gcl create {LIMIT} --limit 1") from error


def _walk(graph: Graph, chosen: set[str], running: set[str], said: dict[str, str], work: Work) -> dict[str, State]:
    """Run the ``chosen`` stages in dependency order and return the state of each.

    A stage becomes a task run only when it can start, so that every task that Prefect shows as running does run. Heavy
    stages wait in a local queue instead of at the limit, because Prefect retries a refused slot only after up to 30 seconds.
    """
    order = {address: number for number, address in enumerate(graph.nodes)}
    needs = {address: [one for one in graph.nodes[address].upstream if one in chosen] for address in chosen}
    sorter = TopologicalSorter({address: needs[address] for address in sorted(chosen, key=order.__getitem__)})
    sorter.prepare()
    room = Counter({True: work.heavy_at_once, False: LIGHT_AT_ONCE})
    ready: list[str] = []
    futures, states, ended = {}, {}, queue.SimpleQueue()
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=order.__getitem__)
        for address in list(ready):
            heavy = kind_of(graph.nodes[address].kind).heavy
            runs = address in running and all(states[one].is_completed() for one in needs[address])
            if runs and not room[heavy]:
                continue
            room[heavy] -= runs
            ready.remove(address)
            task = stage_task(graph.nodes[address], work, None if address in running else said[address])
            future = task.submit(wait_for=[futures[one] for one in needs[address]])
            futures[address] = future
            future.add_done_callback(lambda _, end=(address, heavy, runs): ended.put(end))
        if room[True] == work.heavy_at_once:
            work.slots.release_idle()
        address, heavy, runs = ended.get()
        room[heavy] += runs
        futures[address].wait()
        states[address] = futures[address].state
        sorter.done(address)
    return states


def _summary(results: dict[str, State], owed: State | None, seconds: float) -> State:
    cached = sum(state.name == "Cached" for state in results.values())
    faults = [str(state.message) for state in results.values() if state.is_failed() or state.is_crashed()]
    waiting = sum(not state.is_final() for state in results.values())
    counts = f"{len(results) - cached - len(faults) - waiting} ran, {cached} cached"
    text = counts + (f", {len(faults)} failed, {waiting} not run" if faults else "") + f"; {seconds:.0f} s"
    if faults:
        return failed("Failed", "; ".join([text, *faults]))
    if owed is not None and not owed.is_completed():
        return failed("NotPushed", f"{text}; {owed.message}")
    return Completed(message=text)


def _page(key: str) -> str | None:
    """Return the URL of the flow run's page; None if the server was started for this run only."""
    base = PREFECT_UI_URL.value() if PREFECT_API_URL.value() else None
    return f"{base.rstrip('/')}/runs/flow-run/{key.rpartition('/')[2]}" if base else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--dataset", action="append", dest="datasets", help="only of this data set (may be repeated)")
    add("--model", action="append", dest="models", help="only of this model (may be repeated)")
    add("--target", action="append", dest="targets", help="a stage (train@street-gru_ae) or a kind of stages (train)")
    add("--force", action="store_true", help="run all selected stages even if nothing has changed")
    add("--refresh", action="store_true", help="read the sources of the footage again")
    add("--dry", action="store_true", help="only report what would be done")
    add("--heavy-at-once", type=int, default=1, help="number of heavy stages at a time (%(default)s)")
    add("--wait-hours", type=float, default=0.0, help="longest wait for another run in this folder")
    arguments = vars(parser.parse_args())
    try:
        with long_start_timeout():
            state = pipeline(**arguments, return_state=True)
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return 130
    print(f"{state.name}: {state.message}")
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
