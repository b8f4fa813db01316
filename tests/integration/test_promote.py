"""Promotion, through the pipeline: scored systems are compared without test labels, the best one is champion, and there is
a way back."""

import copy
import json
import re
import sys

import pytest
from mlflow import MlflowClient

from tests.helpers.project import PARAMS, Project

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    params = copy.deepcopy(PARAMS)
    params["models"] = ["frame_diff", "background"]
    params["model"] |= {"background": {"image_size": [24, 32]}}
    project = Project(tmp_path_factory.mktemp("promote"), params, tracked=True)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("dvc", "repro")
    return project


@pytest.fixture(scope="module")
def client(project) -> MlflowClient:
    return MlflowClient(project.environment["MLFLOW_TRACKING_URI"])


def promote(project, *words: str, code: int = 0) -> str:
    """``python -m tasks.promote ...``."""
    return project.run(sys.executable, "-m", "tasks.promote", *words, code=code)


def champion(client) -> str:
    return client.get_model_version_by_alias("vad-street", "champion").tags["vad.model"]


def test_every_scoring_has_registered_a_version_with_its_figures(project, client):
    found = client.search_model_versions("name = 'vad-street'")
    assert {version.tags["vad.model"] for version in found} == {"frame_diff", "background", "flow_magnitude"}
    for version in found:
        metrics = json.loads((project.folder / f"scores/street/{version.tags['vad.model']}/metrics.json").read_text())
        assert float(version.tags["auc_micro"]) == pytest.approx(metrics["auc_micro"])


def test_the_best_at_artificial_anomalies_is_promoted_and_the_comparison_shown(project, client):
    output = promote(project, "street")
    rows = {
        line.split()[0]: line.split() for line in output.splitlines() if re.match(r" *(frame_|back|flow_)\w+ +\d", line)
    }
    assert set(rows) == {"frame_diff", "background", "flow_magnitude"}
    merit = {name: (float(row[2]), float(row[3])) for name, row in rows.items()}
    assert champion(client) == max(merit, key=merit.get)
    assert rows[champion(client)][-1] == "now"


def test_by_a_test_figure_only_when_asked_and_back_again(project, client):
    first = champion(client)
    figures = {
        name: json.loads((project.folder / f"scores/street/{name}/metrics.json").read_text())["auc_macro"]
        for name in ("frame_diff", "background", "flow_magnitude")
    }
    # put another one up, whoever was champion, so that there is a way back
    worst = min(figures, key=figures.get)
    client.set_registered_model_alias("vad-street", "champion", version_of(client, worst))
    output = promote(project, "street", "--by", "auc_macro")
    assert champion(client) == max(figures, key=figures.get)
    assert f"before: {worst}" in output
    assert promote(project, "street", "--by", "auc_macro").splitlines()[-1].endswith("stays champion of street")
    promote(project, "street", "--back")
    assert champion(client) == worst
    promote(project, "street", "--back")
    assert champion(client) == max(figures, key=figures.get)
    client.set_registered_model_alias("vad-street", "champion", version_of(client, first))


def test_of_a_figure_that_is_better_low_the_lowest_wins(project, client):
    first = client.get_model_version_by_alias("vad-street", "champion").version
    figures = {
        name: json.loads((project.folder / f"scores/street/{name}/metrics.json").read_text())["eer"]
        for name in ("frame_diff", "background", "flow_magnitude")
    }
    assert len(set(figures.values())) == 3
    promote(project, "street", "--by", "eer")
    assert champion(client) == min(figures, key=figures.get)
    client.set_registered_model_alias("vad-street", "champion", first)


def test_the_trial_says_how_large_it_is(project):
    assert re.search(r"^\d+ held-out clips with an artificial anomaly each, 200 false alarms an hour$",
                     promote(project, "street"), re.MULTILINE)  # fmt: skip


def test_a_version_with_a_threshold_for_another_rate_is_left_out(project, client):
    """It would find more because it is asked to raise more false alarms."""
    number = version_of(client, "background")
    client.set_model_version_tag("vad-street", number, "false_alarms_per_hour_asked", "20000.0")
    output = promote(project, "street")
    client.set_model_version_tag("vad-street", number, "false_alarms_per_hour_asked", "200.0")
    assert (
        f"left out: background (version {number}): its threshold is for 20000 false alarms an hour, not 200" in output
    )
    assert champion(client) != "background"


def version_of(client, model: str) -> str:
    found = client.search_model_versions("name = 'vad-street'")
    return max(
        (version for version in found if version.tags["vad.model"] == model), key=lambda v: int(v.version)
    ).version


def test_what_cannot_be_compared_is_one_line(project):
    assert "there are: street" in promote(project, "elsewhere", code=1)
    output = promote(project, "street", "--by", "auc_mikro", code=1)
    assert re.search(r"has no such figure to be ranked by; it has: .*auc_micro", output)
    assert "no such figure" in promote(project, "street", "--by", "threshold_extrapolated", code=1)


def test_versions_trained_with_other_footage_held_out_are_left_out(project):
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text.replace("held_out: 0.3", "held_out: 0.6"))
    output = promote(project, "street", code=1)
    (project.folder / "params.yaml").write_text(text)
    assert output.count("left out:") == 3
    assert "no version that can be compared; run dvc repro" in output
