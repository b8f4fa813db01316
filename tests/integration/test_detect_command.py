"""``python -m tasks.detect`` as the process that it is: results, an MLflow run for each video, alerts, and kill -9."""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from tasks import detect as command
from tasks import scorer
from tests.helpers.project import LONG_ENOUGH, PARAMS, Project
from tests.helpers.videos import Place, events_of
from vadcore.config import load_params
from vadcore.detect.alerts import READY
from vadcore.detect.detector import load_detector
from vadcore.detect.inbox import DONE, FAILED
from vadcore.errors import VadError

pytestmark = pytest.mark.pipeline
SYSTEM = ("--dataset", "yard", "--model", "frame_diff")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project in which frame_diff has been trained and scored on a place of its own."""
    folder = tmp_path_factory.mktemp("project")
    params = {
        **PARAMS,
        "datasets": ["yard"],
        "models": ["frame_diff", "background"],
        "flow_models": [],
        "detect": {"settle_seconds": 0.5},
        "dataset": {"yard": {"format": "videos", "source": str(folder / "footage")}},
        "model": {"frame_diff": {}, "background": {}},
    }
    project = Project(folder, params, tracked=True)
    Place(folder, "frame_diff", {})
    return project


def detect(project: Project, *words: str | Path, code: int = 0) -> str:
    return project.run(sys.executable, "-m", "tasks.detect", *map(str, words), code=code)


@pytest.fixture(scope="module")
def scored(project) -> str:
    """What was said when a video was scored after one that cannot be read."""
    broken = project.folder / "broken.mp4"
    broken.write_bytes(b"no video")
    heard = "import sys, pathlib; pathlib.Path('heard.jsonl').open('a').write(sys.stdin.read() + chr(10))"
    alert = f'{sys.executable} -c "{heard}"'
    return detect(project, broken, "footage/test/gate.avi", *SYSTEM, "--alert", alert, code=1)


def test_the_exit_code_tells_of_a_video_that_cannot_be_read_and_the_others_are_scored(project, scored):
    assert f"error: {project.folder}/broken.mp4: not a readable video" in scored
    assert "Traceback" not in scored
    assert "detections/gate: 1 events in 8.0 s of gate.avi, " in scored
    out = project.folder / "detections"
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["gate"]
    assert (out / "gate/annotated.webm").stat().st_size > 1000
    assert len(events_of(out / "gate")) == 1


def test_each_event_called_the_command_once(project, scored):
    heard = [json.loads(line) for line in (project.folder / "heard.jsonl").read_text().splitlines()]
    assert [alert["event"] for alert in heard] == events_of(project.folder / "detections/gate")
    assert heard[0]["video"] == "gate.avi"


def test_each_video_has_an_mlflow_run_that_bears_its_name(project, scored):
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
    assert "not a readable video" in runs["broken.mp4"].data.tags["vad.error"]


def said_by(project: Project, monkeypatch, capsys, *words: str | Path) -> tuple[int | str | None, str]:
    """The command in this process: with what it exits, and what it says."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "argv", ["tasks.detect", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code, capsys.readouterr().out


def test_a_detector_can_be_packed(project, monkeypatch, capsys, tmp_path):
    code, said = said_by(project, monkeypatch, capsys, "--pack", tmp_path / "detector", *SYSTEM)
    assert (code, said) == (0, f"{tmp_path}/detector: detector yard/frame_diff\n")
    assert load_detector(tmp_path / "detector", "cpu").name == "yard/frame_diff"


def test_an_empty_inbox_is_left_before_anything_is_loaded_or_fetched(project, monkeypatch, capsys, tmp_path):
    def nobody(dataset):
        raise VadError(f"vad-{dataset}: has no champion")

    monkeypatch.setattr(command, "fetch_champion", nobody)
    words = ("--champion", "--inbox", tmp_path, "--out", tmp_path / "out")
    assert said_by(project, monkeypatch, capsys, *words) == (0, "")
    shutil.copy(project.folder / "footage/test/gate.avi", tmp_path)
    code, _ = said_by(project, monkeypatch, capsys, *words)
    assert code == "error: vad-yard: has no champion"


def test_alerts_that_wait_are_sent_though_no_video_has_come(project, monkeypatch, capsys, tmp_path):
    (tmp_path / "inbox").mkdir()
    ready = tmp_path / "out/gate" / READY
    ready.mkdir(parents=True)
    (ready / "00001.json").write_text(json.dumps({"queued": time.time(), "alert": {"id": "gate-1"}}))
    heard = f"{sys.executable} -c \"import sys; open('{tmp_path}/heard', 'w').write(sys.stdin.read())\""
    words = ("--champion", "--inbox", tmp_path / "inbox", "--out", tmp_path / "out", "--alert", heard)
    assert said_by(project, monkeypatch, capsys, *words) == (0, "")
    assert json.loads((tmp_path / "heard").read_text()) == {"id": "gate-1"}


def test_the_champion_is_loaded_from_where_the_registry_s_files_lie(project, monkeypatch, capsys, tmp_path):
    said_by(project, monkeypatch, capsys, "--pack", tmp_path / "detector", *SYSTEM)
    monkeypatch.setattr(command, "fetch_champion", lambda dataset: (f"frame_diff of {dataset}", tmp_path / "detector"))
    arguments = argparse.Namespace(champion="yard", dataset=None, false_alarms_per_hour=0.5)
    detector = command._loader(load_params(), arguments)()
    assert detector.name == "yard/frame_diff"
    assert detector.calibration.false_alarms_per_hour == 0.5
    assert capsys.readouterr().out == "champion: frame_diff of yard\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("a.avi",), "error: which model? name it with --model; there are: frame_diff, background"),
        (("a.avi", "--model", "conv_ae"), "error: --model conv_ae: params.yaml lists no such model; there are: "),
        (
            ("a.avi", "--model", "background"),
            "error: scores/yard/background/calibration.json: not there; run the score",
        ),
        (("a.avi", *SYSTEM, "--alert", "ftp://x/y"), "error: alert: 'ftp://x/y' is no http or https URL"),
        (("--inbox", "nowhere", *SYSTEM), "error: nowhere: no such folder; make it"),
        (
            ("a.avi", "--champion", "yard", "--model", "background"),
            "error: --model background: --champion says which system it is; leave one of the two out",
        ),
        (
            ("a.avi", "--champion", "yard", "--dataset", "street"),
            "error: --dataset street: --champion yard says which data set it is; leave one of the two out",
        ),
        (
            ("a.avi", "--model-folder", "packed", *SYSTEM),
            "error: --model frame_diff: --model-folder says which system it is; leave one of the two out",
        ),
    ],
)
def test_faults_are_one_line_with_the_remedy(project, monkeypatch, capsys, words, line):
    code, _ = said_by(project, monkeypatch, capsys, *words)
    assert code.startswith(line)
    assert "\n" not in code


def test_of_several_data_sets_the_champions_is_named_either_way(project, monkeypatch, capsys):
    params = load_params(project.folder / "params.yaml")
    two = params.model_copy(update={"datasets": ("yard", "lane")})
    monkeypatch.setattr(command, "load_params", lambda: two)

    def nobody(dataset):
        raise VadError(f"vad-{dataset}: has no champion")

    monkeypatch.setattr(command, "fetch_champion", nobody)
    code, _ = said_by(project, monkeypatch, capsys, "a.avi", "--champion")
    assert code == "error: which dataset? name it with --dataset; there are: yard, lane"
    for words in (("--champion", "--dataset", "lane"), ("--champion", "lane")):
        code, _ = said_by(project, monkeypatch, capsys, "a.avi", *words)
        assert code == "error: vad-lane: has no champion"


@pytest.fixture
def inbox(project, tmp_path) -> Path:
    """An inbox with two videos that have come in whole."""
    (tmp_path / "inbox").mkdir()
    for name in ("one.avi", "two.avi"):
        shutil.copy(project.folder / "footage/test/gate.avi", tmp_path / "inbox" / name)
        os.utime(tmp_path / "inbox" / name, (time.time() - 60,) * 2)
    return tmp_path / "inbox"


def test_the_frame_rate_that_is_given_holds_for_an_inbox_too(project, monkeypatch, capsys, inbox, tmp_path):
    monkeypatch.setenv("VAD_TRACKING", "off")
    words = ("--inbox", inbox, "--out", tmp_path / "out", "--fps", "5", *SYSTEM)
    assert said_by(project, monkeypatch, capsys, *words)[0] == 0
    assert json.loads((tmp_path / "out/one/events.json").read_text())["fps"] == 5


def test_spread_over_machines_one_process_sends_alerts_and_no_call_loads_for_nothing(
    project, monkeypatch, capsys, inbox, tmp_path
):
    """Here the calls run one after the other: the first works the inbox off, and leaves the second one nothing."""
    said_by(project, monkeypatch, capsys, "--pack", tmp_path / "detector", *SYSTEM)
    params = load_params()
    machine = params.machine.model_copy(update={"scheduler": "tcp://10.0.0.5:8786"})
    monkeypatch.setattr(command, "load_params", lambda: params.model_copy(update={"machine": machine}))
    monkeypatch.setattr(
        command, "per_clip", lambda function, calls, machine, name: ((call, function(*call)) for call in calls)
    )
    monkeypatch.setattr(scorer, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setenv("VAD_TRACKING", "off")
    fetched, loaded = [], []
    folder = tmp_path / "detector"
    monkeypatch.setattr(command, "fetch_champion", lambda dataset: fetched.append(dataset) or ("frame_diff", folder))
    monkeypatch.setattr(command, "load_detector", lambda *words: loaded.append(1) or load_detector(*words))
    # the hook hangs up on every call
    words = ("--champion", "--inbox", inbox, "--out", tmp_path / "out", "--alert", f"{sys.executable} -c 'exit(1)'")
    code, said = said_by(project, monkeypatch, capsys, *words)
    assert code == 0
    assert (fetched, loaded) == (["yard"], [1])
    assert {path.name for path in (inbox / DONE).iterdir()} == {"one.avi", "two.avi"}
    assert said.count("alerts are not sent yet") == 1  # the end has waited for them once
    assert f"2 alerts are not sent yet; they lie in {tmp_path}/out/.alerts, for the next run" in said


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"alert": "ftp://x/y"}, "params.yaml: detect.alert: 'ftp://x/y' is no http or https URL"),
        ({"settle_seconds": 0}, "params.yaml: detect.settle_seconds: value 0: input should be greater than 0"),
        ({"settle": 3}, "params.yaml: detect.settle: unknown key; correct its spelling or remove it"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, monkeypatch, section, line):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "detect": section}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VadError) as fault:
        load_params()
    assert str(fault.value).startswith(line)


def test_the_inbox_is_scored_once_though_the_process_is_killed(project, tmp_path):
    """kill -9 at a random moment; then the same command without being killed."""
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    (inbox / "cam").mkdir(parents=True)
    for number in range(2):
        shutil.copy(project.folder / "footage/test/gate.avi", inbox / "cam" / f"{number}.avi")
    (inbox / "broken.mp4").write_bytes(b"no video")
    for path in (*inbox.glob("*/*.avi"), inbox / "broken.mp4"):
        os.utime(path, (time.time() - 60,) * 2)
    heard = "import sys, pathlib; pathlib.Path('inbox.jsonl').open('a').write(sys.stdin.read() + chr(10))"
    words = ["--inbox", inbox, "--out", out, *SYSTEM, "--alert", f'{sys.executable} -c "{heard}"']
    process = project.start(sys.executable, "-m", "tasks.detect", *map(str, words))
    begun = random.SystemRandom().choice((out / ".cam-0.partial", out / "cam-0"))
    limit = time.monotonic() + LONG_ENOUGH
    while not begun.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.005)
    time.sleep(random.SystemRandom().uniform(0, 1.0))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    detect(project, *words)
    names = [f"cam-{number}" for number in range(2)]
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == names
    assert sorted(path.name for path in (inbox / DONE).iterdir()) == [f"{name}.avi" for name in names]
    assert sorted(path.name for path in (inbox / FAILED).iterdir()) == ["broken.mp4", "broken.mp4.reason.txt"]
    assert "not a readable video" in (inbox / FAILED / "broken.mp4.reason.txt").read_text()
    for name in names:
        assert json.loads((out / name / "events.json").read_text())["video"] == f"{name.replace('-', '/')}.avi"
        assert events_of(out / name) == events_of(project.folder / "detections/gate")
    heard_of = [json.loads(line)["video"] for line in (project.folder / "inbox.jsonl").read_text().splitlines()]
    assert set(heard_of) == {f"cam/{number}.avi" for number in range(2)}
