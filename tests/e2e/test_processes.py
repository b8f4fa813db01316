"""Training on two processes with ``accelerate launch`` gives the result of one process with the same global batch."""

import copy

import pytest
import torch
from mlflow import MlflowClient

from tests.helpers.project import PARAMS
from vadcore.models import load_model

pytestmark = pytest.mark.xdist_group("processes")


def test_two_processes_give_same_weights(pipeline_project, tmp_path):
    """The weights are equal up to rounding, because the order of summation differs.

    Only the first process logs and writes.
    """
    project = pipeline_project.copy(tmp_path, "data", "mlflow.db")
    params = copy.deepcopy(PARAMS)
    params["model"]["convlstm_ae"]["iterations"] = 12
    params["train"] |= {"check_every": 6, "precision": "float32"}
    project.write(params)
    made = project.folder / "models/street/convlstm_ae"
    project.stage("train", "street", "convlstm_ae")
    one = load_model(made).state_dict()
    for folder in ("models", "checkpoints"):
        (project.folder / folder).rename(project.folder / f"{folder}-of-one")

    project.track(True)
    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("vad").experiment_id
    known = len(client.search_runs([experiment], "tags.`vad.stage` = 'train'"))
    project.write({**params, "machine": {"processes": 2}})
    output = project.run("python", "-m", "tasks", "train", "street", "convlstm_ae")
    assert output.count("models/street/convlstm_ae: parameters") == 1
    assert output.count("2 processes train together") == 1
    assert (made / "normal.parquet").exists()
    for name, expected in load_model(made).state_dict().items():
        torch.testing.assert_close(expected, one[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    runs = client.search_runs([experiment], "tags.`vad.stage` = 'train'", order_by=["start_time DESC"])
    assert len(runs) == known + 1
    assert runs[0].info.status == "FINISHED"
