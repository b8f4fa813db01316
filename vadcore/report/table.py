"""The results table of a data set: its columns, rows and notes, and the figures above it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from vadcore.evaluation.cost import TABLED
from vadcore.report.load import System
from vadcore.report.text import duration, plural, significant, write


@dataclass(frozen=True)
class Column:
    """One figure in a row of metrics.json, or a cost of a system. The template terms.html.j2 explains each.

    better: whether the highest or the lowest figure is marked as the best. None: no figure is marked.
    """

    key: str
    group: str
    title: str
    kind: Literal["percent", "rate", "time", "speed", "count"]
    better: Literal["high", "low"] | None = None
    unlabelled: bool = False  # shown only for footage without labels


@dataclass(frozen=True)
class Cell:
    """A figure in a table. best: the best of its column. run: the cell of run.js. notes: small lines below."""

    text: str
    value: float | None
    best: bool = False
    run: str | None = None
    notes: list[str] = field(default_factory=list)


RANKING, PLACE, ALARM, COST = "Ranking of frames", "Place in the frame", "At the threshold", "Cost"

COLUMNS = (
    Column("auc_micro", RANKING, "AUC micro, raw", "percent", "high"),
    Column("auc_micro_minmax", RANKING, "micro, per-clip min-max", "percent", "high"),
    Column("auc_macro", RANKING, "macro", "percent", "high"),
    Column("ap", RANKING, "AP", "percent", "high"),
    Column("eer", RANKING, "EER", "percent", "low"),
    Column("pixel_auc", PLACE, "pixel AUC", "percent", "high"),
    Column("rbdc", PLACE, "RBDC", "percent", "high"),
    Column("tbdc", PLACE, "TBDC", "percent", "high"),
    # No best value is marked for these: each can be improved at the expense of another.
    Column("detection_rate", ALARM, "events found", "percent"),
    Column("alarm_precision", ALARM, "precision", "percent"),
    Column("detection_delay_seconds", ALARM, "delay (s)", "rate"),
    Column("false_alarms_per_hour", ALARM, "false alarms / h", "rate"),
    Column("normal_alarmed", ALARM, "normal time in alarm", "percent"),
    Column("alarms", ALARM, "alarms", "count", unlabelled=True),
    Column("alarms_per_hour", ALARM, "alarms / h", "rate", unlabelled=True),
    Column("score_fps", COST, "frames / s", "speed", "high"),
    Column("train_seconds", COST, "training", "time"),
    Column("parameters", COST, "parameters", "count"),
)


def columns_of(group: list[System]) -> list[Column]:
    """Return the columns that have figures, and those of costs, which the page reads from run.js."""
    return [
        column
        for column in COLUMNS
        if (column.key in TABLED or any(system.row.get(column.key) is not None for system in group))
        and not (column.unlabelled and group[0].labelled)
    ]


def results_table(group: list[System]) -> dict:
    """Return the columns, their upper headings as (title, number of columns), the rows and the settings in common.

    ``extrapolated``: whether any threshold is extrapolated.
    """
    columns = columns_of(group)
    titles = [column.group for column in columns]
    best = {column.key: best_text([system.row.get(column.key) for system in group], column) for column in columns}
    settings = [_settings(system.row) for system in group]
    common = [part for part in settings[0] if len(group) > 1 and all(part in other for other in settings)]
    rows = []
    for system, made in zip(group, settings, strict=True):
        cells = []
        for column in columns:
            value = system.row.get(column.key)
            text = write(value, column.kind)
            run = system.cell(column.key) if column.key in TABLED else None
            notes = _notes(system.row, column.key)
            cells.append(Cell(text, value, text == best[column.key], run, notes))
        own = [part for part in made if part not in common]
        rows.append({"system": system, "settings": own if system.trained else ["untrained", *own], "cells": cells})
    groups = [(title, titles.count(title)) for title in dict.fromkeys(titles)]
    extrapolated = any(system.row.get("threshold_extrapolated") for system in group)
    return {"columns": columns, "groups": groups, "rows": rows, "common": common, "extrapolated": extrapolated}


def best_text(values: list[float | None], column: Column) -> str | None:
    """Return the text of the best of ``values``, or None if no best is marked.

    Values are compared as printed: equal texts are all marked as best, and if all are equal none is marked.
    """
    there = [value for value in values if value is not None]
    if not column.better or len({write(value, column.kind) for value in there}) < 2:
        return None
    return write((max if column.better == "high" else min)(there), column.kind)


def _settings(row: dict) -> list[str]:
    """Return how the scores of a system were made, in short phrases."""
    phrases = []
    if row.get("score_measure"):
        phrases.append(f"score: {row['score_measure']}")
    if row.get("threshold") is not None:
        phrases.append(f"threshold {significant(row['threshold'])}")
    if sigma := row.get("smoothing_frames"):
        phrases.append(f"smoothed over time with sigma {sigma:g} frames")
    else:
        phrases.append("not smoothed over time")
    if row.get("seed") is not None:
        phrases.append(f"seed {row['seed']}")
    return phrases


def _notes(row: dict, key: str) -> list[str]:
    """Return the small lines below a figure."""
    if key == "auc_macro" and row.get("macro_clips") is not None and row.get("auc_macro") is not None:
        return [f"{row['macro_clips']:.0f} clips"]
    if key == "detection_rate" and row.get("events_true"):
        return [f"{row['detected']:.0f} of {row['events_true']:.0f}"]
    notes = []
    if key == "false_alarms_per_hour" and row.get("normal_hours"):
        notes.append(f"{row['false_alarms']:.0f} in {duration(3600 * row['normal_hours'])}")
    target = row.get("target_far_per_hour")
    if key in ("false_alarms_per_hour", "alarms_per_hour") and target is not None:
        notes.append(f"target {target:g}" + ("‡" if row.get("threshold_extrapolated") else ""))
    return notes


def highlights(group: list[System], agreed: dict | None) -> dict[str, str]:
    """Return the main figures of a data set by name.

    agreed: the alarm on which most systems agree, as in :func:`vadcore.report.events.foremost`. Shown where frames
    cannot be ranked.
    """
    ranked = [system for system in group if system.row.get("auc_micro") is not None]
    if not ranked:
        return _alarms(group, agreed)
    found = {}
    for name, systems in (
        ("best micro AUC, trained", [system for system in ranked if system.trained]),
        ("best micro AUC, untrained", [system for system in ranked if not system.trained]),
    ):
        if systems:
            best = max(systems, key=lambda system: system.row["auc_micro"])
            found[name] = f"{best.model} {100 * best.row['auc_micro']:.1f} %"
    keys = ("detection_rate", "false_alarms_per_hour", "target_far_per_hour")
    known = [system for system in ranked if all(system.row.get(key) is not None for key in keys)]
    if known:
        target = known[0].row["target_far_per_hour"]
        found[f"most events found, with at most {target:g} false alarms an hour"] = _most_found(known)
    return found


def _most_found(group: list[System]) -> str:
    """Describe the alarms of the system that finds the most events and keeps to the target false-alarm rate."""
    kept = [system.row | {"model": system.model} for system in group if _keeps_to_target(system.row)]
    if not kept:
        return "no system keeps to this rate"
    row = max(kept, key=lambda row: (row["detected"], -row["false_alarms"]))
    delay = row.get("detection_delay_seconds")
    after = f" after {delay:.1f} s" if delay is not None else ""
    alarms = f"{plural(round(row['false_alarms']), 'false alarm')} in {duration(3600 * row['normal_hours'])}"
    return f"{row['model']} {row['detected']:.0f} of {row['events_true']:.0f}{after}, {alarms}"


def _keeps_to_target(row: dict) -> bool:
    """Compare counts, rounded up, because a rate means little for a minute of footage."""
    return row["false_alarms"] <= math.ceil(row["target_far_per_hour"] * row["normal_hours"] - 1e-9)


def _alarms(group: list[System], agreed: dict | None) -> dict[str, str]:
    """Return the number of alarms, their clips and where most systems agree."""
    counts = [len(system.events) for system in group]
    if not any(counts):
        return {"alarms": "none"}
    each = _range(f"{number:,}" for number in (min(counts), max(counts)))
    clips = set().union(*(system.events["clip"] for system in group))
    found = {
        "alarms": each + (f" from each of {len(group)} systems" if len(group) > 1 else ""),
        "clips with alarms": f"{len(clips)} of {group[0].frames['clip'].nunique()}",
    }
    if agreed and agreed["agree"] > 1:
        found["most systems in alarm"] = (
            f"{agreed['agree']} of {len(group)}, clip {agreed['clip']}, {agreed['start']:.1f}–{agreed['end']:.1f} s"
        )
    return found


def evaluation_facts(group: list[System]) -> dict[str, str]:
    """Return how the figures of the table were made, by name: labels, amounts of footage, target rate."""
    rows = [system.row for system in group]
    facts = {}
    if group[0].labelled and rows[0].get("label_set"):
        facts["label set"] = rows[0]["label_set"]
    if scored := _known(rows, "frames_scored"):
        facts["test frames scored"] = _range(f"{number:,.0f}" for number in (min(scored), max(scored)))
    if group[0].labelled and (abnormal := _known(rows, "frames_abnormal")):
        facts["abnormal frames"] = f"{abnormal[0]:,.0f} of {group[0].frames['label'].notna().sum():,} labelled"
    if targets := _known(rows, "target_far_per_hour"):
        facts["target of the threshold"] = f"{targets[0]:g} false alarms an hour"
    if hours := _known(rows, "footage_hours"):
        facts["normal footage that training did not see"] = _range(
            duration(3600 * amount) for amount in (min(hours), max(hours))
        )
    return facts


def _range(ends: Iterable[str]) -> str:
    """Format the lowest and the highest figure of several systems; one figure if they are equal."""
    return " to ".join(dict.fromkeys(ends))


def _known(rows: Iterable[dict], key: str) -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]
