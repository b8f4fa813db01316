"""Collect observed against requested false-alarm rates of all systems, after `make profile NAME=false-alarms`.

    python -m benchmarks.false_alarms [--out benchmarks/results/false-alarms.json]

The rates come from scores/<data set>/<system>/operating.csv. Thresholds are calibrated on normal training footage; alarms
are counted on the normal frames of the test footage, which neither training nor calibration has seen. Where the amount of
normal footage does not support a rate, the threshold is that of the lowest rate that it supports (``supported_per_hour``).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from benchmarks.result import write_result
from tasks import paths
from vadcore.config import load_params
from vadcore.evaluation.calibration import Calibration

ASKED = (1.0, 6.0, 60.0)  # false alarms per hour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/false-alarms.json"))
    arguments = parser.parse_args()
    params = load_params()
    rows = []
    for dataset in params.datasets:
        for model in params.all_models:
            folder = paths.scores(dataset, model)
            metrics = json.loads((folder / "metrics.json").read_text())
            calibration = Calibration.from_json((folder / "calibration.json").read_text())
            table = pd.read_csv(folder / "operating.csv").set_index("target_far_per_hour")
            for asked in ASKED:
                found = table.loc[min(table.index, key=lambda rate: abs(rate - asked))]
                rows.append(
                    {
                        "data": dataset,
                        "system": model,
                        "asked_per_hour": asked,
                        "supported_per_hour": round(calibration.supported(asked), 2),
                        "observed_per_hour": round(float(found["false_alarms_per_hour"]), 2),
                        "normal_hours": round(metrics["normal_hours"], 2),
                        "detection_rate": round(float(found["detection_rate"]), 3),
                        "auc_micro": round(metrics["auc_micro"], 4),
                    }
                )
                print(rows[-1], flush=True)
    write_result(arguments.out, rows, params.profile)


if __name__ == "__main__":
    main()
