"""Scored models become versions of their data set's registered model."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient, artifacts, pyfunc

from tasks.tracking import StageRun
from tasks.tracking.client import connect
from tasks.tracking.outbox import EventLog
from tasks.tracking.registry import fetch_champion, register
from tasks.tracking.run import _signature
from tasks.tracking.sender import Sender
from tasks.tracking.vad_pyfunc import _load_pyfunc
from vadcore.models import create_model, save_model

pytestmark = pytest.mark.xdist_group("registry")


@contextmanager
def sent_run(dataset: str) -> Iterator[StageRun]:
    """A run of the score stage, sent in this process at its end."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    about = {"name": f"frame_diff score {dataset}", "experiment": "vad", "uri": uri, "start": 1, "uploader": ""}
    about |= {"tags": {"vad.stage": "score", "vad.model": "frame_diff"}, "pipeline": {"key": "p", "start": 1}}
    events = EventLog.create(Path("tracking/outbox"), uuid.uuid4().hex, about)
    run = StageRun(events)
    yield run
    run.end("FINISHED")
    assert Sender(events).send()
    assert "refused" not in events.state


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """An empty MLflow database to copy, because creating one takes seconds."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="module")
def client(empty_database, tmp_path_factory) -> MlflowClient:
    """A database with two versions of ``vad-street``, registered by two runs."""
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # absolute: MLflow caches connections by URI, and other tests use the same relative one
        uri = f"sqlite:///{folder}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        save_model(create_model("frame_diff"), "frame_diff", folder / "model")
        (folder / "calibration.json").write_text('{"threshold": 1}')
        for auc in (0.7, 0.8):
            with sent_run("street") as run:
                run.metrics({"auc_micro": auc})
                run.model(folder / "model", [folder / "calibration.json"], "vad-street", {"auc_micro": auc})
        yield MlflowClient(uri)
        mlflow.set_tracking_uri(None)


@pytest.fixture
def use(client, monkeypatch):
    """``use(uri)``: MLflow uses the database at ``uri`` for the rest of the test."""
    before = mlflow.get_tracking_uri()

    def use(uri: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)

    yield use
    mlflow.set_tracking_uri(before)


def versions(client) -> list:
    return sorted(client.search_model_versions("name = 'vad-street'"), key=lambda version: int(version.version))


def test_scoring_makes_versions_with_metrics(client):
    found = versions(client)
    assert [version.tags["auc_micro"] for version in found] == ["0.7", "0.8"]
    assert all(version.status == "READY" for version in found)
    for version in found:
        assert client.get_run(version.run_id).data.tags["vad.stage"] == "score"


def test_version_has_all_detection_files(client, tmp_path):
    version = versions(client)[-1]
    assert artifacts.download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(tmp_path))
    held = {path.name for path in (tmp_path / "data" / "trained").iterdir()}
    assert {"weights.safetensors", "config.yaml", "calibration.json"} <= held
    scores = pyfunc.load_model(f"models:/{version.name}/{version.version}").predict(
        np.zeros((1, 2, 24, 32, 1), np.uint8)
    )
    assert scores.shape == (1, 1)


def test_model_with_background_is_served(tmp_path):
    """pseudo_anomaly also needs the still scene of each window."""
    save_model(create_model("pseudo_anomaly", {"conv": [8, 8, 8]}), "pseudo_anomaly", tmp_path / "model")
    inputs = json.loads(_signature(tmp_path / "model", fused=False)["inputs"])
    assert [entry["name"] for entry in inputs] == ["frames", "background"]
    windows = {"frames": np.zeros((3, 8, 24, 32, 1), np.uint8), "background": np.zeros((3, 24, 32, 1), np.uint8)}
    scores = _load_pyfunc(str(tmp_path / "model")).predict(windows)
    assert scores.shape == (3, 8)  # windows, frames
    assert np.isfinite(scores).all()


def test_champions_of_two_databases(use, empty_database, tmp_path, monkeypatch):
    """Version 1 of a recreated database is another model than version 1 of the old database."""
    monkeypatch.chdir(tmp_path)
    kept = []
    for name, threshold in (("first", 1), ("second", 2)):
        uri = f"sqlite:///{tmp_path}/{name}.db"
        shutil.copy(empty_database, tmp_path / f"{name}.db")
        use(uri)
        save_model(create_model("frame_diff"), "frame_diff", tmp_path / name)
        (tmp_path / "calibration.json").write_text(json.dumps({"threshold": threshold}))
        with sent_run("yard") as run:
            run.model(tmp_path / name, [tmp_path / "calibration.json"], "vad-yard", {})
        MlflowClient(uri).set_registered_model_alias("vad-yard", "champion", "1")
        version, folder = fetch_champion("yard", tmp_path / "detectors")
        assert version.number == 1
        kept.append(folder)
        assert fetch_champion("yard", tmp_path / "detectors")[1] == folder
    assert [json.loads((folder / "calibration.json").read_text())["threshold"] for folder in kept] == [1, 2]


def test_registering_twice_makes_one_version(client):
    before = versions(client)
    last = before[-1]
    register(client, last.run_id, last.model_id, "vad-street", {})
    assert len(versions(client)) == len(before)
