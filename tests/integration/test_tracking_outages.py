"""No run is lost when a stage, the uploader or the server is gone, and it reaches MLflow later."""

import os
import signal
import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.tracking.__main__ import send
from tests.helpers.tracking import URI, finish, make_database, outbox, run_of, stage, start, tracking, uploaders
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.xdist_group("tracking-outages")  # one worker: the project below is costly to make


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outages")
    make_database(folder)
    return folder


@pytest.fixture(scope="module")
def client(project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


def test_uploader_marks_killed_stage(project, client):
    process = start(project, "-c", stage("slain", "print('ready', flush=True); import time; time.sleep(60)"))
    process.stdout.readline()
    kill(process.pid)
    process.communicate()
    wait_until(lambda: not any(run.about["name"].startswith("slain") for run in outbox(project)))
    run = run_of(client, "slain")
    assert (run.info.status, run.data.metrics["x"]) == ("KILLED", 2.5)
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.status == "KILLED"


def test_run_is_sent_after_machine_failure(project, client):
    body = "print('ready', flush=True); import time; time.sleep(60)"
    process = start(project, "-c", stage("wiped", body))
    process.stdout.readline()
    run = wait_until(lambda: [found for found in outbox(project) if found.about["name"] == "wiped street"])[0]
    begun = wait_until(lambda: run.state.get("run_id"))
    assert tracking(project, "send") == (0, f"{run.key}: its stage is still running and sends by itself\n")
    for uploader in uploaders(project):
        kill(uploader.pid)
    kill(process.pid)
    process.communicate()
    with (run.folder / "events.jsonl").open("a") as log:
        log.write('{"metrics": {"half a li')  # a line cut off by the kill
    assert tracking(project, "send") == (0, f"{run.key}: sent to {URI}\n")
    sent = run_of(client, "wiped")
    assert (sent.info.run_id, sent.info.status, sent.data.metrics["x"]) == (begun, "KILLED", 2.5)
    assert outbox(project) == []
    assert tracking(project, "send") == (0, "nothing to send\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_server_outage_loses_nothing(project, tmp_path, monkeypatch, capsys):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    (tmp_path / "note.txt").write_text("kept")
    body = "run.artifact('note.txt'); run.params({'a': 1}); run.made('note.txt')"
    code, text = finish(start(tmp_path, "-c", stage("train", body), MLFLOW_TRACKING_URI=uri))
    (run,) = outbox(tmp_path)
    place = f"tracking/outbox/{run.key}"
    assert code == 0
    assert f"MLflow at {uri} did not answer" in text
    assert place in text
    assert text.endswith("python -m tasks.tracking send\n")
    monkeypatch.chdir(tmp_path)
    assert send() == 1
    assert capsys.readouterr().err == f"{run.key}: not sent (MlflowException: Connection refused)\n"

    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "mlflow.db").write_bytes((project / "mlflow.db").read_bytes())
    words = ("-m", "mlflow", "server", "--backend-store-uri", URI, "--host", "127.0.0.1", "--port", str(port))
    server = start(
        tmp_path / "server", *words, "--workers", "1", DO_NOT_TRACK="1", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"
    )
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        assert send() == 0
        assert capsys.readouterr().out == f"{run.key}: sent to {uri}\n"
        served = MlflowClient(uri)
        sent = next(r for r in served.search_runs(["1"]) if r.data.tags.get("vad.outbox") == run.key)
        assert (sent.info.status, sent.data.params, sent.data.metrics["x"]) == ("FINISHED", {"a": "1"}, 2.5)
        assert sent.info.start_time == run.about["start"]
        assert served.get_run(sent.data.tags["mlflow.parentRunId"]).info.status == "FINISHED"
        path = served.download_artifacts(sent.info.run_id, "note.txt", str(tmp_path / "server"))
        assert Path(path).read_text() == "kept"
        assert outbox(tmp_path) == []
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()
