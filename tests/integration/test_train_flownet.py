"""A FlowNet trained as a stage of the graph, and the optical flow that is then computed with it."""

import copy
import json
import re

import pandas as pd
import pytest

from tests.helpers.project import PARAMS, Project
from vadcore.files import sha256_files
from vadcore.flow.flownet import load_flownet
from vadcore.store import ClipStore

pytestmark = pytest.mark.pipeline

TINY = {"width": 0.05, "image_size": [64, 64], "batch_size": 2, "iterations": 6, "learning_rate": 0.001}
WEIGHTS = "weights/tiny/weights.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    params = copy.deepcopy(PARAMS)
    params |= {"flownets": ["tiny"], "flownet": {"tiny": TINY}}
    params["optical_flow"] = {"estimator": "flownet", "weights": WEIGHTS}
    params["train"]["check_every"] = 3
    project = Project(tmp_path_factory.mktemp("flownet"), params, tracked=True)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.output = project.run("dvc", "repro", "optical_flow@street")
    return project


def test_the_network_is_trained_before_the_flow_is_computed(project):
    ran = re.findall(r"Running stage '(.*?)'", project.output)
    assert ran.index("train_flownet@tiny") < ran.index("optical_flow@street")
    assert "error" not in project.output


def test_its_folder_tells_how_it_was_made(project):
    folder = project.folder / "weights/tiny"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["iterations"], metrics["seed"]) == (6, PARAMS["seed"])
    history = pd.read_csv(folder / "history.csv")
    assert history["iteration"].max() == 6
    held_out = history["held_out"].dropna()
    assert metrics["held_out_epe"] == pytest.approx(held_out.min())
    assert [picture.name for picture in sorted((folder / "samples").iterdir())] == ["000003.png", "000006.png"]
    assert load_flownet(folder / "weights.safetensors").width == TINY["width"]


def test_the_stored_flow_names_the_network_by_its_content(project):
    flow = ClipStore(project.folder / "data/street/flow.zarr", "flow")
    weights = sha256_files([project.folder / WEIGHTS])
    for clip in flow.clips():
        assert flow.attributes(clip)["estimator"] == "flownet"
        assert flow.attributes(clip)["options"]["weights"] == weights


def test_its_run_is_in_mlflow(project):
    from mlflow import MlflowClient

    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("vad")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`vad.stage` = 'train_flownet'")
    assert run.info.run_name == "tiny train_flownet"
    assert run.data.params["flownet.width"] == "0.05"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "held_out")] == [3, 6]


def test_a_name_without_a_section_is_told(project):
    output = project.stage("train_flownet", "other", code=1)
    assert output.strip() == "error: params.yaml: no section flownet.other; there are: tiny"
