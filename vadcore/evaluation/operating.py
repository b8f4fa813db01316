"""Operating points: alarms at the thresholds for a range of target false-alarm rates.

Each threshold comes from the calibration on held-out normal clips. The table therefore shows whether the false-alarm rate
on test footage matches the target rate, and how many events are missed at lower rates.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vadcore.config import AlarmRule
from vadcore.evaluation.calibration import Calibration
from vadcore.evaluation.events import detection_metrics

RATES = tuple(step * 10**power for power in range(4) for step in (1, 1.5, 2, 3, 5, 7))  # per hour, 1 to 7,000
FIGURES = ("alarm_precision", "detection_rate", "detection_delay_seconds", "false_alarms_per_hour", "normal_alarmed")


def operating_points(table: pd.DataFrame, calibration: Calibration, settings: AlarmRule) -> pd.DataFrame:
    """Table with one row per target false-alarm rate, ascending, up to ``calibration.highest_rate``.

    table: that of :func:`vadcore.evaluation.evaluate.score_table`, with labels joined. settings: the target rate in
    use, which always has a row, and the definition of an event.

    Columns: ``target_far_per_hour``; ``threshold`` and ``extrapolated`` from the calibration; ``chosen``: whether this
    is the rate of ``settings``; ``alarms``, ``alarm_precision``, ``detection_rate``, ``detection_delay_seconds``,
    ``false_alarms_per_hour`` and ``normal_alarmed`` from
    :func:`~vadcore.evaluation.events.detection_metrics`, NaN if undefined.
    """
    reached = [rate for rate in RATES if rate <= calibration.highest_rate * (1 + 1e-9)]
    asked = sorted({*reached, settings.target_far_per_hour})
    fps = table.groupby("clip")["fps"].first().to_dict()
    rows = []
    for rate in asked:
        at_rate = calibration.at_rate(rate)
        found = detection_metrics(table, at_rate.threshold, fps, settings.merge_gap_s, settings.min_event_s)
        rows.append(
            {
                "target_far_per_hour": rate,
                "threshold": at_rate.threshold,
                "extrapolated": at_rate.extrapolated,
                "chosen": rate == settings.target_far_per_hour,
                "alarms": found["alarms"],
                **{key: np.nan if found[key] is None else found[key] for key in FIGURES},
            }
        )
    return pd.DataFrame(rows)
