"""Send events from the outbox to MLflow, in the same process."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.tracking import StageRun
from tasks.tracking.client import connect, experiment_id
from tasks.tracking.outbox import EventLog
from tasks.tracking.sender import Sender

pytestmark = pytest.mark.xdist_group("tracking-sender")


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    uri = f"sqlite:///{file}"
    experiment_id(connect(uri), uri, "vad")
    return file


@pytest.fixture
def begun(database, tmp_path, monkeypatch) -> EventLog:
    """An unfinished run in the outbox of its own project, with a metric and a file."""
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    about = {
        "name": "train street",
        "experiment": "vad",
        "uri": f"sqlite:///{tmp_path}/mlflow.db",  # absolute: MLflow caches engines by URI
        "tags": {"vad.stage": "train", "vad.pipeline": "p"},
        "start": 1_000_000,
        "pipeline": {"key": "p", "start": 1_000_000},
        "uploader": "",
    }
    events = EventLog.create(tmp_path / "tracking" / "outbox", "k", about)
    (events.folder / "files" / "note.txt").write_text("kept")
    log(events, {"metrics": {"x": 1.0}, "step": 0, "time": 1_000_001}, {"artifact": "files/note.txt", "folder": ""})
    return events


def log(run: EventLog, *events: dict) -> None:
    for event in events:
        run.append(event)


END = {"end": "FINISHED", "time": 1_000_009}


def runs_of(events: EventLog) -> list:
    return MlflowClient(events.about["uri"]).search_runs(["1"], f"tags.`vad.outbox` = '{events.key}'")


def test_crashed_sender_resumes_same_run(begun):
    Sender(begun).send()
    begun.save_state({})  # as after a crash right after creating the run: everything sent, nothing saved
    log(begun, END)
    assert Sender(begun).send()
    (run,) = runs_of(begun)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000_000, 1_000_009)
    assert len(MlflowClient(begun.about["uri"]).get_metric_history(run.info.run_id, "x")) == 1
    assert begun.state["done"]
    assert Sender(begun).send(), "nothing left to do"


def test_run_stays_open_until_its_end(begun):
    assert not Sender(begun).send()
    (run,) = runs_of(begun)
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"x": 1.0})
    log(begun, END)
    assert Sender(begun).send(lambda uri, run_id: MlflowClient(uri).log_metric(run_id, "system/s", 7.0))
    (run,) = runs_of(begun)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"x": 1.0, "system/s": 7.0})


def test_replaced_database_gets_whole_run(begun):
    assert not Sender(begun).send()
    state = begun.state
    begun.save_state({**state, "run_id": "0" * 32})  # a run that is not in the database
    log(begun, {"metrics": {"x": 2.0}, "step": 1, "time": 1_000_002}, END)
    assert Sender(begun).send()
    client = MlflowClient(begun.about["uri"])
    whole = max(runs_of(begun), key=lambda run: run.info.status == "FINISHED")
    assert [point.value for point in client.get_metric_history(whole.info.run_id, "x")] == [1.0, 2.0]
    assert [file.path for file in client.list_artifacts(whole.info.run_id)] == ["note.txt"]


def test_refused_event_does_not_block_others(begun):
    log(begun, {"params": {"a": "1"}}, {"artifact": "files/note.txt", "folder": "x"}, {"params": {"a": "2"}})
    log(
        begun, {"artifact": "files/note.txt", "folder": "y"}, {"metrics": {"y": 3.0}, "step": 0, "time": 1_000_003}, END
    )
    assert Sender(begun).send()
    (refused,) = begun.state["refused"]
    assert "Changing param values is not allowed" in refused
    (run,) = runs_of(begun)
    assert (run.data.params, run.data.metrics) == ({"a": "1"}, {"x": 1.0, "y": 3.0})


def test_retried_stage_finishes_pipeline(begun, tmp_path):
    again = EventLog.create(tmp_path / "tracking" / "outbox", "k2", {**begun.about, "start": 1_000_020})
    log(begun, {**END, "end": "FAILED"})
    assert Sender(begun).send()
    client = MlflowClient(begun.about["uri"])
    parent = client.search_runs(["1"], "tags.`vad.pipeline` = 'p' and tags.`vad.stage` = 'pipeline'")
    assert [run.info.status for run in parent] == ["FAILED"]
    Sender(again).send()
    assert client.get_run(parent[0].info.run_id).info.status == "RUNNING"
    log(again, {"end": "FINISHED", "time": 1_000_030})
    assert Sender(again).send()
    info = client.get_run(parent[0].info.run_id).info
    assert (info.status, info.end_time) == ("FINISHED", 1_000_030)


def test_changed_param_is_refused(begun):
    run = StageRun(begun)
    run.params({"a": {"b": 1}})
    run.params({"a.b": 1})
    with pytest.raises(ValueError, match=r"param a\.b was logged as '1', now as '2'"):
        run.params({"a": {"b": 2}})
