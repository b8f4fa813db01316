"""What alarms would be like at other thresholds: one line for each rate of false alarms that a person might ask for.

Every threshold is what calibration on held-out normal footage gives for the asked rate, so the lines answer two questions:
is the rate that one gets on test footage the one that was asked for, and what does a lower rate cost in events missed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vadcore.config import Calibrate
from vadcore.evaluation.calibration import Calibration
from vadcore.evaluation.events import detection_metrics

RATES = tuple(step * 10**power for power in range(4) for step in (1, 1.5, 2, 3, 5, 7))  # an hour, 1 to 7,000 at most


def operating_points(table: pd.DataFrame, calibration: Calibration, settings: Calibrate) -> pd.DataFrame:
    """One row a rate, rising, up to that of the most alarms that the held-out footage has at any threshold.

    ``table`` is that of :func:`vadcore.evaluation.evaluate.score_table` with labels joined.
    Columns: ``target_far_per_hour``; ``threshold`` and ``extrapolated`` as calibration says; ``chosen``: the rate of
    ``settings``; ``alarms``, ``alarm_precision``, ``detection_rate``, ``detection_delay_seconds``,
    ``false_alarms_per_hour`` and ``normal_alarmed`` of :func:`~vadcore.evaluation.events.detection_metrics`, NaN
    where a figure is undefined.
    """
    reached = [rate for rate in RATES if rate <= calibration.highest_rate * (1 + 1e-9)]
    asked = sorted({*reached, settings.target_far_per_hour})
    fps = table.groupby("clip")["fps"].first().to_dict()
    rows = []
    for rate in asked:
        threshold = calibration.threshold_at(rate)
        found = detection_metrics(table, threshold, fps, settings.merge_gap_s, settings.min_event_s)
        rows.append(
            {
                "target_far_per_hour": rate,
                "threshold": threshold,
                "extrapolated": rate < calibration.resolvable_rate * (1 - 1e-9),
                "chosen": rate == settings.target_far_per_hour,
                "alarms": found["alarms"],
                **{key: np.nan if found[key] is None else found[key] for key in FIGURES},
            }
        )
    return pd.DataFrame(rows)


FIGURES = ("alarm_precision", "detection_rate", "detection_delay_seconds", "false_alarms_per_hour", "normal_alarmed")
