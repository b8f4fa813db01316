"""After a killed pipeline run: slots are released, Prefect has its state, and it resumes."""

import logging
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Completed, Running

from flows import recovery
from flows.recovery import Checkout
from vadcore.utils.errors import VadError

pytestmark = pytest.mark.xdist_group("prefect")


@flow(name="nothing")
def nothing() -> None:
    """A flow whose runs the tests check."""


@pytest.fixture
def client(prefect_server):
    with get_client(sync_client=True) as client:
        yield client


def state_of(client, flow_run: str) -> str:
    return client.read_flow_run(flow_run).state.name


def kill(project, client, state=None, deployed=False) -> str:
    """Make a flow run that was killed in the checkout; returns its id."""
    run = client.create_flow_run(nothing, state=state or Running())
    if deployed:
        deployment = client.create_deployment(run.flow_id, f"d-{uuid4()}")
        run = client.create_flow_run_from_deployment(deployment, state=state or Running())
    holder = project / ".dvc/tmp/vad-pipeline.json"
    with Checkout(project).hold(run.name, str(run.id)):
        kept = holder.read_bytes()
    holder.write_bytes(kept)  # a killed process does not remove it
    return str(run.id)


class TestPutBack:
    def test_deployed_run_waits_for_a_worker(self, project, client, limit):
        run = kill(project, client, deployed=True)
        lease = client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 300).json()["lease_id"]
        note_lease(project, lease)
        assert recovery.requeue(Checkout(project)) == client.read_flow_run(run).name
        assert state_of(client, run) == "AwaitingRetry"
        assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 0

    def test_cancelled_run_is_not_resumed(self, project, client):
        run = kill(project, client, Cancelling(), deployed=True)
        assert recovery.requeue(Checkout(project)) is None
        assert state_of(client, run) == "Cancelled"

    def test_shell_run_is_unchanged(self, project, client):
        run = kill(project, client)
        assert recovery.requeue(Checkout(project)) is None
        assert state_of(client, run) == "Running"

    def test_no_killed_run(self, project, client):
        assert recovery.requeue(Checkout(project)) is None

    def test_run_of_another_server(self, project, client):
        run = kill(project, client)
        holder = project / ".dvc/tmp/vad-pipeline.json"
        holder.write_text(holder.read_text().replace(run, str(uuid4())))
        assert recovery.requeue(Checkout(project)) is None
        recovery.mark_crashed({"flow_run": str(uuid4())})


class TestTidyUp:
    def test_next_run_closes_killed_run(self, project, client, limit, caplog):
        run = kill(project, client)
        lease = client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 300).json()["lease_id"]
        note_lease(project, lease)
        log = logging.getLogger("test")
        caplog.set_level("INFO", "test")
        with Checkout(project).hold("second", "id-2") as left:
            recovery.clean_up(Checkout(project), left, "id-2", log)
        assert state_of(client, run) == "Crashed"
        assert client.read_flow_run(run).name in caplog.text
        assert client.read_global_concurrency_limit_by_name("gpu").active_slots == 0

    def test_resumed_run_stays_open(self, project, client):
        run = kill(project, client)
        with Checkout(project).hold("same", run) as left:
            recovery.clean_up(Checkout(project), left, run, logging.getLogger("test"))
        assert state_of(client, run) == "Running"

    def test_ended_run_keeps_its_state(self, project, client):
        run = kill(project, client, Completed())
        recovery.mark_crashed({"flow_run": run})
        assert state_of(client, run) == "Completed"

    def test_error_for_broken_lock_file(self, project, prefect_server, caplog):
        (project / "dvc.lock").write_text("schema: [")
        with pytest.raises(VadError, match=r"git checkout dvc\.lock"):
            recovery.clean_up(Checkout(project), None, "id-2", logging.getLogger("test"))


def note_lease(project, lease: str) -> None:
    Checkout(project).note_leases([lease], held=True)
