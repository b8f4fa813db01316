"""Results, report and links that a pipeline run leaves in Prefect and MLflow."""

import logging
from types import SimpleNamespace

import pytest

from flows import artifacts
from vadcore.evaluation.cost import write_cost

KEY = "mauve-fox/id-1"
PAGE = "http://prefect/runs/flow-run/id-1"


class Mlflow:
    """A fake MLflow client with one run of the pipeline and the run that made the report."""

    def __init__(self):
        self.tags = {}

    def search_experiments(self):
        return [SimpleNamespace(experiment_id="1")]

    def search_runs(self, experiments, where, **_):
        assert experiments == ["1"]
        if "vad.digest." in where:
            return [SimpleNamespace(info=SimpleNamespace(experiment_id="1", run_id="reporter"))]
        if f"'{KEY}'" in where and "'pipeline'" in where:
            return [
                SimpleNamespace(info=SimpleNamespace(experiment_id="1", run_id="whole", run_name="pipeline tonight"))
            ]
        return []

    def set_tag(self, run, name, value):
        assert run == "whole"
        self.tags[name] = value


@pytest.fixture
def mlflow(monkeypatch) -> Mlflow:
    client = Mlflow()
    monkeypatch.setattr(artifacts, "connect", lambda uri: client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    return client


@pytest.fixture
def left(monkeypatch) -> dict:
    """The artifacts: key -> link or table."""
    left = {}
    monkeypatch.setattr(artifacts, "create_link_artifact", lambda link, text, key, *_: left.update({key: link}))
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda rows, key, **_: left.update({key: rows}))
    return left


@pytest.fixture
def root(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/results.csv").write_text("dataset,model,auc,eer,epochs\na,m2,0.51239,,12\n")
    (tmp_path / "scores/a/m2").mkdir(parents=True)
    (tmp_path / "scores/a/m2/metrics.json").write_text("{}")
    write_cost(tmp_path / "scores/a/m2", {"score_fps": 107.46})
    (tmp_path / "reports/index.html").write_text("report")
    return tmp_path


def leave(root, reported=True, page=PAGE):
    artifacts.create_artifacts(KEY, page, root, reported, logging.getLogger("test"))


def test_results_report_and_links_both_ways(mlflow, left, root):
    leave(root)
    assert left == {
        # no column that is empty in all rows
        "results": [{"dataset": "a", "model": "m2", "auc": "0.5124", "epochs": "12", "score_fps": "107.5"}],
        "mlflow-run": "http://mlflow:5000/#/experiments/1/runs/whole",
        "report": "http://mlflow:5000/#/experiments/1/runs/reporter/artifacts/index.html",
    }
    assert mlflow.tags["vad.flow_run"] == PAGE
    assert PAGE in mlflow.tags["mlflow.note.content"]


def test_report_of_another_run_is_not_shown(mlflow, left, root):
    leave(root, reported=False)
    assert set(left) == {"mlflow-run"}


def test_no_mlflow_link_without_a_page(mlflow, left, root):
    leave(root, page=None)
    assert mlflow.tags == {}


def test_mlflow_does_not_answer(monkeypatch, left, root, caplog):
    def connect(uri):
        raise OSError("connection refused")

    monkeypatch.setattr(artifacts, "connect", connect)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    leave(root)
    assert left["report"] == (root / "reports/index.html").as_uri()
    assert set(left) == {"results", "report"}
    assert "http://mlflow:5000" in caplog.text
    assert "connection refused" in caplog.text
    assert "secret" not in caplog.text


def test_link_creates_no_database(monkeypatch, left, root):
    monkeypatch.setattr(artifacts, "connect", lambda uri: pytest.fail("MLflow was asked"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    leave(root)
    assert set(left) == {"results", "report"}


def test_database_file_links_local_page(mlflow, monkeypatch, left, root):
    (root / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    leave(root)
    assert left["mlflow-run"] == f"{artifacts.LOCAL_MLFLOW}/#/experiments/1/runs/whole"
    assert left["report"] == (root / "reports/index.html").as_uri()
