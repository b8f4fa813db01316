"""Stages killed with `kill -9` at random moments: the same command resumes and gives the uninterrupted run's result."""

import random
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.helpers.project import ROOT, Project, contents

pytestmark = pytest.mark.xdist_group("kill")


def kill_twice(project: Project, begun: str, moments: range, *words: str, outs: str | None = None) -> None:
    """Run a stage twice. Each run is killed before a randomly chosen file change.

    begun, moments: see :mod:`tests.helpers.killed`. outs: the folder that DVC removes before it starts the stage.
    """
    project.environment["PYTHONPATH"] = f"{project.folder}:{ROOT}"  # ROOT for the helper
    for number in range(2):
        moment = random.SystemRandom().choice(moments)
        words_of_helper = [sys.executable, "-m", "tests.helpers.killed", begun, str(moment)]
        print(f"kill {number + 1} at moment {moment}")
        print(project.run(*words_of_helper, *words, code=-signal.SIGKILL))
        if outs:
            shutil.rmtree(project.folder / outs, ignore_errors=True)


def test_extract_resumes_after_kill(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data/raw")
    kill_twice(project, "frames.zarr", range(1, 300), "extract", "street")
    project.stage("extract", "street")
    for store in ("frames.zarr", "masks.zarr"):
        first, second = (one.folder / "data/street" / store for one in (pipeline_project, project))
        assert contents(second) == contents(first)


def test_optical_flow_resumes_after_kill(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data/street/frames.zarr")
    kill_twice(project, "flow.zarr", range(1, 180), "optical_flow", "street")
    project.stage("optical_flow", "street")
    first, second = (one.folder / "data/street/flow.zarr" for one in (pipeline_project, project))
    assert contents(second) == contents(first)


def test_train_resumes_after_kill(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data")
    params = project.params
    params["train"]["save_seconds"] = 0.001  # a checkpoint every iteration
    project.write(params)
    # the first two changes write the first checkpoint
    kill_twice(project, "state.pt", range(3, 240), "train", "street", "convlstm_ae", outs="models")
    output = project.stage("train", "street", "convlstm_ae")
    assert re.search("(resuming from|delete) checkpoints/street/convlstm_ae", output)  # or it was killed at its end
    ours, theirs = (one.folder / "models/street/convlstm_ae" for one in (project, pipeline_project))
    assert but_cost(ours) == but_cost(theirs)


def but_cost(folder: Path) -> dict[str, str]:
    """The contents without cost.json, which differs because it holds run times."""
    return {name: digest for name, digest in contents(folder).items() if name != "cost.json"}


def test_score_resumes_after_kill(pipeline_project, tmp_path):
    project = pipeline_project.copy(tmp_path, "data", "models")
    kill_twice(project, "score-", range(1, 120), "score", "street", "convlstm_ae", outs="scores")
    project.stage("score", "street", "convlstm_ae")
    ours, theirs = (one.folder / "scores/street/convlstm_ae" for one in (project, pipeline_project))
    assert but_cost(ours) == but_cost(theirs)
