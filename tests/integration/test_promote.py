"""Promotion: compare registered systems without test labels, make the best one champion, and undo it."""

import json
import re

import pytest
from mlflow import MlflowClient

from tests.helpers.project import Project

pytestmark = pytest.mark.xdist_group("promote")
SYSTEMS = {"frame_diff", "convlstm_ae", "flow_magnitude"}


@pytest.fixture(scope="module")
def project(pipeline_project, tmp_path_factory) -> Project:
    return pipeline_project.copy(tmp_path_factory.mktemp("promote") / "copy")


@pytest.fixture(scope="module")
def client(project) -> MlflowClient:
    return MlflowClient(project.environment["MLFLOW_TRACKING_URI"])


@pytest.fixture
def versions(client):
    """The version number of each system. There is no champion before and after the test."""
    yield {found.tags["vad.model"]: found.version for found in client.search_model_versions("name = 'vad-street'")}
    for alias in ("champion", "previous"):
        client.delete_registered_model_alias("vad-street", alias)


def champion(client) -> str:
    return client.get_model_version_by_alias("vad-street", "champion").tags["vad.model"]


def figures(project: Project, key: str) -> dict[str, float]:
    """A metric on the test footage, by system."""
    return {
        name: json.loads((project.folder / f"scores/street/{name}/metrics.json").read_text())[key] for name in SYSTEMS
    }


def test_scoring_registers_versions(project, client):
    found = client.search_model_versions("name = 'vad-street'")
    assert {version.tags["vad.model"] for version in found} == SYSTEMS
    for version in found:
        assert float(version.tags["auc_micro"]) == pytest.approx(
            figures(project, "auc_micro")[version.tags["vad.model"]]
        )


def test_promotion_by_artificial_anomalies(project, client, versions):
    """The comparison is printed and stored as an MLflow run."""
    project.track(True)
    output = project.promote("street")
    project.track(False)
    assert re.search(r"^\d+ held-out .*\b200 false alarms", output, re.MULTILINE)  # the amount of footage compared
    rows = {
        line.split()[0]: line.split() for line in output.splitlines() if re.match(r" *(frame|conv|flow)\w+ +\d", line)
    }
    assert set(rows) == SYSTEMS
    merit = {name: (float(row[2]), float(row[3])) for name, row in rows.items()}
    assert champion(client) == max(merit, key=merit.get)
    assert rows[champion(client)][-1] == "now"
    experiment = client.get_experiment_by_name("vad").experiment_id
    (run,) = client.search_runs([experiment], "tags.`vad.stage` = 'promote'")
    assert run.info.status == "FINISHED"
    assert run.data.params["champion"] == champion(client)
    assert "comparison.csv" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_promotion_by_metric_and_back(project, client, versions):
    known = figures(project, "auc_macro")
    best, worst = max(known, key=known.get), min(known, key=known.get)
    client.set_registered_model_alias("vad-street", "champion", versions[worst])
    output = project.promote("street", "--by", "auc_macro")
    assert champion(client) == best
    assert f"before: {worst}" in output
    assert f"{best} (version {versions[best]}) stays" in project.promote("street", "--by", "auc_macro")
    project.promote("street", "--back")
    assert champion(client) == worst
    project.promote("street", "--back")
    assert champion(client) == best


def test_lowest_eer_is_promoted(project, client, versions):
    known = figures(project, "eer")
    assert len(set(known.values())) == 3
    project.promote("street", "--by", "eer")
    assert champion(client) == min(known, key=known.get)


def test_other_false_alarm_rate_is_left_out(project, client, versions):
    """A higher false-alarm rate finds more anomalies, so a comparison would be unfair."""
    number = versions["convlstm_ae"]
    client.set_model_version_tag("vad-street", number, "target_far_per_hour", "20000.0")
    output = project.promote("street")
    client.set_model_version_tag("vad-street", number, "target_far_per_hour", "200.0")
    (line,) = (line for line in output.splitlines() if line.startswith("left out: "))
    assert f"convlstm_ae (version {number})" in line
    assert "20000" in line
    assert "convlstm_ae" not in output.replace(line, "")


def test_other_held_out_footage_is_left_out(project):
    params = project.params
    project.write({**params, "train": {**params["train"], "val_share": 0.6}})
    output = project.promote("street", code=1)
    project.write(params)
    assert output.count("left out: ") == 3
    assert "dvc repro" in output.splitlines()[-1]


def test_errors_list_known_names(project):
    assert "street" in project.promote("elsewhere", code=1)
    for unknown in ("auc_mikro", "threshold_extrapolated"):
        output = project.promote("street", "--by", unknown, code=1)
        assert f"--by {unknown}" in output
        assert "auc_micro" in output
