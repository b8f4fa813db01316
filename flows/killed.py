"""Clean up after a pipeline run that was killed: release its slots, set its state in Prefect, resume it."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.checkout import Checkout


def tidy_up(checkout: Checkout, left: dict | None, identity: str, log) -> None:
    """Clean up for the run ``identity``, which now holds the checkout. ``left``: record of a killed run, or None."""
    if mended := checkout.mend_lock_file(killed=left is not None):
        log.warning("%s", mended)
    if left:
        _release(left)
        if left["flow_run"] != identity:
            close(left["flow_run"])
            log.info("goes on from %s, which was killed", left["name"])


def put_back(checkout: Checkout) -> str | None:
    """Put the run that was killed in this checkout back into its queue, so that a worker resumes it. Return its name.

    Returns None if there is no such run, if it was started from a shell, or if it was being cancelled.
    """
    left = checkout.cut_off()
    if left is None:
        return None
    with get_client(sync_client=True) as client:
        try:
            killed = client.read_flow_run(left["flow_run"])
        except ObjectNotFound:  # the run belongs to another server
            return None
        if killed.state and killed.state.is_cancelling():
            client.set_flow_run_state(killed.id, Cancelled(message="its process was killed"), force=True)
        elif killed.state and killed.state.is_running() and killed.deployment_id:
            _release(left)
            state = AwaitingRetry(message="its process was killed; goes on from there")
            client.set_flow_run_state(killed.id, state, force=True)
            return killed.name
    return None


def _release(left: dict) -> None:
    """Release the concurrency slots of a killed run; otherwise they would expire after five minutes."""
    with get_client(sync_client=True) as client:
        for lease in left["leases"]:
            client.release_concurrency_slots_with_lease(lease)


def close(flow_run: str) -> None:
    """Mark a run whose process was killed as crashed in Prefect, so that it is not shown as running."""
    with get_client(sync_client=True) as client:
        try:
            killed = client.read_flow_run(UUID(flow_run))
        except ObjectNotFound:  # the run belongs to another server
            return
        if killed.state and killed.state.is_running():
            said = "its process was killed; the next run went on from there"
            client.set_flow_run_state(killed.id, Crashed(message=said), force=True)
