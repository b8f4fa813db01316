"""Pull files from a DVC remote before a pipeline run, and push what is still missing there after it."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.graph import CHANGED, MISSING, Graph
from flows.stage import Work, failed, push

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
    while True:
        states |= dict.fromkeys(work.forced, CHANGED)
        running, wanted = missing_here(graph, chosen, states, tried)
        if not (wanted := wanted - tried):
            break
        _pull_task(work, sorted(wanted))
        said |= dict.fromkeys(wanted, f"pulled from the DVC remote {work.remote}")
        tried |= wanted
        states = graph.states()
    elsewhere = f"not needed here; its files are in the DVC remote {work.remote}"
    return running, said | dict.fromkeys(_missing(states) & chosen, elsewhere)


def _pull_task(work: Work, addresses: list[str]) -> None:
    @task(name="pull", task_run_name="pull", cache_policy=NO_CACHE, persist_result=False)
    def pull() -> State:
        if work.dvc("pull", "--remote", work.remote, *addresses, log=get_run_logger()).code == 0:
            return Completed(message=", ".join(addresses))
        said = f"the DVC remote {work.remote} lacks some of these files; their stages run here"
        get_run_logger().warning(said)
        return Completed(name="Partly", message=said)

    pull()


def push_unpushed(work: Work) -> State | None:
    """Push again what the remote did not accept during this run or a killed run. Return None if there is nothing to push."""
    owed = set(work.checkout.unpushed)
    if not work.remote or not owed:
        return None

    retries = {"retries": len(AGAIN_SECONDS), "retry_delay_seconds": list(AGAIN_SECONDS)}

    @task(name="push", task_run_name="push", tags=["remote"], cache_policy=NO_CACHE, **retries)
    def push_again() -> State:
        names = ", ".join(sorted(owed))
        if push(work, owed, get_run_logger()):
            return Completed(message=names)
        return failed("NotPushed", f"not in the DVC remote {work.remote}: {names}; later: dvc push --run-cache")

    return push_again(return_state=True)
