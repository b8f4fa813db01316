"""The stages as processes: killed at any moment, the same command goes on, to the same result."""

import copy
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.project import LONG_ENOUGH, PARAMS, Project

pytestmark = pytest.mark.pipeline


def contents(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with the digest of its bytes."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    """A project whose footage is prepared and whose every stage has run undisturbed."""
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    params = copy.deepcopy(PARAMS)
    params["model"]["convlstm_ae"]["iterations"] = 1500
    project.write(params)
    for stage in ("prepare", "extract", "optical_flow"):
        project.stage(stage, "street")
    for stage in ("train", "score"):
        project.stage(stage, "street", "convlstm_ae")
    return project


def copy_of(made: Project, folder: Path, *outs: str) -> Project:
    """A project with the same params and these outs of the undisturbed one."""
    project = Project(folder)
    shutil.copy(made.folder / "params.yaml", folder)
    for out in outs:
        shutil.copytree(made.folder / out, folder / out)
    return project


def kill_once(project: Project, begun: str, *words: str, latest: float = 0.4) -> None:
    """Start a stage and kill -9 its whole process group at a random moment after a file matches ``begun``, so many seconds
    later at most."""
    delay = random.SystemRandom().uniform(0, latest)
    process = project.start(sys.executable, "-m", "tasks", *words)
    deadline = time.monotonic() + LONG_ENOUGH
    while not list(project.folder.glob(begun)):
        assert process.poll() is None, f"ended before it began:\n{process.stdout.read()}"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the stage ended before it could be killed"
    print(f"killed {delay:.3f} s after {begun} appeared; exit {process.returncode}")


def test_extract_killed_and_run_again_gives_the_same_store(made, tmp_path):
    project = copy_of(made, tmp_path, "data/raw")
    kill_once(project, "data/street/frames.zarr/train/*/frames", "extract", "street")
    project.stage("extract", "street")
    for store in ("frames.zarr", "masks.zarr"):
        assert contents(project.folder / f"data/street/{store}") == contents(made.folder / f"data/street/{store}")


def test_extract_leaves_complete_clips_alone(made, tmp_path):
    project = copy_of(made, tmp_path, "data")
    before = {file: file.stat().st_mtime_ns for file in (project.folder / "data/street/frames.zarr").rglob("c.*")}
    assert before
    output = project.stage("extract", "street")
    assert "(0 decoded now" in output
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_optical_flow_is_not_computed_where_no_system_reads_it(made, tmp_path):
    project = copy_of(made, tmp_path, "data/raw", "data/street/frames.zarr")
    flow = project.folder / "data/street/flow.zarr"
    without = {**PARAMS, "flow_models": []}
    project.write(without)
    assert "flow.zarr: nothing computed, because flow_models names no" in project.stage("optical_flow", "street")
    assert not list(flow.glob("*/*/flow"))
    project.write(PARAMS)
    assert "flow.zarr: 5 clips" in project.stage("optical_flow", "street")
    assert contents(flow) == contents(made.folder / "data/street/flow.zarr")
    project.write(without)
    assert "nothing computed" in project.stage("optical_flow", "street")  # and nothing that was is lost
    assert contents(flow) == contents(made.folder / "data/street/flow.zarr")


def test_optical_flow_killed_and_run_again_gives_the_same_store(made, tmp_path):
    project = copy_of(made, tmp_path, "data/raw", "data/street/frames.zarr")
    kill_once(project, "data/street/flow.zarr/*/*/flow", "optical_flow", "street", latest=0.05)
    project.stage("optical_flow", "street")
    assert contents(project.folder / "data/street/flow.zarr") == contents(made.folder / "data/street/flow.zarr")


def test_train_killed_and_run_again_gives_the_same_weights(made, tmp_path):
    project = copy_of(made, tmp_path, "data")
    kill_once(project, "checkpoints/street/convlstm_ae/train-*/state.pt", "train", "street", "convlstm_ae")
    shutil.rmtree(project.folder / "models", ignore_errors=True)  # as DVC does with the outs before a stage starts
    output = project.stage("train", "street", "convlstm_ae")
    assert "resuming from checkpoints/street/convlstm_ae" in output
    ours, theirs = (contents(p.folder / "models/street/convlstm_ae") for p in (project, made))
    assert {name: digest for name, digest in ours.items() if name != "metrics.json"} == {
        name: digest for name, digest in theirs.items() if name != "metrics.json"
    }
    timeless = ("iterations", "best_iteration", "held_out_loss", "parameters", "seed")
    ours, theirs = (
        json.loads((p.folder / "models/street/convlstm_ae/metrics.json").read_text()) for p in (project, made)
    )
    assert {key: ours[key] for key in timeless} == {key: theirs[key] for key in timeless}


def test_score_killed_and_run_again_gives_the_same_scores(made, tmp_path):
    project = copy_of(made, tmp_path, "data", "models")
    kill_once(project, "checkpoints/street/convlstm_ae/score-*/*.npz", "score", "street", "convlstm_ae")
    shutil.rmtree(project.folder / "scores", ignore_errors=True)
    project.stage("score", "street", "convlstm_ae")
    ours, theirs = (p.folder / "scores/street/convlstm_ae" for p in (project, made))
    pd.testing.assert_frame_equal(pd.read_parquet(ours / "frames.parquet"), pd.read_parquet(theirs / "frames.parquet"))
    for name in ("events.csv", "calibration.json", "roc.csv"):
        assert (ours / name).read_text() == (theirs / name).read_text()
    assert contents(ours / "worst") == contents(theirs / "worst")


def test_another_false_alarm_rate_scores_anew_without_judging_a_frame_again(made, tmp_path):
    project = copy_of(made, tmp_path, "data", "models", "checkpoints", "scores")
    parts = contents(project.folder / "checkpoints")
    params = copy.deepcopy(PARAMS)
    params["model"]["convlstm_ae"]["iterations"] = 1500
    params["calibrate"]["false_alarms_per_hour"] = 2000
    project.write(params)
    before = json.loads((project.folder / "scores/street/convlstm_ae/metrics.json").read_text())
    project.stage("score", "street", "convlstm_ae")
    after = json.loads((project.folder / "scores/street/convlstm_ae/metrics.json").read_text())
    assert contents(project.folder / "checkpoints") == parts
    assert after["threshold"] < before["threshold"]
    assert after["auc_micro"] == before["auc_micro"]


class TestWhatAPersonReadsWhenSomethingIsWrong:
    """One line that names the file or key and the remedy; exit code 1; no traceback; nothing half-written."""

    @pytest.fixture
    def project(self, tmp_path):
        return Project(tmp_path)

    def read(self, project: Project, *words: str) -> str:
        output = project.stage(*words, code=1)
        assert "Traceback" not in output
        return output.strip().splitlines()[-1]

    def test_a_wrong_key(self, project):
        project.write({**PARAMS, "train": {"batchsize": 4}})
        line = self.read(project, "train", "street", "frame_diff")
        assert line == "error: params.yaml: train.batchsize: unknown key; correct its spelling or remove it"

    def test_a_data_set_that_is_not_in_params(self, project):
        line = self.read(project, "prepare", "yard")
        assert line == "error: params.yaml: no section dataset.yard; there are: street"

    def test_a_stage_before_its_turn(self, project):
        assert "data/raw/street: no footage here; run the prepare stage first" in self.read(
            project, "extract", "street"
        )
        assert "run the extract stage first" in self.read(project, "train", "street", "frame_diff")
        assert "run the extract stage first" in self.read(project, "score", "street", "frame_diff")

    def test_a_device_that_is_not_there(self, made, tmp_path):
        project = copy_of(made, tmp_path / "p", "data")
        project.write({**PARAMS, "machine": {"device": "cuda:7"}})
        line = self.read(project, "train", "street", "frame_diff")
        assert line.startswith("error: machine.device: 'cuda:7', but torch sees ")

    def test_a_truncated_video_stops_extraction_or_is_left_out_and_listed(self, made, tmp_path):
        own = tmp_path / "own"
        shutil.copytree(made.folder / "data/raw/street", own, ignore=shutil.ignore_patterns("*.npz"))
        video = own / "test" / "01.avi"
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
        params = {**PARAMS, "datasets": ["yard"], "dataset": {"yard": {"format": "videos", "source": str(own)}}}
        project = Project(tmp_path / "p", params)
        project.stage("prepare", "yard")
        line = self.read(project, "extract", "yard")
        assert line.startswith("error: data/raw/yard/test/01.avi: ")
        assert line.endswith("(or set extract.on_error to skip, to go on without such clips)")
        assert not (project.folder / "data/yard/frames.zarr/test/01").exists()
        project.write({**params, "extract": {"on_error": "skip"}})
        assert "left out: data/raw/yard/test/01.avi: " in project.stage("extract", "yard")
        facts = json.loads((project.folder / "data/yard/facts.json").read_text())
        assert [entry["clip"] for entry in facts["left_out"]] == ["test/01"]
        assert facts["test_clips"] == 1

    @pytest.mark.parametrize("full", ["checkpoints", "models"])
    def test_a_full_disk(self, made, tmp_path, full):
        """A real one: a file system of 32 KiB, mounted where the stage writes."""
        project = copy_of(made, tmp_path / "p", "data")
        place = project.folder / full
        place.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
        try:
            line = self.read(project, "train", "street", "convlstm_ae")
        finally:
            subprocess.run(["umount", place], check=True)
        assert line.startswith(f"error: {full}/street/convlstm_ae/")
        assert line.endswith(": no space left; free some and run the same command again")
