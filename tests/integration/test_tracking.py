"""Every stage's run reaches MLflow, with all that the stage logged."""

import hashlib
import json
import re
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from tasks.tracking.lineage import lineage, locked_digest
from tests.helpers.tracking import finish, make_database, outbox, run_of, stage, start, tracking

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


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_database(folder)
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
    assert text == "error: missing.csv: no such file or folder; give the path of an output of a stage\n"


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


def test_locked_digest_of_unknown_out(project, monkeypatch):
    monkeypatch.chdir(project)
    assert locked_digest("data/street/frames.zarr") == "0" * 32 + ".dir"
    assert locked_digest("data/ped2/frames.zarr") is None
