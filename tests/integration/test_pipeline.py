"""`dvc repro` from nothing to a report, on real processes: what runs, what does not, what a person then sees."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.project import PARAMS, Project
from tests.helpers.readme import blocks

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("pipeline"), tracked=True)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("dvc", "repro")
    return project


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(.*?)'", output)


def test_a_report_a_table_and_figures_come_out(project):
    results = json.loads((project.folder / "reports/metrics.json").read_text())
    assert [row["model"] for row in results["rows"]] == ["frame_diff", "convlstm_ae", "flow_magnitude"]
    assert set(results["run"]) == {"command", "profile", "commit", "hardware", "versions", "date"}
    for row in results["rows"]:
        assert row["dataset"] == "street"
        assert 0 <= row["auc_micro"] <= 1
        for key in ("seed", "auc_micro_minmax", "auc_macro", "ap", "eer", "score_fps", "train_seconds", "parameters"):
            assert key in row
    page = (project.folder / "reports/index.html").read_text()
    assert "convlstm_ae" in page
    assert page.count('alt="Optical flow of clip') == 4
    assert len(list(project.folder.glob("pictures/street/optical_flow/*.png"))) == 4


def test_again_nothing_runs(project):
    assert ran(project.run("dvc", "repro")) == []


def test_metrics_and_plots_are_shown_by_dvc(project):
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))[""]["data"]
    row = shown["scores/street/flow_magnitude/metrics.json"]["data"]
    assert row["model"] == "flow_magnitude"
    plots = json.loads(project.run("dvc", "plots", "show", "--json"))["data"]
    assert any("roc.csv" in name for name in plots)
    assert any("history.csv" in name for name in plots)


def test_one_models_section_reruns_that_model_and_the_report_alone(project):
    params = copy.deepcopy(PARAMS)
    params["model"]["frame_diff"] = {"block": 8}
    project.write(params)
    assert ran(project.run("dvc", "repro")) == ["train@street-frame_diff", "score@street-frame_diff", "report"]
    project.write(PARAMS)
    assert ran(project.run("dvc", "repro")) == []  # all of it is remembered


def test_another_false_alarm_rate_trains_nothing_again(project):
    params = copy.deepcopy(PARAMS)
    params["calibrate"]["false_alarms_per_hour"] = 500
    project.write(params)
    stages = ran(project.run("dvc", "repro", "--dry"))
    assert stages
    assert not any(stage.startswith(("train", "extract", "prepare", "optical_flow")) for stage in stages)
    project.write(PARAMS)


def test_machine_settings_rerun_nothing(project):
    project.write({**PARAMS, "machine": {"workers": 2, "cache": "stream"}})
    assert ran(project.run("dvc", "repro", "--dry")) == []
    project.write(PARAMS)


def test_every_stage_is_an_mlflow_run_below_one_pipeline_run(project):
    from mlflow import MlflowClient

    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("vad")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    stages = [run for run in runs if "vad.stage" in run.data.tags and "mlflow.parentRunId" in run.data.tags]
    parents = {run.data.tags["mlflow.parentRunId"] for run in stages}
    by_parent = {
        parent: sorted(run.info.run_name for run in stages if run.data.tags["mlflow.parentRunId"] == parent)
        for parent in parents
    }
    whole = max(by_parent.values(), key=len)
    assert whole == sorted(
        [
            "prepare street",
            "extract street",
            "optical_flow street",
            *(f"{model} {stage} street" for stage in ("train", "score") for model in PARAMS["model"]),
            "report",
        ]
    )
    assert {run.info.status for run in stages} == {"FINISHED"}
    training = next(run for run in stages if run.info.run_name == "convlstm_ae train street")
    history = client.get_metric_history(training.info.run_id, "held_out")
    assert [point.step for point in history] == [20, 40]
    scoring = next(run for run in stages if run.info.run_name == "convlstm_ae score street")
    found = client.get_metric_history(scoring.info.run_id, "roc/abnormal_found")
    assert [point.step for point in found] == list(range(101))
    assert [point.value for point in found] == sorted(point.value for point in found)
    assert found[-1].value == 1
    operating = pd.read_csv(project.folder / "scores/street/convlstm_ae/operating.csv")
    asked = operating[operating["asked_per_hour"] % 1 == 0]
    events = client.get_metric_history(scoring.info.run_id, "alarms/events_found")
    assert [(point.step, point.value) for point in events] == [
        (int(rate), share) for rate, share in zip(asked["asked_per_hour"], asked["detection_rate"], strict=True)
    ]


def test_a_variant_of_a_system_is_a_branch_of_its_own(project):
    project.environment["VAD_TRACKING"] = "off"  # the rest is not about MLflow
    params = copy.deepcopy(PARAMS)
    params["models"] += ["frame_diff-fine", "background"]  # the one learns nothing, the other gathers a mean image
    params["model"]["frame_diff-fine"] = {"score": "block_max", "block": 4, "seed": 9}
    params["model"]["background"] = {"image_size": [24, 32]}
    project.write(params)
    new = {stage for stage in ran(project.run("dvc", "repro")) if stage != "report"}
    assert new == {f"{stage}@street-{name}" for stage in ("train", "score") for name in params["models"][2:]}
    rows = {row["model"]: row for row in json.loads((project.folder / "reports/metrics.json").read_text())["rows"]}
    assert rows["frame_diff-fine"]["seed"] == 9
    assert rows["frame_diff-fine"]["auc_micro"] != rows["frame_diff"]["auc_micro"]
    project.write(PARAMS)


def test_the_readme_example_of_the_library_runs(project):
    (code,) = blocks("From Python", "python")
    code = code.replace('"iterations": 200', '"iterations": 4').replace("check_every=100", "check_every=2")
    (project.folder / "example.py").write_text(code + "assert len(scores) == 2 and len(scores[0]) == 60\n")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_report_can_be_made_of_two_data_sets_of_a_persons_own_videos(project, tmp_path):
    """Footage without labels: scores, events and pictures, and no accuracy figures."""
    raw = project.folder / "data/raw/street"
    own = tmp_path / "own"
    for split in ("train", "test"):
        (own / split).mkdir(parents=True)
        for video in sorted(raw.glob(f"{split}/*.avi")):
            (own / split / video.name).write_bytes(video.read_bytes())
    params = copy.deepcopy(PARAMS)
    params["datasets"], params["models"], params["flow_models"] = ["street", "yard"], ["frame_diff"], []
    params["dataset"]["yard"] = {"format": "videos", "source": str(own)}
    project.write(params)
    output = project.run("dvc", "repro")
    again = {name for name in ran(output) if "@" in name and name.split("@")[1].split("-")[0] != "yard"}
    assert again == {"optical_flow@street"}  # which nobody reads any more
    rows = json.loads((project.folder / "reports/metrics.json").read_text())["rows"]
    assert [row["auc_micro"] for row in rows if row["dataset"] == "yard"] == [None]
    assert Path(project.folder / "scores/yard/frame_diff/events.csv").exists()
    project.write(PARAMS)


def test_trained_anew_with_the_same_seed_every_figure_comes_out_to_the_last_digit(project):
    scored = project.folder / "scores/street/convlstm_ae"
    before = json.loads((scored / "metrics.json").read_text()), (scored / "frames.parquet").read_bytes()
    shutil.rmtree(project.folder / "checkpoints")  # nothing to go on from
    stages = [f"{stage}@street-convlstm_ae" for stage in ("train", "score")]
    assert ran(project.run("dvc", "repro", "--force", "--single-item", *stages)) == stages
    after = json.loads((scored / "metrics.json").read_text()), (scored / "frames.parquet").read_bytes()
    for row, _ in (before, after):
        assert {row.pop(key) for key in ("score_fps", "train_seconds")} != {
            None
        }  # how fast it was, which no seed decides
    assert after == before
