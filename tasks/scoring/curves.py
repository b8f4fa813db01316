"""A system's curves as metrics with steps, as MLflow draws them: one below the other where runs are compared."""

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
    """(step, metrics), what is undefined left out.

    ``roc/abnormal_found``: the share of abnormal frames found by the threshold that flags at most ``step`` percent of the
    normal ones. ``alarms/...``: a figure at the threshold that is set for ``step`` false alarms an hour; rates that are no
    whole number have no step.

    Parameters
    ----------
    roc: fpr, tpr, threshold; empty, or NaN, without frames of both classes.
    operating: what :func:`vadcore.evaluation.operating.operating_points` gives.
    """
    roc = roc.dropna(subset=["fpr", "tpr"])
    for percent in range(101) if len(roc) else ():
        yield percent, {"roc/abnormal_found": float(roc.loc[roc["fpr"] <= percent / 100 + 1e-12, "tpr"].max())}
    for row in operating.to_dict("records"):
        figures = {metric: float(row[name]) for name, metric in ALARMS.items() if pd.notna(row[name])}
        if figures and float(row["target_far_per_hour"]).is_integer():
            yield int(row["target_far_per_hour"]), figures
