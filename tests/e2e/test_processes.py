"""Training on several processes, through ``accelerate launch``, gives the result of one at the same global batch."""

import copy
import shutil

import pytest
import torch
from mlflow import MlflowClient

from tests.helpers.project import PARAMS, Project
from vadcore.models import load_model

pytestmark = pytest.mark.pipeline


def test_two_processes_train_to_the_weights_of_one_and_the_first_alone_logs_and_writes(tmp_path):
    """Summation order differs between the two, so the weights agree to rounding and not to the bit."""
    params = copy.deepcopy(PARAMS)
    params["models"], params["flow_models"] = ["convlstm_ae"], []
    params["model"]["convlstm_ae"]["iterations"] = 12
    params["train"] |= {"check_every": 6, "precision": "float32"}
    params["dataset"]["street"] |= {"test_clips": 1}
    project = Project(tmp_path, params, tracked=True)
    for stage in ("prepare street", "extract street", "train street convlstm_ae"):
        project.stage(*stage.split())
    made = project.folder / "models/street/convlstm_ae"
    one, judged = load_model(made).state_dict(), (made / "held_out.parquet").stat().st_mtime_ns
    shutil.rmtree(project.folder / "checkpoints")

    project.write({**params, "machine": {**params["machine"], "processes": 2}})
    said = project.stage("train", "street", "convlstm_ae")
    assert said.count("models/street/convlstm_ae: parameters") == 1
    assert said.count("; 2 processes train together") == 1
    assert (made / "held_out.parquet").stat().st_mtime_ns > judged
    for name, expected in load_model(made).state_dict().items():
        torch.testing.assert_close(expected, one[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")

    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("vad").experiment_id
    runs = client.search_runs([experiment], "tags.`vad.stage` = 'train'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2  # one each
