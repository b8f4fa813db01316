"""A fusion from `dvc repro` to promotion and detection, without new training or scoring."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.helpers.project import PARAMS, Project
from vadcore.data.store import ClipId, ClipStore

pytestmark = pytest.mark.xdist_group("fusion")
MEMBERS = ["convlstm_ae", "flow_magnitude"]
FUSED = {**PARAMS, "fusion": {"fusion": {"of": MEMBERS}}}


@pytest.fixture(scope="module")
def ran() -> list[str]:
    """The stages that `dvc repro` ran because of the fusion."""
    return []


@pytest.fixture(scope="module")
def project(pipeline_project, tmp_path_factory, ran) -> Project:
    project = pipeline_project.copy(tmp_path_factory.mktemp("fusion") / "copy")
    project.write(FUSED)
    project.track(True)
    ran += project.repro()[0]
    project.track(False)
    return project


@pytest.fixture(scope="module")
def frames(project) -> pd.DataFrame:
    """The rows of the first test clip."""
    table = pd.read_parquet(project.folder / "scores/fused/street/fusion/frames.parquet")
    return table[table["clip"] == "01"].reset_index(drop=True)


@pytest.fixture(scope="module")
def client(project) -> MlflowClient:
    return MlflowClient(project.environment["MLFLOW_TRACKING_URI"])


def test_only_fusion_and_report_run(project, ran):
    assert ran == ["configure", "fuse@street-fusion", "report"]
    assert project.repro()[0] == []


def test_changed_rule_reruns_only_fusion(project):
    project.write({**FUSED, "fusion": {"fusion": {"of": MEMBERS, "rule": "max"}}})
    assert project.repro()[0] == ["configure", "fuse@street-fusion", "report"]
    project.write(FUSED)
    assert project.repro()[0] == []  # DVC's cache has the outs of both


def test_report_shows_fusion_and_members(project):
    rows = json.loads((project.folder / "reports/metrics.json").read_text())["rows"]
    assert [row["model"] for row in rows] == [*PARAMS["models"], "fusion"]
    row = rows[-1]
    assert (row["members"], row["rule"], row["score_measure"]) == ("convlstm_ae + flow_magnitude", "mean", "fused")
    assert row["trained"]
    assert row["parameters"] == rows[1]["parameters"]
    assert 0.5 < row["auc_micro"] <= 1
    assert row["rbdc"] is not None
    page = (project.folder / "reports/index.html").read_text()
    assert "the mean of convlstm_ae, flow_magnitude, each in units of its held-out normal footage" in page
    for member in MEMBERS:
        assert re.search(rf"<dt>{member}, \w+</dt><dd>0 is the median, [\d.e-]+; 1 is what 99 % of the frames", page)
    speeds = [
        json.loads((project.folder / f"scores/street/{name}/cost.json").read_text())["score_fps"] for name in MEMBERS
    ]
    cost = json.loads((project.folder / "scores/fused/street/fusion/cost.json").read_text())
    assert cost["score_fps"] == pytest.approx(1 / sum(1 / speed for speed in speeds), abs=0.1)


def test_fused_score_is_mean_of_members(frames):
    both = frames[MEMBERS].notna().all(axis=1)
    assert frames["fused"].notna().equals(both)
    mean = frames[MEMBERS].clip(lower=0).mean(axis=1)
    np.testing.assert_allclose(frames["fused"], mean.where(both), rtol=1e-5, atol=1e-6)


def test_fuse_stage_has_mlflow_run(client):
    (run,) = client.search_runs([client.get_experiment_by_name("vad").experiment_id], "tags.`vad.stage` = 'fuse'")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "fusion fuse street"
    assert run.data.params["fusion.of"] == str(tuple(MEMBERS))
    assert {"auc_micro", "score_fps"} <= run.data.metrics.keys()


def test_registered_version_scores_clips(project, client, frames):
    from mlflow import pyfunc

    (version,) = client.search_model_versions("name = 'vad-street' and tags.`vad.model` = 'fusion'")
    stored = ClipStore(project.folder / "data/street/frames.zarr", "frames").read(ClipId("test", "01"))
    with project.inside():
        model = pyfunc.load_model(f"models:/vad-street/{version.version}")
        scores = model.predict(stored.repeat(3, axis=-1)[None])
    np.testing.assert_array_equal(scores[0], frames["fused"])


def test_detect_scores_equal_stage_scores(project, frames):
    video = "data/raw/street/test/01.avi"
    project.detect(video, "--dataset", "street", "--model", "fusion", "--out", "found")
    table = pd.read_csv(project.folder / "found/01/scores.csv")
    for name in ("score", "p_value", "fused", *MEMBERS):
        np.testing.assert_allclose(table[name], frames[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_fusion_as_champion_on_inbox(project, client):
    output = project.promote("street")
    assert {line.split()[0] for line in output.splitlines() if re.match(r" *(frame|conv|flow|fus)\w+ +\d", line)} == {
        *PARAMS["model"],
        "fusion",
    }
    (version,) = client.search_model_versions("name = 'vad-street' and tags.`vad.model` = 'fusion'")
    client.set_registered_model_alias("vad-street", "champion", version.version)
    inbox = project.folder / "inbox"
    inbox.mkdir()
    shutil.copy(project.folder / "data/raw/street/test/01.avi", inbox / "new.avi")
    os.utime(inbox / "new.avi", (time.time() - 60,) * 2)
    project.detect("--champion", "street", "--inbox", "inbox", "--out", "watched")
    about = json.loads((project.folder / "watched/new/events.json").read_text())
    assert about["detector"]["model"] == "fusion"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("train", "street", "fusion"), ("model.fusion", "params.yaml")),
        (("fuse", "street", "frame_diff"), ("fusion.frame_diff", "there are: fusion")),
    ],
)
def test_wrong_stage_gives_one_line_error(project, words, parts):
    line = project.stage(*words, code=1)
    assert line.startswith("error: ")
    assert [part for part in parts if part not in line] == []


def test_different_held_out_footage_is_refused(project, tmp_path):
    copy = project.copy(tmp_path, "data", "models", "scores")
    file: Path = copy.folder / "models/street/flow_magnitude/normal.parquet"
    table = pd.read_parquet(file)
    table.assign(frame=table["frame"] + 1).to_parquet(file)
    line = copy.stage("fuse", "street", "fusion", code=1).splitlines()[-1]
    assert line.startswith("error: models/street/flow_magnitude: was trained with different held-out footage")
