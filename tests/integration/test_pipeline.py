"""The results of one `dvc repro`, and the stages that a second one reruns after a change."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.project import PARAMS, Project, contents
from tests.helpers.readme import blocks
from vadcore.evaluation.cost import TABLED

pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.fixture(scope="module")
def project(pipeline_project, tmp_path_factory) -> Project:
    """A copy for tests that change it. Each test restores params.yaml."""
    return pipeline_project.copy(tmp_path_factory.mktemp("pipeline") / "copy")


@pytest.fixture
def params(project):
    """The project's params, for tests that change and write them. They are restored afterwards."""
    yield project.params
    project.write(PARAMS)


def rows_of(project: Project) -> list[dict]:
    return json.loads((project.folder / "reports/metrics.json").read_text())["rows"]


def test_repro_makes_report_and_metrics(pipeline_project):
    folder = pipeline_project.folder
    results = json.loads((folder / "reports/metrics.json").read_text())
    assert [row["model"] for row in results["rows"]] == ["frame_diff", "convlstm_ae", "flow_magnitude"]
    assert set(results["run"]) == {"command", "profile", "hardware", "versions"}
    for row in results["rows"]:
        assert row["dataset"] == "street"
        assert 0 <= row["auc_micro"] <= 1
        for key in ("seed", "auc_micro_minmax", "auc_macro", "ap", "eer", "parameters"):
            assert key in row
    page = (folder / "reports/index.html").read_text()
    assert "convlstm_ae" in page
    assert page.count('alt="Optical flow of clip') == 4
    assert len(list(folder.glob("pictures/street/optical_flow/*.png"))) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
def test_dvc_shows_metrics_and_plots(pipeline_project):
    from dvc.repo import Repo

    with pipeline_project.inside(), Repo() as repo:
        metrics = repo.metrics.show()[""]["data"]
        plots = repo.plots.show()["workspace"]["definitions"]["data"]
    assert metrics["scores/street/flow_magnitude/metrics.json"]["data"]["model"] == "flow_magnitude"
    shown = {name for entry in plots.values() for name in entry["data"]}
    assert {
        "scores/street/convlstm_ae/roc.csv",
        "scores/street/convlstm_ae/operating.csv",
        "models/street/convlstm_ae/history.csv",
    } <= shown
    assert any(name.startswith("reports/strips/") for name in shown)


def test_every_stage_has_an_mlflow_run(pipeline_project):
    """Each run is a child of the same pipeline run."""
    from mlflow import MlflowClient

    client = MlflowClient(pipeline_project.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("vad")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    stages = {run.info.run_name: run for run in runs if run.data.tags["vad.stage"] != "pipeline"}
    assert set(stages) == {
        "prepare street",
        "extract street",
        "optical_flow street",
        *(f"{model} {stage} street" for stage in ("train", "score") for model in PARAMS["model"]),
        "report",
    }
    (pipeline,) = (run for run in runs if run.data.tags["vad.stage"] == "pipeline")
    assert len(runs) == len(stages) + 1
    assert {run.data.tags["mlflow.parentRunId"] for run in stages.values()} == {pipeline.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}

    training = stages["convlstm_ae train street"].info.run_id
    assert [point.step for point in client.get_metric_history(training, "val")] == [20, 40]
    scoring = stages["convlstm_ae score street"].info.run_id
    for stage, costs in (("train", ("train_seconds", "windows_per_second", "peak_memory_mb")), ("score", TABLED)):
        assert set(costs) <= stages[f"convlstm_ae {stage} street"].data.metrics.keys()
    found = client.get_metric_history(scoring, "roc/abnormal_found")
    assert [point.step for point in found] == list(range(101))
    assert [point.value for point in found] == sorted(point.value for point in found)
    assert found[-1].value == 1
    operating = pd.read_csv(pipeline_project.folder / "scores/street/convlstm_ae/operating.csv")
    asked = operating[operating["target_far_per_hour"] % 1 == 0]
    events = client.get_metric_history(scoring, "alarms/events_found")
    assert [(point.step, point.value) for point in events] == [
        (int(rate), share) for rate, share in zip(asked["target_far_per_hour"], asked["detection_rate"], strict=True)
    ]


def test_second_repro_runs_nothing(project):
    assert project.repro()[0] == []


def test_changed_model_section_reruns_that_model(project, params):
    params["model"]["frame_diff"] = {"block": 8}
    project.write(params)
    assert project.repro()[0] == ["configure", "train@street-frame_diff", "score@street-frame_diff", "report"]
    project.write(PARAMS)
    assert project.repro()[0] == []  # DVC's cache has the outs of both


def test_changed_false_alarm_rate_trains_nothing(project, params):
    params["calibrate"]["target_far_per_hour"] = 500
    project.write(params)
    stages, _ = project.repro()
    assert stages == ["configure", *(f"score@street-{name}" for name in PARAMS["models"]), "report"]


def test_changed_machine_settings_rerun_nothing(project, params):
    params["machine"] = {"workers": 2, "cache": "stream"}
    project.write(params)
    assert project.repro()[0] == ["configure"]


def test_omitted_sections_have_their_defaults(project, params):
    """A short params.yaml reruns exactly what a file with the defaults written out would."""
    short = {key: params[key] for key in ("profile", "seed", "datasets", "dataset", "optical_flow", "report")}
    project.write({**short, "models": ["frame_diff", "flow_magnitude"]})
    assert "score@street-frame_diff" in project.repro()[0]
    project.write({**short, "models": ["frame_diff", "flow_magnitude"], "calibrate": {"merge_gap_s": 1.0}})
    assert project.repro()[0] == ["configure"]
    project.write({**short, "models": ["frame_diff", "flow_magnitude"], "calibrate": {"merge_gap_s": 2.0}})
    assert project.repro()[0] == ["configure", "score@street-frame_diff", "score@street-flow_magnitude", "report"]


def test_model_variant_runs_only_its_stages(project, params):
    params["models"] += ["frame_diff-fine", "background"]  # the first learns nothing, the second computes a mean image
    params["model"]["frame_diff-fine"] = {"score": "max_patch_mse", "block": 4, "seed": 9}
    params["model"]["background"] = {"image_size": [24, 32]}
    project.write(params)
    stages = set(project.repro()[0]) - {"configure", "report"}
    assert stages == {f"{stage}@street-{name}" for stage in ("train", "score") for name in params["models"][3:]}
    rows = {row["model"]: row for row in rows_of(project)}
    assert rows["frame_diff-fine"]["seed"] == 9
    assert rows["frame_diff-fine"]["auc_micro"] != rows["frame_diff"]["auc_micro"]


def test_report_covers_two_data_sets(project, params, tmp_path):
    """The second data set has videos without labels: scores, events and pictures, but no accuracy metrics."""
    own = tmp_path / "own"
    for split in ("train", "test"):
        (own / split).mkdir(parents=True)
        for video in (project.folder / "data/raw/street" / split).glob("*.avi"):
            shutil.copy(video, own / split)
    params["datasets"], params["models"] = ["street", "yard"], ["frame_diff"]
    params["dataset"]["yard"] = {"format": "videos", "source": str(own)}
    project.write(params)
    stages, _ = project.repro()
    again = {name for name in stages if "@" in name and name.split("@")[1].split("-")[0] != "yard"}
    assert again == {"optical_flow@street"}  # no system reads the flow any more
    assert [row["auc_micro"] for row in rows_of(project) if row["dataset"] == "yard"] == [None]
    assert (project.folder / "scores/yard/frame_diff/events.csv").exists()


def test_readme_library_example_runs(project):
    (code,) = blocks("From Python", "python")
    code = code.replace('"iterations": 200', '"iterations": 4').replace("check_every=100", "check_every=2")
    names = {}
    with project.inside():
        exec(compile(code, "README.md", "exec"), names)
    assert [len(scores) for scores in names["scores"]] == [60, 60]


def test_same_params_give_same_lock(pipeline_project, tmp_path):
    """A full rerun in another folder gives byte-identical outs. Only costs differ."""
    project = pipeline_project.copy(tmp_path / "anew")
    for name in ("data", "checkpoints"):  # nothing to resume from
        shutil.rmtree(project.folder / name)
    before = (project.folder / "dvc.lock").read_bytes()
    assert len(project.repro(force=True)[0]) == 11
    assert (project.folder / "dvc.lock").read_bytes() == before
    for name in ("models", "scores"):
        ours, theirs = (contents(one.folder / name) for one in (project, pipeline_project))
        differing = {file for file in ours.keys() | theirs.keys() if ours.get(file) != theirs.get(file)}
        assert {Path(file).name for file in differing} == {"cost.json"}
    pages = [(one.folder / "reports/run.js").read_text() for one in (project, pipeline_project)]
    assert pages[0] != pages[1]
