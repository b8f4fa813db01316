"""Curves of a system as MLflow metrics with steps, so that MLflow overlays them when runs are compared."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

ALARMS = {  # figure of operating.csv -> metric
    "detection_rate": "alarms/events_found",
    "alarm_precision": "alarms/precision",
    "detection_delay_seconds": "alarms/delay_seconds",
    "false_alarms_per_hour": "alarms/false_an_hour",
}


def curves(roc: pd.DataFrame, operating: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield ``(step, metrics)``; undefined values are left out.

    ``roc/abnormal_found``: the share of abnormal frames found by the threshold that flags at most ``step`` percent of the
    normal frames. ``alarms/...``: a figure at the threshold set for ``step`` false alarms per hour; rates that are not
    integers are left out.

    Parameters
    ----------
    roc: columns fpr, tpr, threshold; empty, or NaN, without frames of both classes.
    operating: result of :func:`vadcore.evaluation.operating.operating_points`.
    """
    roc = roc.dropna(subset=["fpr", "tpr"])
    for percent in range(101) if len(roc) else ():
        yield percent, {"roc/abnormal_found": float(roc.loc[roc["fpr"] <= percent / 100 + 1e-12, "tpr"].max())}
    for row in operating.to_dict("records"):
        figures = {metric: float(row[name]) for name, metric in ALARMS.items() if pd.notna(row[name])}
        if figures and float(row["target_far_per_hour"]).is_integer():
            yield int(row["target_far_per_hour"]), figures
