"""Pull files from a DVC remote before a pipeline run, and push what is still missing there after it."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed

from flows.graph import CHANGED, MISSING, Graph
from flows.stage import Work, push

AGAIN_SECONDS = (2.0, 10.0)  # seconds before each retry of a failed push


def missing_here(graph: Graph, chosen: set[str], states: dict[str, str], tried: set[str]) -> tuple[set[str], set[str]]:
    """Return the ``chosen`` stages that may have to run, and those whose files must be pulled first.

    A stage does not have to run if its files are missing here but the remote has them as in dvc.lock. Its files are pulled
    if a stage that runs reads them, or if it is the last of the chosen stages on its branch, because then they are the
    requested result. ``tried``: stages whose files the remote did not have; if still missing, they have to run.
    """
    changed = {address for address in chosen if states[address] == CHANGED or address in tried & _missing(states)}
    running = graph.running(chosen, changed)
    read = {needed for address in running for needed in graph.nodes[address].upstream}
    ends = {address for address in chosen if not graph.downstream(address) & chosen}
    return running, (read | ends) & _missing(states) & chosen - running


def _missing(states: dict[str, str]) -> set[str]:
    return {address for address, state in states.items() if state == MISSING}


def pull_inputs(graph: Graph, chosen: set[str], states: dict[str, str], work: Work) -> tuple[set[str], dict[str, str]]:
    """Pull the needed files. Return the stages that may have to run, and a message for each of the others."""
    said = dict.fromkeys(chosen, "nothing that it depends on has changed")
    tried = set() if work.remote else set(graph.nodes)
    states = {**states, **dict.fromkeys(work.forced, CHANGED)}
    running, wanted = missing_here(graph, chosen, states, tried)
    while wanted:
        _pull_task(work, sorted(wanted))
        said.update(dict.fromkeys(wanted, f"pulled from the DVC remote {work.remote}"))
        tried |= wanted
        states = {**graph.states(), **dict.fromkeys(work.forced, CHANGED)}
        running, wanted = missing_here(graph, chosen, states, tried)
        wanted -= tried
    elsewhere = f"not needed here; its files are in the DVC remote {work.remote}"
    said.update(dict.fromkeys(_missing(states) & chosen, elsewhere))
    return running, said


def _pull_task(work: Work, addresses: list[str]) -> None:
    @task(name="pull", task_run_name="pull", cache_policy=NO_CACHE, persist_result=False)
    def pull() -> State:
        log = get_run_logger()
        done = work.dvc("pull", "--remote", work.remote, *addresses, log=log)
        if done.code == 0:
            return Completed(message=", ".join(addresses))
        log.warning("the DVC remote %s lacks some of these files; their stages run here", work.remote)
        return Completed(name="Partly", message="stages with missing files run here")

    pull()


def push_unpushed(work: Work) -> State | None:
    """Push again what the remote did not accept during this run or a killed run. Return None if there is nothing to push."""
    owed = set(work.checkout.unpushed)
    if not work.remote or not owed:
        return None

    @task(
        name="push",
        task_run_name="push",
        tags=["remote"],
        retries=len(AGAIN_SECONDS),
        retry_delay_seconds=list(AGAIN_SECONDS),
        cache_policy=NO_CACHE,
    )
    def push_again() -> State:
        if push(work, owed, get_run_logger()):
            return Completed(message=", ".join(sorted(owed)))
        return State(
            type=StateType.FAILED,
            name="NotPushed",
            message=f"not in the DVC remote {work.remote}: {', '.join(sorted(owed))}; later: dvc push --run-cache",
        )

    return push_again(return_state=True)
