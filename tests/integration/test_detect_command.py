"""``python -m tasks.detect``: results, an MLflow run for each video, alerts, the inbox and wrong arguments."""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tasks import detect as command
from tasks import scorer
from tests.helpers.project import LONG_ENOUGH, PARAMS, Project
from tests.helpers.videos import Place, events_of
from tests.helpers.waiting import wait_until
from vadcore.config import load_params
from vadcore.detection.alerts import READY
from vadcore.detection.detector import load_detector
from vadcore.detection.inbox import DONE
from vadcore.utils.errors import VadError

pytestmark = pytest.mark.xdist_group("detect_command")
SYSTEM = ("--dataset", "yard", "--model", "frame_diff")
SETTLE = 0.5  # seconds


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project with a trained and scored frame_diff."""
    folder = tmp_path_factory.mktemp("project")
    params = {
        **PARAMS,
        "datasets": ["yard"],
        "models": ["frame_diff", "background"],
        "detect": {"settle_seconds": SETTLE},
        "dataset": {"yard": {"format": "videos", "source": str(folder / "footage")}},
        "model": {"frame_diff": {}, "background": {}},
    }
    project = Project(folder, params)
    Place(folder, "frame_diff", {})
    return project


@pytest.fixture(scope="module")
def detector_folder(project, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "detector"
    said = project.detect("--pack", folder, *SYSTEM)
    assert str(folder) in said
    assert "yard/frame_diff" in said
    return folder


@pytest.fixture(scope="module", autouse=True)
def long_start_timeout():
    """Commands wait until all alerts are sent, even on a slow machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "PATIENCE_SECONDS", LONG_ENOUGH)
        yield


@pytest.fixture(scope="module")
def scored(project, long_start_timeout) -> str:
    """The output of scoring an unreadable video and a good one, with MLflow and an alert command."""
    broken = project.folder / "broken.mp4"
    broken.write_bytes(b"no video")
    alert = "sh -c 'cat >> heard.jsonl; echo >> heard.jsonl'"
    project.track(True)
    try:
        return project.detect(broken, "footage/test/gate.avi", *SYSTEM, "--alert", alert, code=1)
    finally:
        project.track(False)


@pytest.fixture
def no_champion(monkeypatch):
    def fetch(dataset):
        raise VadError(f"vad-{dataset}: has no champion")

    monkeypatch.setattr(command, "fetch_champion", fetch)


@pytest.fixture
def inbox(project, tmp_path) -> Path:
    """An inbox with two complete videos."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name in ("one.avi", "two.avi"):
        shutil.copy(project.folder / "footage/test/gate.avi", folder / name)
        os.utime(folder / name, (time.time() - 60,) * 2)
    return folder


def test_unreadable_video_does_not_stop_others(project, scored):
    assert f"error: {project.folder}/broken.mp4: " in scored
    assert "Traceback" not in scored
    (line,) = [line for line in scored.splitlines() if line.startswith("detections/gate: ")]
    assert "1 events" in line
    out = project.folder / "detections"
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["gate"]
    assert (out / "gate/annotated.webm").stat().st_size > 1000
    assert len(events_of(out / "gate")) == 1


def test_alert_command_runs_once_per_event(project, scored):
    heard = [json.loads(line) for line in (project.folder / "heard.jsonl").read_text().splitlines()]
    assert [alert["event"] for alert in heard] == events_of(project.folder / "detections/gate")
    assert heard[0]["video"] == "gate.avi"


def test_each_video_has_an_mlflow_run(project, scored):
    from mlflow import MlflowClient

    wait_until(lambda: not list((project.folder / "tracking/outbox").iterdir()))  # all is sent
    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    (experiment,) = (found for found in client.search_experiments() if found.name == "vad")
    found = client.search_runs([experiment.experiment_id], "tags.`vad.stage` = 'detect'")
    runs = {run.data.tags["vad.video"]: run for run in found}
    assert sorted(runs) == ["broken.mp4", "gate.avi"]
    gate = runs["gate.avi"]
    assert gate.info.run_name == "gate.avi detect yard frame_diff"
    assert gate.info.status == "FINISHED"
    assert gate.data.metrics["events"] == 1
    assert gate.data.metrics["frames"] == 80
    assert gate.data.metrics["times_real_time"] > 0
    assert {file.path for file in client.list_artifacts(gate.info.run_id)} >= {"events.json", "annotated.webm"}
    assert runs["broken.mp4"].info.status == "FAILED"
    assert f"{project.folder}/broken.mp4: " in runs["broken.mp4"].data.tags["vad.error"]


def test_packed_detector_can_be_loaded(detector_folder):
    assert load_detector(detector_folder, "cpu").name == "yard/frame_diff"


def test_empty_inbox_fetches_no_champion(project, no_champion, inbox, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ("--champion", "--out", tmp_path / "out")
    assert project.detect("--inbox", empty, *words) == ""
    assert "vad-yard: has no champion" in project.detect("--inbox", inbox, *words, code=1)


def test_pending_alerts_sent_without_videos(project, tmp_path):
    (tmp_path / "inbox").mkdir()
    ready = tmp_path / "out/gate" / READY
    ready.mkdir(parents=True)
    (ready / "00001.json").write_text(json.dumps({"queued": time.time(), "alert": {"id": "gate-1"}}))
    heard = tmp_path / "heard"
    words = ("--champion", "--inbox", tmp_path / "inbox", "--out", tmp_path / "out")
    assert project.detect(*words, "--alert", f"sh -c 'cat > {heard}'") == ""
    assert json.loads(heard.read_text()) == {"id": "gate-1"}


def test_champion_loaded_from_registry(project, monkeypatch, capsys, detector_folder):
    monkeypatch.setattr(command, "fetch_champion", lambda dataset: (f"frame_diff of {dataset}", detector_folder))
    arguments = argparse.Namespace(champion="yard", dataset=None, target_far_per_hour=0.5)
    with project.inside():
        detector = command._loader(load_params(), arguments)()
    assert detector.name == "yard/frame_diff"
    assert detector.calibration.target_far_per_hour == 0.5
    assert "frame_diff of yard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("a.avi",), ("--model", "frame_diff, background")),
        (("a.avi", "--model", "conv_ae"), ("--model conv_ae", "params.yaml", "frame_diff, background")),
        (("a.avi", "--model", "background"), ("scores/yard/background/calibration.json", "score")),
        (("a.avi", *SYSTEM, "--alert", "ftp://x/y"), ("alert", "ftp://x/y")),
        (("--inbox", "nowhere", *SYSTEM), ("nowhere: no such folder",)),
        (("a.avi", *SYSTEM, "--out", "params.yaml/x"), ("--out params.yaml/x", "params.yaml is a file; name a folder")),
        (("a.avi", "--champion", "yard", "--model", "background"), ("--champion", "--model background")),
        (("a.avi", "--champion", "yard", "--dataset", "street"), ("--champion yard", "--dataset street")),
        (("a.avi", "--model-folder", "packed", *SYSTEM), ("--model-folder", "--model frame_diff")),
    ],
)
def test_wrong_arguments_give_one_line_error(project, words, parts):
    said = project.detect(*words, code=1)
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert [part for part in parts if part not in said] == []


def test_champion_with_several_datasets(project, monkeypatch, no_champion):
    params = load_params(project.folder / "params.yaml")
    monkeypatch.setattr(command, "load_params", lambda: params.model_copy(update={"datasets": ("yard", "lane")}))
    said = project.detect("a.avi", "--champion", code=1)
    assert "--dataset" in said
    assert "yard, lane" in said
    for words in (("--champion", "--dataset", "lane"), ("--champion", "lane")):
        assert "vad-lane: " in project.detect("a.avi", *words, code=1)


def test_fps_option_with_inbox(project, inbox, tmp_path):
    project.detect("--inbox", inbox, "--out", tmp_path / "out", "--fps", "5", *SYSTEM)
    assert json.loads((tmp_path / "out/one/events.json").read_text())["fps"] == 5


def test_cluster_workers_share_inbox(project, monkeypatch, inbox, tmp_path, detector_folder):
    """The calls run in turn: the first scores all videos, the second loads no model. One process sends the alerts."""
    params = load_params(project.folder / "params.yaml")
    machine = params.machine.model_copy(update={"scheduler": "tcp://10.0.0.5:8786"})
    monkeypatch.setattr(command, "load_params", lambda: params.model_copy(update={"machine": machine}))
    monkeypatch.setattr(
        command, "per_clip", lambda function, calls, machine, name: ((call, function(*call)) for call in calls)
    )
    monkeypatch.setattr(scorer, "PATIENCE_SECONDS", 0)
    fetched, loaded = [], []
    monkeypatch.setattr(
        command, "fetch_champion", lambda dataset: fetched.append(dataset) or ("frame_diff", detector_folder)
    )
    monkeypatch.setattr(command, "load_detector", lambda *words: loaded.append(1) or load_detector(*words))
    out = tmp_path / "out"
    said = project.detect("--champion", "--inbox", inbox, "--out", out, "--alert", "false")
    assert (fetched, loaded) == (["yard"], [1])
    assert {path.name for path in (inbox / DONE).iterdir()} == {"one.avi", "two.avi"}
    # only the sending process prints how many alerts are left
    (line,) = [line for line in said.splitlines() if f"{out}/.alerts" in line and "/pending/" not in line]
    assert "2 alerts" in line


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ({"alert": "ftp://x/y"}, ("detect.alert", "ftp://x/y")),
        ({"settle_seconds": 0}, ("detect.settle_seconds", "value 0")),
        ({"settle": 3}, ("detect.settle", "unknown key")),
    ],
)
def test_wrong_setting_is_named(tmp_path, monkeypatch, section, parts):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "detect": section}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VadError, match=r"^params\.yaml: ") as fault:
        load_params()
    assert [part for part in parts if part not in str(fault.value)] == []
