"""Every stage's run reaches MLflow, even when the stage is killed or the server is down."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import yaml
from mlflow import MlflowClient

from tasks.tracking import StageRun
from tasks.tracking.__main__ import send
from tasks.tracking.digests import locked_digest, out_digest
from tasks.tracking.lineage import lineage
from tasks.tracking.outbox import EventLog, is_alive, spools, this_process
from tasks.tracking.send import Sender
from tasks.tracking.server import why, without_secrets
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.waiting import wait_until

URI = "sqlite:///mlflow.db"
pytestmark = pytest.mark.xdist_group("tracking")  # one worker: the project below is costly to make
# this model scores |frame - previous frame|: no weights, so the score can be computed by hand
TRAIN = """
import json, time
import cv2
import numpy as np
from pathlib import Path
from tasks.tracking import stage_run
from vadcore.models import create_model, save_model
out = Path("models/street/frame_diff")
save_model(create_model("frame_diff"), "frame_diff", out)
Path("samples").mkdir()
Path("samples/10.png").write_bytes(b"picture")
Path("copies").mkdir()
Path("copies/renamed.safetensors").write_bytes((out / "weights.safetensors").read_bytes())
with stage_run("train", "street", "frame_diff", {"seed": 1, "train": {"rate": 0.5, "size": (4, 6)}}, "vad") as run:
    for step in range(1500):
        run.metrics({"loss": 1 / (step + 1)}, step)
    run.metrics({"auc@1": 0.75, "strange": float("nan")})
    run.picture("samples/10.png", "samples")
    cv2.imwrite("000020.png", np.full((4, 6, 3), 200, np.uint8))
    run.picture("000020.png", "samples", step=20)
    Path("samples/10.png").write_bytes(b"overwritten")
    run.artifact("samples", "all")
    run.dataset("street", "c" * 64, "data/street/frames.zarr", "train")
    run.made(out / "weights.safetensors")
    run.made(out)
    run.model(out)
"""
STAGE = """
import sys
from tasks.tracking import stage_run
with stage_run("{stage}", "{dataset}") as run:
    run.metrics({{"x": 2.5}}, 3)
    {body}
"""


def stage(name: str, body: str = "pass", dataset: str = "street") -> str:
    return STAGE.format(stage=name, body=body, dataset=dataset)


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Start ``python <words>`` in ``folder``, in its own process group as from a shell."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "VAD"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    environment = {**known, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, error = process.communicate(timeout=LONG_ENOUGH)
    return process.returncode, out + error


def tracking(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    return finish(start(folder, "-m", "tasks.tracking", *words, **environment))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def uploaders(folder: Path) -> list[psutil.Process]:
    """The uploader processes of the stages in ``folder``."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if words[1:4] == ["-m", "tasks.tracking", "follow"] and process.info["cwd"] == str(folder):
            found.append(process)
    return found


def outbox(folder: Path) -> list[EventLog]:
    return spools(folder / "tracking" / "outbox")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project folder whose database four processes created at the same time."""
    folder = tmp_path_factory.mktemp("project")
    for process in [start(folder, "-m", "tasks.tracking", "init") for _ in range(4)]:
        code, said = finish(process)
        assert code == 0, said
        assert said == f"MLflow at {URI} is ready, experiment vad\n"
    lock = {"stages": {"extract": {"outs": [{"path": "data/street/frames.zarr", "md5": "0" * 32 + ".dir"}]}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    return folder


@pytest.fixture(scope="module")
def client(project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


@pytest.fixture(scope="module")
def said(project) -> dict[str, tuple[int, str]]:
    """Exit codes and outputs of five parallel stages: two in one pipeline, three with their own."""
    slow = "import time; print('ready', flush=True); time.sleep(60)"
    processes = {
        "train": start(project, "-c", TRAIN, VAD_PIPELINE="night 1"),
        "score": start(project, "-c", stage("score", dataset="ped2"), VAD_PIPELINE="night 1"),
        "fails": start(project, "-c", stage("fails", "raise ValueError('no such clip')")),
        "exits": start(project, "-c", stage("exits", "sys.exit('error: no such clip')")),
        "stopped": start(project, "-c", stage("stopped", slow)),
    }
    processes["stopped"].stdout.readline()
    processes["stopped"].send_signal(signal.SIGINT)
    return {name: finish(process) for name, process in processes.items()}


def run_of(client: MlflowClient, stage: str):
    """The only run of a stage."""
    experiment = client.get_experiment_by_name("vad").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`vad.stage` = '{stage}'")
    return run


@pytest.fixture(scope="module")
def trained(client, said):
    assert said["train"] == (0, ""), "all went well, so there is nothing to say"
    return run_of(client, "train")


def test_outbox_is_empty_after_finished_stages(project, said):
    assert outbox(project) == []
    assert list((project / "tracking" / "outbox").iterdir()) == []


def test_params_have_dotted_names(trained):
    assert trained.data.params == {"seed": "1", "train.rate": "0.5", "train.size": "(4, 6)"}


def test_metric_history(client, trained):
    history = client.get_metric_history(trained.info.run_id, "loss")
    assert {point.step: point.value for point in history} == {step: 1 / (step + 1) for step in range(1500)}
    assert trained.data.metrics["auc_1"] == 0.75  # MLflow allows no @ in a name
    assert np.isnan(trained.data.metrics["strange"])


def test_system_metrics(trained):
    assert trained.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert 0 <= trained.data.metrics["system/cpu_utilization_percentage"] <= 100


def test_picture_in_image_grid(client, trained, tmp_path):
    """MLflow's grid finds pictures by name: key, step, time and an id, joined by + (formerly by %)."""
    names = [Path(file.path).name for file in client.list_artifacts(trained.info.run_id, "images")]
    (name,) = [name for name in names if name.endswith(".png")]
    assert re.match(r"samples[%+]step[%+]20[%+]timestamp[%+]\d+[%+]", name)
    path = client.download_artifacts(trained.info.run_id, f"images/{name}", str(tmp_path))
    assert (cv2.imread(path) == 200).all()


def test_picture_keeps_its_logged_content(client, trained, tmp_path):
    path = client.download_artifacts(trained.info.run_id, "samples/10.png", str(tmp_path))
    assert Path(path).read_bytes() == b"picture"
    path = client.download_artifacts(trained.info.run_id, "all/samples/10.png", str(tmp_path))
    assert Path(path).read_bytes() == b"overwritten"


def test_dataset_has_dvc_digest(trained):
    (entry,) = trained.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("street", "0" * 32 + ".dir")
    assert json.loads(entry.dataset.source) == {"uri": "data/street/frames.zarr"}
    tags = {tag.key: tag.value for tag in entry.tags}
    assert tags == {"mlflow.data.context": "train", "vad.digest": "c" * 64, "vad.dvc": "0" * 32 + ".dir"}


def test_tags_of_stage_data_and_lock(project, trained):
    tags = trained.data.tags
    assert trained.info.run_name == "frame_diff train street"
    assert (tags["vad.dataset"], tags["vad.model"], tags["vad.pipeline"]) == ("street", "frame_diff", "night 1")
    assert tags["vad.dvc_lock"] == hashlib.sha256((project / "dvc.lock").read_bytes()).hexdigest()
    assert tags["vad.command"].startswith(sys.executable)


def test_parallel_stages_share_pipeline_run(client, trained):
    other = run_of(client, "score")
    parent = trained.data.tags["mlflow.parentRunId"]
    assert other.data.tags["mlflow.parentRunId"] == parent
    experiment = trained.info.experiment_id
    found = client.search_runs([experiment], "tags.`vad.stage` = 'pipeline' and tags.`vad.pipeline` = 'night 1'")
    assert [run.info.run_id for run in found] == [parent]
    assert found[0].info.status == "FINISHED"
    assert sorted(found[0].info.run_name.split()[3:]) == ["ped2", "street"]  # pipeline <day> <time> <data sets>


def test_manual_stage_has_its_own_pipeline(client, said):
    parents = [run_of(client, stage).data.tags["mlflow.parentRunId"] for stage in ("fails", "exits", "score")]
    assert len(set(parents)) == 3


def test_exception_fails_stage_and_pipeline(client, said):
    code, text = said["fails"]
    assert code == 1
    assert text.splitlines()[-1] == "ValueError: no such clip"
    run = run_of(client, "fails")
    assert (run.info.status, run.data.tags["vad.error"]) == ("FAILED", "ValueError: no such clip")
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.status == "FAILED"


def test_exit_message_fails_stage(client, said):
    assert said["exits"] == (1, "error: no such clip\n")
    assert run_of(client, "exits").info.status == "FAILED"


def test_ctrl_c_marks_stage_as_killed(client, said):
    run = run_of(client, "stopped")
    assert run.info.status == "KILLED"
    assert run.data.metrics == {**run.data.metrics, "x": 2.5}


def test_lineage_of_file_folder_and_copy(project, trained, monkeypatch):
    monkeypatch.chdir(project)
    made = "models/street/frame_diff"
    for path in (made, f"{made}/weights.safetensors", f"{made}/config.yaml", "copies/renamed.safetensors"):
        (line,) = lineage(Path(path))
        assert line.startswith("frame_diff train street")
        assert f"run {trained.info.run_id}" in line
        assert "earlier" not in line


def test_lineage_of_edited_file(project, trained, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    file = project / "models/street/frame_diff/weights.safetensors"
    was = file.read_bytes()
    file.write_bytes(b"edited")
    try:
        (line,) = lineage(file)
    finally:
        file.write_bytes(was)
    assert f"run {trained.info.run_id}" in line
    assert line.endswith("(made an earlier version)")


def test_lineage_of_unknown_file(project, trained):
    assert tracking(project, "lineage", "dvc.lock") == (1, "dvc.lock: no run is known to have made it\n")
    code, text = tracking(project, "lineage", "missing.csv")
    assert code == 1
    assert text == "error: missing.csv: no such file or folder; give the path of something that a stage has made\n"


PREDICT = """
import json, sys
import mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model(sys.argv[1])
windows = np.zeros((3, 2, 16, 32, 1), np.uint8)
windows[1, 1] = 51
windows[2, 1, :, :8] = 255
import vadcore
try:
    model.predict(windows.astype(np.float32))
    refused = False
except mlflow.exceptions.MlflowException:
    refused = True
print(json.dumps([model.predict(windows).tolist(), vadcore.__file__, refused]))
"""


def test_logged_model_loads_and_predicts(project, client, trained):
    (output,) = trained.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (logged.name, logged.status.value, logged.source_run_id) == ("frame_diff", "READY", trained.info.run_id)
    assert {metric.key: metric.value for metric in logged.metrics}["loss"] == 1 / 1500
    code, text = finish(start(project, "-c", PREDICT, f"models:/{logged.model_id}", PYTHONPATH=""))
    assert code == 0, text
    scores, code_file, refused = json.loads(text.splitlines()[-1])
    # 51 / 255 everywhere; 1 in a quarter of the width
    np.testing.assert_allclose(scores, [[0.0], [0.2], [0.25]], atol=1e-6)
    assert str(project) in code_file, "vadcore comes with the model"
    assert refused, "the signature asks for uint8"


def test_uploader_marks_killed_stage(project, client, said):
    process = start(project, "-c", stage("slain", "print('ready', flush=True); import time; time.sleep(60)"))
    process.stdout.readline()
    kill(process.pid)
    process.communicate()
    wait_until(lambda: not any(spool.about["name"].startswith("slain") for spool in outbox(project)))
    run = run_of(client, "slain")
    assert (run.info.status, run.data.metrics["x"]) == ("KILLED", 2.5)
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.status == "KILLED"


def may_be_sent(spool: EventLog) -> bool:
    with spool.claim() as mine:
        return mine


def test_run_is_sent_after_machine_failure(project, client, said, monkeypatch, capsys):
    body = "import time; time.sleep(60)"
    process = start(project, "-c", stage("wiped", body))
    spool = wait_until(lambda: [found for found in outbox(project) if found.about["name"] == "wiped street"])[0]
    begun = wait_until(lambda: spool.state.get("run_id"))
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert send() == 0
    assert capsys.readouterr().out == f"{spool.key}: its stage is still running and sends by itself\n"
    for uploader in uploaders(project):
        kill(uploader.pid)
    kill(process.pid)
    process.communicate()
    wait_until(lambda: may_be_sent(spool))  # its last thread may hold the lock for a moment longer
    with (spool.folder / "events.jsonl").open("a") as log:
        log.write('{"metrics": {"half a li')  # a line cut off by the kill
    assert send() == 0
    assert capsys.readouterr().out == f"{spool.key}: sent to {URI}\n"
    run = run_of(client, "wiped")
    assert (run.info.run_id, run.info.status, run.data.metrics["x"]) == (begun, "KILLED", 2.5)
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
    (spool,) = outbox(tmp_path)
    place = f"tracking/outbox/{spool.key}"
    assert code == 0
    assert f"MLflow at {uri} did not answer" in text
    assert place in text
    assert text.endswith("python -m tasks.tracking send\n")
    monkeypatch.chdir(tmp_path)
    assert send() == 1
    assert capsys.readouterr().err == f"{spool.key}: not sent (MlflowException: Connection refused)\n"

    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "mlflow.db").write_bytes((project / "mlflow.db").read_bytes())
    words = ("-m", "mlflow", "server", "--backend-store-uri", URI, "--host", "127.0.0.1", "--port", str(port))
    server = start(
        tmp_path / "server", *words, "--workers", "1", DO_NOT_TRACK="1", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"
    )
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        assert send() == 0
        assert capsys.readouterr().out == f"{spool.key}: sent to {uri}\n"
        served = MlflowClient(uri)
        run = next(r for r in served.search_runs(["1"]) if r.data.tags.get("vad.spool") == spool.key)
        assert (run.info.status, run.data.params, run.data.metrics["x"]) == ("FINISHED", {"a": "1"}, 2.5)
        assert run.info.start_time == spool.about["start"]
        assert served.get_run(run.data.tags["mlflow.parentRunId"]).info.status == "FINISHED"
        path = served.download_artifacts(run.info.run_id, "note.txt", str(tmp_path / "server"))
        assert Path(path).read_text() == "kept"
        assert outbox(tmp_path) == []
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


@pytest.fixture
def begun(project, tmp_path, monkeypatch) -> EventLog:
    """An unfinished spool in its own project, with a metric and a file."""
    (tmp_path / "mlflow.db").write_bytes((project / "mlflow.db").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    about = {
        "name": "train street",
        "experiment": "vad",
        "uri": f"sqlite:///{tmp_path}/mlflow.db",  # absolute: MLflow caches engines by URI
        "tags": {"vad.stage": "train", "vad.pipeline": "p"},
        "start": 1_000_000,
        "pipeline": {"key": "p", "start": 1_000_000},
        "process": this_process(),
    }
    spool = EventLog.create(tmp_path / "tracking" / "outbox", "k", about)
    (spool.folder / "files" / "note.txt").write_text("kept")
    log(spool, {"metrics": {"x": 1.0}, "step": 0, "time": 1_000_001}, {"artifact": "files/note.txt", "folder": ""})
    return spool


def log(spool: EventLog, *events: dict) -> None:
    with (spool.folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


END = {"end": "FINISHED", "time": 1_000_009}


def runs_of(spool: EventLog) -> list:
    return MlflowClient(spool.about["uri"]).search_runs(["1"], f"tags.`vad.spool` = '{spool.key}'")


def test_crashed_sender_resumes_same_run(begun):
    Sender(begun).send()
    begun.save_state(
        {"creating": True}
    )  # as after a crash right after creating the run: everything sent, nothing saved
    log(begun, END)
    assert Sender(begun).send()
    (run,) = runs_of(begun)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000_000, 1_000_009)
    assert len(MlflowClient(begun.about["uri"]).get_metric_history(run.info.run_id, "x")) == 1
    assert not begun.folder.exists()


def test_run_stays_open_without_finish(begun):
    log(begun, END)
    sender = Sender(begun)
    assert not sender.send(finish=False)
    (run,) = runs_of(begun)
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"x": 1.0})
    with (begun.folder / "system.jsonl").open("a") as file:
        file.write(json.dumps({"metrics": {"system/s": 7.0}, "step": 0, "time": 1_000_008}) + "\n")
    assert sender.send()
    (run,) = runs_of(begun)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"x": 1.0, "system/s": 7.0})


def test_replaced_database_gets_whole_run(begun, project, tmp_path):
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
    sender = Sender(begun)
    assert sender.send()
    assert len(sender.refused) == 1
    assert "Changing param values is not allowed" in sender.refused[0]
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


WHICH = "import tasks.tracking.pipeline as p; print(p.pipeline_of_this_process()['key'])"


def test_dvc_repro_is_one_pipeline(tmp_path):
    (tmp_path / "dvc").write_text(
        f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {WHICH!r}], check=True)\n"
    )
    keys = [
        finish(start(tmp_path, "dvc", *words))[1].split() for words in (["repro"], ["repro", "-s", "x"], ["status"])
    ]
    assert [len(set(pair)) for pair in keys] == [1, 1, 2]
    assert keys[0] != keys[1]
    named = finish(start(tmp_path, "dvc", "repro", VAD_PIPELINE="flow 'a'"))[1].splitlines()
    assert named == ["flow _a_"] * 2  # quotes would end MLflow's search strings


def test_changed_param_is_refused(begun):
    run = StageRun(begun)
    run.params({"a": {"b": 1}})
    run.params({"a.b": 1})
    with pytest.raises(ValueError, match=r"param a\.b was logged as '1', now as '2'"):
        run.params({"a": {"b": 2}})


def test_metric_logging_is_fast(begun):
    run = StageRun(begun)
    started = time.perf_counter()
    for step in range(1000):
        run.metrics({"loss": 0.5, "rate": 0.1}, step)
    seconds = (time.perf_counter() - started) / 1000
    assert seconds < 0.02 * 0.025, "2 % of a training step of 25 ms, a short one"


def test_digests_equal_dvc_digests(tmp_path):
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs import LocalFileSystem

    folder = tmp_path / "out"
    for name in ("b/z.txt", "b.txt", "b-c/y.txt", "ä.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    store = HashFileDB(LocalFileSystem(), str(tmp_path / "cache"))
    for path in (folder, folder / "b.txt"):
        _, _, built = build(store, str(path), LocalFileSystem(), "md5")
        assert out_digest(path) == built.hash_info.value


def test_locked_digest_of_unknown_out(project, monkeypatch):
    monkeypatch.chdir(project)
    assert locked_digest("data/street/frames.zarr") == "0" * 32 + ".dir"
    assert locked_digest("data/ped2/frames.zarr") is None


def test_reused_pid_is_not_alive():
    me = this_process()
    assert is_alive(me)
    assert not is_alive({**me, "created": me["created"] - 100})


def test_passwords_are_removed():
    assert without_secrets("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_secrets("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert without_secrets(URI) == URI
    nested = OSError("GET http://me:secret@host/: (Caused by Error('host', [Errno 111] Connection refused'))")
    assert why(nested) == "Connection refused"
    assert why(OSError("http://me:secret@host said no")) == "http://host said no"
