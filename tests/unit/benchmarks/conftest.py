"""A folder with the reports of a run, from which benchmarks.publish keeps results."""

import json
import sys

import pytest

from benchmarks import publish
from vadcore.report.build import DIFFERS, write_run

RUN = {
    "command": "dvc repro",
    "profile": "pair",
    "commit": "0123456789abcdef",
    "hardware": "Some CPU, 2 cores",
    "versions": {"python": "3.11.2", "torch": "2.13.0", "opencv-python": "5.0.0"},
    "date": "2026-01-02T03:04:05+00:00",
}
RESULT = {"dataset": "street", "model": "gru_ae", "seed": 1, "label_set": "generated", "auc_micro": 0.87654}
POINT = {"dataset": "street", "model": "gru_ae", "seed": 1, "iteration": 100, "psnr": 23.5, "ssim": 0.7}
POINT |= {"sharpness": 0.6, "val": 0.01}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the reports of a run of the profile ``pair``."""
    for folder in ("profiles", "reports", "docs", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("params.yaml", "profiles/pair.yaml"):
        (tmp_path / name).write_text("profile: pair\n")
    (tmp_path / "docs/results.md").write_text("Before.\n<!-- results -->\nold\n<!-- /results -->\nAfter.\n")
    (tmp_path / "README.md").write_text("Before.\n<!-- summary -->\nold\n<!-- /summary -->\nAfter.\n")
    made(tmp_path, [RESULT])
    made(tmp_path, [POINT], kind="quality")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(project, rows, run=RUN, kind="metrics"):
    """Write ``rows`` as those of a report; metrics come with run.js."""
    results = {"run": {key: value for key, value in run.items() if key not in DIFFERS}, "rows": rows}
    (project / f"reports/{kind}.json").write_text(json.dumps(results))
    if kind == "metrics":
        write_run(project / "reports/run.js", results, run, {})


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["publish.py", *words])
    publish.main()


def publish_rows(project, monkeypatch, rows):
    """Keep ``rows`` as the results of the run."""
    made(project, rows)
    run(monkeypatch)
