"""Render the HTML page from the loaded results."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from vadcore.evaluation.cost import TABLED
from vadcore.report import charts, sections
from vadcore.report import text as words
from vadcore.report.checkpoints import MEASURES, check_points
from vadcore.report.columns import COLUMNS, NONE, Column, best_text, duration, write
from vadcore.report.events import alarms
from vadcore.report.facts import phrases
from vadcore.report.kept_table import kept_table
from vadcore.report.load import System
from vadcore.report.published import NOTE, Published, known_data_set
from vadcore.report.raised import foremost
from vadcore.report.rollouts import rollouts
from vadcore.report.run import cell_name, place
from vadcore.report.side_by_side import side_by_side

TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    systems: dict[str, list[System]],
    run: dict,
    digest: str,
    params: dict | str,
    dataset_facts: dict[str, dict],
    published: tuple[Published, ...],
    title: str,
    asked: tuple[int, ...] | None = None,
    flow_pictures: dict[str, Path] | None = None,
    kept: Path | None = None,
) -> str:
    """Return the page as text. See :func:`vadcore.report.build_report` for the parameters.

    digest: digest of the results. The page ignores a run.js with another digest.
    """
    return _template().render(
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
        title=title,
        run=run,
        digest=digest,
        place=place,
        params=params if isinstance(params, str) else yaml.safe_dump(params, sort_keys=False, allow_unicode=True),
        terms=[
            *(column for column in COLUMNS if any(_has(group, column) for group in systems.values())),
            *(MEASURES if any(check_points(system) for group in systems.values() for system in group) else ()),
        ],
        datasets=[
            _dataset(number, name, group, dataset_facts.get(name, {}), published, asked)
            | {"flow": sections.flow(flow_pictures[name]) if flow_pictures and name in flow_pictures else None}
            | {"kept": kept_table(kept, known_data_set(name))}
            for number, (name, group) in enumerate(systems.items(), 1)
        ],
        models=[system.model for system in next(iter(systems.values()))],
        published_note=NOTE,
        missing=NONE,  # `none` is a constant of the template language
    )


@cache
def _template() -> Template:
    """Return the page's template, compiled once per process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2")


def _dataset(
    number: int,
    name: str,
    group: list[System],
    facts: dict,
    published: tuple[Published, ...],
    asked: tuple[int, ...] | None,
) -> dict:
    first = group[0]
    columns = [column for column in COLUMNS if _has(group, column)]
    known = known_data_set(name)
    styles = [f"s{index}" + ("" if system.row.get("trained", True) else " free") for index, system in enumerate(group)]
    curves = [
        (style, system.roc, system.row.get("threshold"))
        for style, system in zip(styles, group, strict=True)
        if system.roc is not None and len(system.roc)
    ]
    clips = sections.clips(number, group, styles)
    raised = foremost(clips)
    return {
        "id": f"d{number}",
        "name": name,
        "labelled": first.labelled,
        "masks": any(system.row.get("pixel_auc") is not None for system in group),
        "facts": phrases(facts),
        "summary": words.summary(group, raised["most"] if raised else None),
        "columns": columns,
        "groups": _groups(columns),
        "rows": _rows(group, columns, [entry for entry in published if known in entry.auc], known),
        "protocol": words.protocol(group),
        "systems": [
            {
                "style": style,
                "model": system.model,
                "trained": system.row.get("trained", True),
                "auc": write(system.row.get("auc_micro"), "percent"),
                "curve": any(style == drawn for drawn, _, _ in curves),
            }
            for style, system in zip(styles, group, strict=True)
        ],
        "roc": Markup(charts.roc(curves)) if curves else None,
        "known": known,
        "published": [
            (entry.system, entry.source, entry.protocol, entry.needs, f"{entry.auc[known]:.1f}")
            for entry in published
            if known in entry.auc
        ],
        "alarms": alarms(group, styles),
        "clips": clips,
        "foremost": raised,
        "worst": [{"model": system.model, "pictures": sections.worst(system)} for system in group if system.worst],
        "check_points": side_by_side(group, styles, asked),
        "rollouts": rollouts(group, styles),
        "training": [sections.training(system) for system in group],
    }


def _has(group: list[System], column: Column) -> bool:
    if column.unlabelled and group[0].labelled:
        return False
    return column.key in TABLED or any(system.row.get(column.key) is not None for system in group)


def _groups(columns: list[Column]) -> list[tuple[str, int]]:
    """Return the upper heading of the table: (title, number of columns below it)."""
    titles = [column.group for column in columns]
    return [(title, titles.count(title)) for title in dict.fromkeys(titles)]


def _rows(group: list[System], columns: list[Column], published: list[Published], known: str | None) -> list[dict]:
    best = {column.key: best_text([system.row.get(column.key) for system in group], column) for column in columns}
    made = [words.made(system.row) for system in group]
    rows = []
    for index, system in enumerate(group):
        cells = []
        for column in columns:
            value = system.row.get(column.key)
            text = write(value, column.kind)
            cells.append(
                {
                    "text": text,
                    "value": value,
                    "best": text == best[column.key],
                    "run": cell_name(system, column.key) if column.key in TABLED else None,
                    "notes": _cell_notes(system, column, published, known),
                }
            )
        how = [part for part in made[index] if part not in words.shared(made)]
        trained = system.row.get("trained", True)
        rows.append(
            {
                "model": system.model,
                "style": f"s{index}",
                "trained": trained,
                "how": " · ".join(how if trained else ["untrained", *how]),
                "cells": cells,
            }
        )
    return rows


def _cell_notes(system: System, column: Column, published: list[Published], known: str | None) -> list[str]:
    """Return the small lines below a figure."""
    row = system.row
    if column.key == "auc_micro_minmax":
        followed = next((entry for entry in published if entry.is_of(system.model)), None)
        return [f"published {followed.auc[known]:.1f}", *followed.source.split(", ")] if followed else []
    if column.key == "auc_macro" and row.get("macro_clips") is not None and row.get("auc_macro") is not None:
        return [f"{row['macro_clips']:.0f} clips"]
    if column.key == "detection_rate" and row.get("events_true"):
        return [f"{row['detected']:.0f} of {row['events_true']:.0f}"]
    notes = []
    if column.key == "false_alarms_per_hour" and row.get("normal_hours"):
        notes.append(f"{row['false_alarms']:.0f} in {duration(3600 * row['normal_hours'])}")
    asked = row.get("target_far_per_hour")
    if column.key in ("false_alarms_per_hour", "alarms_per_hour") and asked is not None:
        notes.append(f"asked {asked:g}" + ("‡" if row.get("threshold_extrapolated") else ""))
    return notes
