"""The curves of a system as stepped metrics, compared with values computed by hand."""

import numpy as np
import pandas as pd

from tasks.scoring.curves import curves

OPERATING = pd.DataFrame(
    {
        "target_far_per_hour": [1.0, 1.5, 20.0],
        "detection_rate": [0.25, 0.5, 1.0],
        "alarm_precision": [np.nan, 1.0, 0.5],
        "detection_delay_seconds": [np.nan, 2.0, 0.7],
        "false_alarms_per_hour": [0.0, 0.0, 31.5],
    }
)
NO_CURVE = pd.DataFrame({"fpr": [], "tpr": [], "threshold": []})


def test_roc_curve():
    roc = pd.DataFrame({"fpr": [0, 0, 0.29, 0.295, 1], "tpr": [0, 0.4, 0.6, 0.8, 1], "threshold": [9, 4, 3, 2, 1]})
    found = dict(curves(roc, OPERATING.iloc[:0]))
    assert list(found) == list(range(101))
    read = {percent: found[percent]["roc/abnormal_found"] for percent in (0, 28, 29, 30, 99, 100)}
    assert read == {0: 0.4, 28: 0.4, 29: 0.6, 30: 0.8, 99: 0.8, 100: 1.0}


def test_alarm_curve():
    assert list(curves(NO_CURVE, OPERATING)) == [
        (1, {"alarms/events_found": 0.25, "alarms/false_an_hour": 0.0}),
        (
            20,
            {
                "alarms/events_found": 1.0,
                "alarms/precision": 0.5,
                "alarms/delay_seconds": 0.7,
                "alarms/false_an_hour": 31.5,
            },
        ),
    ]


def test_no_curve_without_labels():
    nothing = OPERATING.assign(**dict.fromkeys(OPERATING.columns[1:], np.nan))
    assert list(curves(NO_CURVE, nothing)) == []
