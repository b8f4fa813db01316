"""Shared fixtures of the flow tests: one Prefect server per session, and the pipeline flow with a fake DVC."""

import dataclasses
import functools
import logging
from pathlib import Path

import pytest

from tests.helpers.fake_dvc import FakeDvc
from tests.helpers.project import LONG_ENOUGH

IDLE_SERVICES = (  # of the server; these tests do not need them
    *("CANCELLATION_CLEANUP", "DB_VACUUM", "EVENT_PERSISTER", "FOREMAN", "LATE_RUNS", "SCHEDULER"),
    *("PAUSE_EXPIRATIONS", "REPOSSESSOR", "CLEANUP_RECONCILER", "TASK_RUN_RECORDER", "TRIGGERS"),
)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """A temporary Prefect server; runs started in this process use it. Tests with it share the xdist group ``prefect``."""
    import prefect.settings
    from prefect.testing.utilities import prefect_test_harness

    off = ["PREFECT_LOGGING_TO_API_ENABLED", "PREFECT_SERVER_ANALYTICS_ENABLED"]
    off += [f"PREFECT_SERVER_SERVICES_{name}_ENABLED" for name in IDLE_SERVICES]
    settings = {getattr(prefect.settings, name): False for name in off}
    settings[prefect.settings.PREFECT_HOME] = tmp_path_factory.mktemp("prefect")
    settings[prefect.settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None  # its thread ends up to a second after the flow
    with prefect.settings.temporary_settings(settings), prefect_test_harness(int(LONG_ENOUGH)):
        yield


class Pipeline:
    """The pipeline flow in this process. dvc: the fake DVC; states: of the stages in the last run; said: the log."""

    def __init__(self, dvc: FakeDvc):
        self.dvc, self.states, self.said = dvc, {}, []

    def __call__(self, **parameters):
        """Run the flow and return its state."""
        from flows.pipeline import pipeline

        self.states.clear()
        self.said.clear()
        self.dvc.commands.clear()
        self.dvc.events.clear()
        return pipeline(**parameters, return_state=True)

    def names(self) -> dict[str, str]:
        """Stage -> name of its state."""
        return {address: state.name for address, state in self.states.items()}

    @property
    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a project, as current folder."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def limit(prefect_server):
    """Sets the size of the concurrency limit ``gpu``, which starts with one slot."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate

    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu", limit=1))
        yield lambda slots: client.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(limit=slots))
        client.delete_global_concurrency_limit_by_name("gpu")


@pytest.fixture
def run(prefect_server, project, monkeypatch) -> Pipeline:
    """Runs the pipeline flow with a fake DVC, without pauses before retries and without MLflow."""
    from flows import artifacts, pipeline, remote, stage

    dvc = FakeDvc()
    run = Pipeline(dvc)
    summary = pipeline._summary

    def keep_states(results, *rest):
        run.states.update(results)
        return summary(results, *rest)

    monkeypatch.setattr(pipeline, "Graph", dvc.graph)
    monkeypatch.setattr(pipeline, "Work", functools.partial(stage.Work, start=dvc.start))
    monkeypatch.setattr(pipeline, "_summary", keep_states)
    monkeypatch.setattr(artifacts, "connect", lambda uri: pytest.fail("MLflow was asked"))
    monkeypatch.setattr(stage, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(remote, "AGAIN_SECONDS", (0.0, 0.0))
    for name, kind in stage.KINDS.items():
        monkeypatch.setitem(stage.KINDS, name, dataclasses.replace(kind, pause=(0,)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")  # does not exist: no links

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            run.said.append(record.getMessage())

    handler = Said()
    loggers = [logging.getLogger(f"prefect.{kind}") for kind in ("flow_runs", "task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    yield run
    for logger in loggers:
        logger.removeHandler(handler)
