"""Latent prediction from footage to report: shared front end, rollouts and the source of Moving MNIST."""

import copy
import json
import re

import pandas as pd
import pytest

from tests.helpers.project import PARAMS, Project

pytestmark = pytest.mark.xdist_group("latent")

FRONT = {"name": "vcae", "conv": 2, "dense": 16, "z": 4, "batch_size": 16, "iterations": 20, "learning_rate": 0.001}
SMALL = {"frames": 10, "hidden": 16, "batch_size": 8, "iterations": 20, "learning_rate": 0.001, "warm_up": 4}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """``output``: the printed output of the first `dvc repro`."""
    params = copy.deepcopy(PARAMS) | {
        "datasets": ["moving_mnist"],
        "models": ["latent_lstm-mse", "latent_lstm-kl"],
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
    params["train"] |= {"check_every": 10}
    params["score"] |= {"rollouts": {"prime": 8, "steps": 5, "sequences": 4, "shown": 2}}
    project = Project(tmp_path_factory.mktemp("latent"), params)
    _, project.output = project.repro()
    return project


def test_shared_front_end_is_trained_once(project):
    assert project.output.count("already trained") == 1
    assert len(list((project.folder / "checkpoints/moving_mnist/latent_lstm.first").iterdir())) == 1
    for loss in ("mse", "kl"):
        out = project.folder / f"models/moving_mnist/latent_lstm-{loss}"
        history = pd.read_csv(out / "history.csv")
        assert list(history["phase"].unique()) == ["vcae", "lstm"]
        assert list(history["step"]) == sorted(set(history["step"]))  # continues over both phases, for plots
        assert history["step"].iloc[-1] == 40
        made = {path.name for path in (out / "samples").iterdir()}
        assert {"vcae-000010.png", "vcae-000020.png", "lstm-000010.png", "lstm-000020.png"} <= made
        assert json.loads((out / "metrics.json").read_text())["iterations"] == 40


def test_rollout_table_and_pictures(project):
    folder = project.folder / "scores/moving_mnist/latent_lstm-mse/rollouts"
    table = pd.read_csv(folder / "steps.csv")
    baselines = {"repeat last frame", "constant velocity", "mean training frame"}
    assert set(table["what"]) == {"prediction", "reconstruction"} | baselines
    assert sorted(table["step_ahead"].unique()) == [1, 2, 3, 4, 5]
    assert len(list(folder.glob("*.png"))) == 2
    assert (folder / "rollouts.webp").stat().st_size > 0


def test_report_shows_rollouts_and_digit_source(project):
    page = (project.folder / "reports/index.html").read_text()
    assert "digits of scikit-learn" in page
    assert "Many frames ahead" in page
    assert len(re.findall(r">\d+ of \d+</td>", page)) == 2 * 2  # two systems, two baselines
    assert "vcae, iteration 20" in page
    rows = json.loads((project.folder / "reports/rollouts.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {"vcae, mse", "vcae, kl"}
    (label_set,) = {row["label_set"] for row in rows}
    assert "digits of scikit-learn" in label_set


def test_changed_rollouts_rerun_only_scoring(project):
    params = project.params
    params["score"]["rollouts"]["steps"] = 20
    project.write(params)
    ran, output = project.repro()
    assert ran == ["configure", "score@moving_mnist-latent_lstm-mse", "score@moving_mnist-latent_lstm-kl", "report"]
    assert "score.rollouts" in output  # no test clip is long enough
    assert "Many frames ahead" not in (project.folder / "reports/index.html").read_text()
