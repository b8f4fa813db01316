"""A FlowNet trained by a stage, and optical flow computed with it."""

import copy
import json

import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.helpers.project import PARAMS, Project
from vadcore.data.store import ClipStore
from vadcore.evaluation.cost import read_cost
from vadcore.flow.flownet import load_flownet
from vadcore.utils.files import sha256_files

pytestmark = pytest.mark.xdist_group("flownet")

TINY = {"width": 0.05, "image_size": [64, 64], "batch_size": 2, "iterations": 6, "learning_rate": 0.001}
WEIGHTS = "weights/tiny/weights.safetensors"


@pytest.fixture(scope="module")
def project(pipeline_project, tmp_path_factory) -> Project:
    """``ran``: the stages of a `dvc repro` up to the optical flow."""
    project = pipeline_project.copy(tmp_path_factory.mktemp("flownet") / "copy", tracked=True)
    params = copy.deepcopy(PARAMS)
    params["flownet"] = {"tiny": TINY}
    params["optical_flow"] = {"estimator": "flownet", "weights": WEIGHTS}
    params["train"]["check_every"] = 3
    project.write(params)
    project.ran, _ = project.repro("optical_flow@street")
    return project


def test_training_runs_before_flow(project):
    assert project.ran == ["configure", "train_flownet@tiny", "optical_flow@street"]


def test_flownet_folder_has_weights_and_history(project):
    folder = project.folder / "weights/tiny"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["iterations"], metrics["seed"]) == (6, PARAMS["seed"])
    assert "train_seconds" not in metrics
    assert read_cost(folder)["train_seconds"] > 0
    history = pd.read_csv(folder / "history.csv")
    assert history["iteration"].max() == 6
    val = history["val"].dropna()
    assert metrics["held_out_epe"] == pytest.approx(val.min())
    assert [picture.name for picture in sorted((folder / "samples").iterdir())] == ["000003.png", "000006.png"]
    assert load_flownet(folder / "weights.safetensors").width == TINY["width"]


def test_stored_flow_has_weights_hash(project):
    flow = ClipStore(project.folder / "data/street/flow.zarr", "flow")
    weights = sha256_files([project.folder / WEIGHTS])
    assert len(flow.clips()) == 5
    for clip in flow.clips():
        assert flow.attributes(clip)["estimator"] == "flownet"
        assert flow.attributes(clip)["options"]["weights"] == weights


def test_flownet_training_has_mlflow_run(project):
    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("vad")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`vad.stage` = 'train_flownet'")
    assert run.info.run_name == "tiny train_flownet"
    assert run.data.params["flownet.width"] == "0.05"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val")] == [3, 6]
    assert run.data.metrics["train_seconds"] > 0


def test_flownet_without_section(project):
    project.track(False)
    output = project.stage("train_flownet", "other", code=1)
    assert "params.yaml" in output
    assert "flownet.other" in output
    assert "tiny" in output
