"""Latent prediction through `dvc repro`: one front end for all variants, rollouts in the report, Moving MNIST by name."""

import copy
import json
import re

import pandas as pd
import pytest

from tests.helpers.project import PARAMS, Project

pytestmark = pytest.mark.pipeline

FRONT = {"name": "vcae", "conv": 2, "dense": 16, "z": 4, "batch_size": 16, "iterations": 40, "learning_rate": 0.001}
SMALL = {"frames": 10, "hidden": 16, "batch_size": 8, "iterations": 40, "learning_rate": 0.001, "warm_up": 4}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    params = copy.deepcopy(PARAMS) | {
        "datasets": ["moving_mnist"],
        "models": ["latent_lstm-mse", "latent_lstm-kl"],
        "flow_models": [],
        "dataset": {
            "moving_mnist": {
                "format": "moving_mnist",
                "source": "scikit-learn",
                "train_clips": 8,
                "train_frames": 16,
                "test_clips": 2,
                "test_frames": 14,
            }
        },
        "model": {
            f"latent_lstm-{loss}": {"image_size": [32, 32], "front_end": FRONT, "loss": loss} | SMALL
            for loss in ("mse", "kl")
        },
    }
    params["score"] |= {"rollouts": {"prime": 8, "steps": 5, "sequences": 4, "shown": 2}}
    project = Project(tmp_path_factory.mktemp("latent"), params)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.output = project.run("dvc", "repro")
    return project


def test_variants_with_the_same_front_end_train_it_once(project):
    assert len(re.findall(r"finished before, under the same key", project.output)) == 1
    parts = list((project.folder / "checkpoints/moving_mnist/latent_lstm.first").iterdir())
    assert len(parts) == 1
    for loss in ("mse", "kl"):
        out = project.folder / f"models/moving_mnist/latent_lstm-{loss}"
        history = pd.read_csv(out / "history.csv")
        assert list(history["phase"].unique()) == ["vcae", "lstm"]
        assert list(history["step"]) == sorted(set(history["step"]))  # over both phases, for a plot of them
        assert history["step"].iloc[-1] == 80
        made = {path.name for path in (out / "samples").iterdir()}
        assert {"vcae-000020.png", "vcae-000040.png", "lstm-000020.png", "lstm-000040.png"} <= made
        assert json.loads((out / "metrics.json").read_text())["iterations"] == 80


def test_rollouts_have_a_row_a_step_and_pictures(project):
    folder = project.folder / "scores/moving_mnist/latent_lstm-mse/rollouts"
    table = pd.read_csv(folder / "steps.csv")
    baselines = {"repeat last frame", "constant velocity", "mean training frame"}
    assert set(table["what"]) == {"prediction", "reconstruction"} | baselines
    assert sorted(table["step_ahead"].unique()) == [1, 2, 3, 4, 5]
    assert len(list(folder.glob("*.png"))) == 2
    assert (folder / "rollouts.webp").stat().st_size > 0


def test_the_report_shows_them_and_says_whose_digits_they_are(project):
    page = (project.folder / "reports/index.html").read_text()
    assert "none: generated, digits of scikit-learn" in page
    assert "Many frames ahead" in page
    assert "the mean training frame" in page
    assert "repeating the last frame at" in page
    assert "vcae, iteration 40" in page
    rows = json.loads((project.folder / "reports/rollouts.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {"vcae, mse", "vcae, kl"}
    assert {row["label_set"] for row in rows} == {"none: generated, digits of scikit-learn"}


def test_other_rollouts_score_again_and_train_nothing(project):
    params = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(params.replace("steps: 5", "steps: 20"))
    output = project.run("dvc", "repro")
    assert "no test clip has the 8 + 20 frames that score.rollouts asks for" in output
    assert not re.search(r"Running stage 'train", output)
    assert "Many frames ahead" not in (project.folder / "reports/index.html").read_text()
