"""Single stages: work that they skip, work that they redo, and error messages."""

import json
import shutil

import pandas as pd
import pytest

from tests.helpers.project import PARAMS, Project, contents
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipId, ClipStore
from vadcore.data.windows import Segment
from vadcore.evaluation.inference import score_clip
from vadcore.models import load_model

pytestmark = pytest.mark.xdist_group("stages")


def test_extract_skips_complete_clips(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data")
    before = {file: file.stat().st_mtime_ns for file in (project.folder / "data/street/frames.zarr").rglob("c.*")}
    assert before
    assert "(0 decoded now" in project.stage("extract", "street")
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_flow_is_computed_only_when_needed(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data/street/frames.zarr")
    flow = project.folder / "data/street/flow.zarr"
    without = {**PARAMS, "models": ["frame_diff"]}
    project.write(without)
    assert "nothing computed" in project.stage("optical_flow", "street")
    assert not list(flow.glob("*/*/flow"))
    project.write(PARAMS)
    assert "flow.zarr: 5 clips" in project.stage("optical_flow", "street")
    assert contents(flow) == contents(pipeline_project.folder / "data/street/flow.zarr")
    project.write(without)
    project.stage("optical_flow", "street")
    assert contents(flow) == contents(pipeline_project.folder / "data/street/flow.zarr")  # kept


@pytest.mark.parametrize(("model", "seen"), [("convlstm_ae", True), ("flow_magnitude", False)])
def test_all_normal_clips_are_scored(pipeline_project, model, seen):
    table = pd.read_parquet(pipeline_project.folder / f"models/street/{model}/normal.parquet")
    assert sorted(table["clip"].unique()) == ["01", "02", "03"]
    assert len(table) == 90
    assert not table.loc[table["held_out"], "seen"].any()
    assert (table.loc[~table["held_out"], "seen"] == seen).all()


def test_statistics_are_cross_fitted(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data")
    dataset = {**PARAMS["dataset"]["street"], "train_clips": 5}
    model = {**PARAMS["model"], "background": {"threshold": 10}}
    project.write({**PARAMS, "models": ["background"], "dataset": {"street": dataset}, "model": model})
    for stage in ("prepare", "extract", "optical_flow"):
        project.stage(stage, "street")
    project.stage("train", "street", "background")
    table = pd.read_parquet(project.folder / "models/street/background/normal.parquet")
    assert not table["seen"].any()
    assert table.groupby("clip")["held_out"].first().tolist().count(False) == table["clip"].nunique() - 2
    # a clip differs more from the mean image of other clips than from one that it is part of
    system = load_model(project.folder / "models/street/background")
    frames = ClipStore(project.folder / "data/street/frames.zarr", "frames")
    for (clip, start), rows in table[~table["held_out"]].groupby(["clip", "start"]):
        segment = Segment(ClipId("train", clip), start, start + len(rows))
        own = score_clip(system, ClipLoader.for_model(system, frames, [segment], None), 0).measures["mse"]
        assert rows["mse"].mean() > own.mean()


def test_new_false_alarm_rate_keeps_scored_clips(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data", "models", "checkpoints", "scores")
    figures = project.folder / "scores/street/convlstm_ae/metrics.json"
    before, parts = json.loads(figures.read_text()), contents(project.folder / "checkpoints")
    project.write({**PARAMS, "calibrate": {"target_far_per_hour": 2000}})
    project.stage("score", "street", "convlstm_ae")
    after = json.loads(figures.read_text())
    assert contents(project.folder / "checkpoints") == parts
    assert after["threshold"] < before["threshold"]
    assert after["auc_micro"] == before["auc_micro"]


class TestErrors:
    """One line that names the file or key and the fix. Exit code 1. No partial output."""

    @pytest.fixture
    def project(self, tmp_path) -> Project:
        return Project(tmp_path)

    @staticmethod
    def error(project: Project, *words: str) -> str:
        """The last line of the stage's output. An unexpected exception is raised here instead of printed."""
        line = project.stage(*words, code=1).strip().splitlines()[-1]
        assert line.startswith("error: ")
        return line

    def test_unknown_key(self, project):
        project.write({**PARAMS, "train": {"batchsize": 4}})
        line = self.error(project, "train", "street", "frame_diff")
        assert "params.yaml: train.batchsize" in line

    def test_dataset_without_section(self, project):
        line = self.error(project, "prepare", "yard")
        assert "params.yaml" in line
        assert "dataset.yard" in line
        assert "street" in line

    def test_stage_without_its_inputs(self, project):
        line = self.error(project, "extract", "street")
        assert "data/raw/street: " in line
        assert "prepare" in line
        for stage in ("train", "score"):
            line = self.error(project, stage, "street", "frame_diff")
            assert "data/street/frames.zarr" in line
            assert "extract" in line

    def test_missing_cuda_device(self, pipeline_project, tmp_path):
        project = pipeline_project.copy(tmp_path / "copy", "data")
        project.write({**PARAMS, "machine": {"device": "cuda:7"}})
        line = self.error(project, "train", "street", "frame_diff")
        assert "machine.device" in line
        assert "cuda:7" in line

    def test_truncated_video_stops_or_is_skipped(self, pipeline_project, tmp_path):
        own = tmp_path / "own"
        shutil.copytree(pipeline_project.folder / "data/raw/street", own, ignore=shutil.ignore_patterns("*.npz"))
        video = own / "test" / "01.avi"
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
        params = {**PARAMS, "datasets": ["yard"], "dataset": {"yard": {"format": "videos", "source": str(own)}}}
        project = Project(tmp_path / "project", params)
        project.stage("prepare", "yard")
        line = self.error(project, "extract", "yard")
        assert "data/raw/yard/test/01.avi: " in line
        assert "extract.on_error" in line
        assert "skip" in line
        assert not (project.folder / "data/yard/frames.zarr/test/01").exists()
        project.write({**params, "extract": {"on_error": "skip"}})
        assert "data/raw/yard/test/01.avi: " in project.stage("extract", "yard")
        facts = json.loads((project.folder / "data/yard/facts.json").read_text())
        assert [entry["clip"] for entry in facts["left_out"]] == ["test/01"]
        assert facts["test_clips"] == 1
