"""benchmarks.false_alarms: collects observed and requested false-alarm rates from the score stage's files."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import false_alarms
from vadcore.evaluation.calibration import calibrate


def test_rates_of_every_system(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("datasets: [yard]\nmodels: [frame_diff]\ndataset: {yard: {format: street}}\n")
    folder = tmp_path / "scores/yard/frame_diff"
    folder.mkdir(parents=True)
    scores = np.random.default_rng(0).normal(size=600)  # a minute
    (folder / "calibration.json").write_text(calibrate({"a": scores}, 10.0, 60).to_json())
    (folder / "metrics.json").write_text(json.dumps({"normal_hours": 0.5, "auc_micro": 0.75}))
    asked = [0.5, 1.0, 5.0, 6.5, 60.0]
    pd.DataFrame(
        {
            "target_far_per_hour": asked,
            "false_alarms_per_hour": [0, 2, 8, 9, 50],
            "detection_rate": [0, 0.1, 0.2, 0.3, 0.5],
        }
    ).to_csv(folder / "operating.csv", index=False)
    monkeypatch.setattr("sys.argv", ["false_alarms.py", "--out", "rates.json"])
    monkeypatch.setattr(
        "benchmarks.result.run_facts", lambda command, profile: {"command": command, "profile": profile}
    )
    false_alarms.main()
    rows = json.loads((tmp_path / "rates.json").read_text())["rows"]
    assert [(row["asked_per_hour"], row["observed_per_hour"], row["detection_rate"]) for row in rows] == [
        (1.0, 2, 0.1),
        (6.0, 9, 0.3),
        (60.0, 50, 0.5),
    ]
    assert rows[0]["supported_per_hour"] == pytest.approx(20)  # a third of one event in a minute
    assert {(row["data"], row["system"], row["auc_micro"]) for row in rows} == {("yard", "frame_diff", 0.75)}
