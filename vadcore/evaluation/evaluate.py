"""Build the score table from raw measures, and one row of results from the score table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

import numpy as np
import pandas as pd

from vadcore.config import AlarmRule
from vadcore.evaluation.calibration import Calibration
from vadcore.evaluation.events import Event, detection_metrics, find_events, smooth, times_of
from vadcore.evaluation.frame_metrics import frame_metrics
from vadcore.evaluation.pixel_metrics import localisation_metrics
from vadcore.utils.times import shown

EVENT_COLUMNS = ["clip", *(field.name for field in fields(Event)), "p_value", "start_seconds", "end_seconds"]
RANKING = ("auc_micro", "auc_micro_minmax", "auc_macro", "ap", "eer")  # metrics of how well a measure ranks frames


def score_table(
    measures: Mapping[str, Mapping[str, np.ndarray]],
    score: str,
    fps: Mapping[str, float],
    smoothing: float,
    calibration: Calibration,
    times: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Table with one row per frame: clip, frame, fps, score, p_value, and every raw measure.

    measures: clip -> measure -> ``[T]``. score: name of the measure that is the anomaly score. fps: clip -> frames per
    second. smoothing: sigma, in frame periods, of the Gaussian that smooths the score over time. Frames that no window
    scored have NaN. times: clip -> seconds of each frame ``[T]``, of clips whose frame k is not at ``k / fps``. If there are
    any, the table has a column ``seconds``.
    """
    times = times or {}
    tables = []
    for clip, raw in measures.items():
        values = smooth(raw[score].astype(np.float64), smoothing, fps[clip], times.get(clip))
        table = pd.DataFrame({"clip": clip, "frame": np.arange(len(values)), "fps": fps[clip], "score": values})
        if times:
            table["seconds"] = times.get(clip, table["frame"] / fps[clip])
        table["p_value"] = calibration.p_value(values)
        for name, column in raw.items():
            table[name] = column
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def measure_table(table: pd.DataFrame, measures: Iterable[str], smoothing: float) -> pd.DataFrame:
    """Frame-level metrics of every measure of a system, its score included: one row each, first column ``measure``.

    table: that of :func:`score_table`, with labels joined. smoothing: as there.
    """
    rows = []
    for name in measures:
        values = table.groupby("clip", sort=False)[name].transform(
            lambda of_clip: smooth(of_clip.to_numpy(), smoothing, *times_of(table.loc[of_clip.index]))
        )
        found = frame_metrics(table.assign(score=values))
        rows.append({"measure": name, **{key: found[key] for key in RANKING}})
    return pd.DataFrame(rows, columns=["measure", *RANKING])


def event_table(table: pd.DataFrame, calibration: Calibration, settings: AlarmRule | Calibration) -> pd.DataFrame:
    """Table of all events above the calibrated threshold: clip, frames, seconds, peak score and its p-value.

    table: that of :func:`score_table`. settings: ``merge_gap_s`` and ``min_event_s`` define an event.
    """
    rows = []
    for clip, frames in table.groupby("clip", sort=True):
        fps, seconds = times_of(frames)
        starts, stops = shown(len(frames), fps, seconds)
        rule = (fps, settings.merge_gap_s, settings.min_event_s, seconds)
        for event in find_events(frames["score"].to_numpy(), calibration.threshold, *rule):
            rows.append(
                {
                    "clip": clip,
                    **vars(event),
                    "p_value": float(calibration.p_value(event.peak_score)),
                    "start_seconds": round(starts[event.start_frame] / fps, 3),
                    "end_seconds": round(stops[event.end_frame] / fps, 3),
                }
            )
    return pd.DataFrame(rows, columns=EVENT_COLUMNS)


def result_row(
    table: pd.DataFrame,
    calibration: Calibration,
    settings: AlarmRule,
    maps: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
) -> dict[str, int | float | str | None]:
    """All metrics of one system on one data set, as a flat dictionary.

    table: that of :func:`score_table`, with labels joined. maps: clip -> error maps ``[T, h, w]``. masks: clip ->
    ground-truth masks ``[T, H, W]``; without masks there are no localisation metrics.
    """
    fps = table.groupby("clip")["fps"].first().to_dict()
    found = detection_metrics(table, calibration.threshold, fps, settings.merge_gap_s, settings.min_event_s)
    return {
        **frame_metrics(table),
        **(localisation_metrics({clip: maps[clip] for clip in masks}, masks) if masks else {}),
        **found,
        "threshold": calibration.threshold,
        "threshold_extrapolated": calibration.extrapolated,
        "target_far_per_hour": calibration.target_far_per_hour,
        "supported_rate": calibration.supported_rate,
        "footage_hours": calibration.footage_hours,
        "seen_hours": calibration.seen_hours,
        "calibration_drift": calibration.drift(table["score"].to_numpy()),
    }
