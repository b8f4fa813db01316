"""Table of the committed benchmark results, shown on a page about the same published data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean

from vadcore.evaluation.cost import TABLED
from vadcore.report.columns import ALARM, COLUMNS, NONE, Column, duration, write
from vadcore.report.kept import counted_by_the_present_rule, label_set, origin, read_kept, seeds
from vadcore.report.published import followed, known_data_set
from vadcore.report.repetitions import repetitions, spread

SHOWN = (
    *("auc_micro", "auc_micro_minmax", "auc_macro", "ap", "eer", "pixel_auc", "rbdc", "tbdc"),
    *("detection_rate", "false_alarms_per_hour", "normal_alarmed", *TABLED, "parameters"),
)


def kept_table(folder: Path | None, known: str | None) -> dict | None:
    """Return the table of the committed results on ``known``, and how each run was made.

    Each file of ``folder`` gives one row per system; its seeds are combined. None if ``known`` is not a published data
    set or has no committed results. Raises :class:`VadError` for an unreadable file, or for a file with two label sets
    for one data set.
    """
    paths = Path(folder).glob("*.json") if folder and known else ()
    groups, origins = [], []
    for path in sorted(paths, key=lambda path: (not path.stem.startswith(known), path)):
        of_file = _of_file(path, known)
        groups += of_file[0]
        origins += of_file[1]
    if not groups:
        return None
    judged_by = {_labels(group) for *_, group in groups}
    if len(judged_by) > 1:  # results with different label sets cannot be compared
        groups = [(f"{how}; labels: {_labels(group)}", name, group) for how, name, group in groups]
    columns = [column for column in COLUMNS if column.key in SHOWN and any(_there(g, column) for *_, g in groups)]
    return {
        "columns": columns,
        "seeds": any(len(group) > 1 for *_, group in groups),
        "rows": [
            {
                "model": name,
                "how": how,
                "seeds": len(group),
                "cells": [_cell(name, group, column, known) for column in columns],
            }
            for how, name, group in groups
        ],
        "origins": origins,
    }


def _of_file(path: Path, known: str) -> tuple[list[tuple[str, str, list[dict]]], list[dict[str, str]]]:
    """Return (name of the file, system, rows) for every system on the data set, and how each run was made."""
    groups, origins = [], []
    runs = [(run, [row for row in rows if _is_of(row, known)]) for run, rows in read_kept(path)]
    rows = [{"of": number, **row} for number, (_, of_run) in enumerate(runs) for row in of_run]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of_set = [row for row in rows if row["dataset"] == dataset]
        kept_as = path.stem + (f", {dataset}" if dataset != known else "")
        label_set(of_set, path)  # raises if there is more than one label set
        groups += [(kept_as, name, group) for name, group in repetitions(of_set).items()]
        for number, (run, _) in enumerate(runs):
            if own := [row for row in of_set if row["of"] == number]:
                systems = ", ".join(row["model"] for row in own) if len(own) < len(of_set) else ""
                said = {"name": kept_as, "systems": systems, "labels": _labels(of_set), "seeds": seeds(own)}
                origins.append(said | origin(run))
    return groups, origins


def _labels(rows: list[dict]) -> str:
    """Return the label set of the rows of one file on one data set."""
    return rows[0]["label_set"] or "none"


def _is_of(row: dict, known: str) -> bool:
    return {"dataset", "model", "auc_micro"} <= set(row) and known_data_set(row["dataset"]) == known


def _cell(model: str, group: list[dict], column: Column, known: str) -> dict:
    values = _values(group, column)
    there = [value for value in values if value is not None]
    beside = followed(known, model) if column.key == "auc_micro_minmax" else []
    return {
        "text": spread(values, _writer(column, there)) or NONE,
        "value": mean(there) if there else None,
        "notes": [f"published {entry.auc[known]:.1f}%" for entry in beside],
    }


def _writer(column: Column, values: list[float]) -> Callable[[float], str]:
    """Return the formatter of one cell, so that mean and deviation have the same unit."""
    if column.kind == "percent":
        return "{:.1%}".format
    if column.kind == "time":
        return duration if not values or mean(values) < 90 else lambda seconds: f"{seconds / 60:.1f} min"
    return lambda value: write(value, column.kind)


def _values(group: list[dict], column: Column) -> list[float | None]:
    """Return a system's figures, one per seed. Costs come from one run only, because machines differ."""
    if column.key in TABLED:
        group = [row for row in group if row["of"] == group[0]["of"]]
    of_events = column.group == ALARM
    return [row.get(column.key) if counted_by_the_present_rule(row) or not of_events else None for row in group]


def _there(group: list[dict], column: Column) -> bool:
    return any(value is not None for value in _values(group, column))
