"""Render the HTML page from the loaded results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vadcore.report import charts, events, text
from vadcore.report.checkpoints import MEASURES, check_points, side_by_side
from vadcore.report.load import System, load_flow_pictures, plain
from vadcore.report.media import film, first_and_last, picture, snapshots
from vadcore.report.rollouts import rollouts
from vadcore.report.table import columns_of, evaluation_facts, highlights, results_table

TEMPLATES = Path(__file__).parent / "templates"
WORST_FRAMES = 6  # pictures per system
NO_LOSSES = {"val", "step", *(measure.key for measure in MEASURES)}  # columns of history.csv that are not losses
LOSS_STYLES = 6  # number of their styles: .l0 to .l5 of style.css


def render_page(
    groups: dict[str, list[System]],
    run: dict,
    digest: str,
    params: dict | str,
    dataset_facts: dict[str, dict],
    title: str,
    wanted: tuple[int, ...] | None = None,
    flow_pictures: Mapping[str, Path] = MappingProxyType({}),
) -> str:
    """Return the page as text. See :func:`vadcore.report.build_report` for the parameters.

    groups: the systems of each data set. digest: digest of the results; the page ignores a run.js with another digest.
    """
    systems = [system for group in groups.values() for system in group]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
            title=title,
            run=run,
            digest=digest,
            params=params if isinstance(params, str) else yaml.safe_dump(params, sort_keys=False, allow_unicode=True),
            terms={column.key: column.title for group in groups.values() for column in columns_of(group)}
            | {measure.key: measure.title for measure in MEASURES if any(map(check_points, systems))},
            datasets=[
                _dataset(f"d{number}", name, group, dataset_facts.get(name, {}), wanted)
                | {"flow": load_flow_pictures(flow_pictures[name]) if name in flow_pictures else None}
                for number, (name, group) in enumerate(groups.items(), 1)
            ],
            models=[system.model for system in next(iter(groups.values()))],
        )
    )


@cache
def _environment() -> Environment:
    """Return the templates, compiled once per process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    for function in (text.write, text.duration, text.count, text.significant, text.plural, picture):
        environment.filters[function.__name__] = function
    environment.globals["missing"] = text.NONE  # `none` is a constant of the template language
    return environment


def _dataset(id: str, name: str, group: list[System], facts: dict, wanted: tuple[int, ...] | None) -> dict:
    """Return the content of the section of one data set. ``id``: of its element on the page."""
    clips = _clips(id, group)
    raised = events.foremost(clips)
    return {
        "id": id,
        "name": name,
        "systems": group,
        "labelled": group[0].labelled,
        "ranked": any(system.row.get("auc_micro") is not None for system in group),
        "footage": text.footage_facts(facts),
        "highlights": highlights(group, raised["agreed"] if raised else None),
        "results": results_table(group),
        "evaluation": evaluation_facts(group),
        "drift": _drift(group),
        "roc": charts.roc(group),
        "alarms": events.operating_curves(group),
        "clips": clips,
        "raised": raised,
        "worst": [(system, system.worst[:WORST_FRAMES]) for system in group if system.worst],
        "masks": any(system.row.get("pixel_auc") is not None for system in group),
        "check_points": side_by_side(group, wanted),
        "rollouts": rollouts(group),
        "training": [_training(system) for system in group],
    }


def _drift(group: list[System]) -> dict[str, list[str]]:
    """Systems whose calibration does not fit the test footage, by the direction of its scores: higher or lower."""
    found = {
        direction: [system.model for system in group if system.row.get("calibration_drift") == direction]
        for direction in ("higher", "lower")
    }
    return {direction: names for direction, names in found.items() if names}


def _clips(dataset_id: str, group: list[System]) -> list[dict]:
    """Return every clip with one chart per system. A system has the same score axis in all clips."""
    every = charts.frames_per_score(len(group) * len(group[0].frames))
    scales = [charts.score_range(system.frames["score"], system.threshold) for system in group]
    frames = [dict(list(system.frames.groupby("clip", sort=False))) for system in group]
    raised = [dict(list(system.events.groupby("clip", sort=False))) for system in group]
    clips = []
    for number, (name, own) in enumerate(frames[0].items(), 1):
        scored = [of_clip[name] for of_clip in frames]
        found = [of_clip.get(name, system.events.iloc[:0]) for system, of_clip in zip(group, raised, strict=True)]
        matches = [events.match_labels(*both) for both in zip(scored, found, strict=True)]
        lanes = [
            (system, charts.timeline(part, alarms, system.threshold, *scale, every), plain(float(part["score"].max())))
            for system, part, alarms, scale in zip(group, scored, found, scales, strict=True)
        ]
        alarms, missed = events.alarms_of(group, found, matches), events.missed(group, matches, own)
        clips.append(
            {
                "id": f"{dataset_id}c{number}",
                "name": name,
                "frames": own["frame"].tolist(),
                "fps": float(own["fps"].iloc[0]),
                "duration": charts.duration(own),
                "times": charts.pack_times(own, every),
                "every": every,
                "abnormal": bool((own["label"] == 1).any()),
                "truth": text.truth(own),
                "unlabelled": text.unlabelled(own),
                "lanes": lanes,
                "pictures": snapshots(f"{dataset_id}c{number}", name, group),
                "alarms": alarms,
                "listed": events.listed(alarms),
                "missed": missed,
                "missed_listed": missed[: events.MOST_LISTED],
            }
        )
    return clips


def _training(system: System) -> dict:
    """Return the losses, sample pictures and the histogram of the scores of a system."""
    samples = first_and_last(system.samples)
    # The animations of systems with picture quality are in the section of check points.
    moving = film(system.samples[-1].with_suffix(".webp")) if samples and check_points(system) is None else None
    return {
        "system": system,
        "measures": [measure for measure in MEASURES if system.training.get(measure.key) is not None],
        "losses": loss_charts(system),
        "samples": [(path.stem.rpartition("-")[0], int(path.stem.rpartition("-")[2]), path) for path in samples],
        "film": moving,
        "histogram": charts.histogram(system),
    }


def loss_charts(system: System) -> list[tuple[str, dict]]:
    """Return the name of each training phase and a chart of every loss, and of the loss on held-out normal clips.

    The overall iteration counter and the picture quality measures are left out, because they are not losses. ``best`` is
    the iteration whose weights were kept, or None.
    """
    if system.history is None or system.history.empty:
        return []
    found = []
    for phase, part in system.history.groupby("phase", sort=False):
        part = part.set_index("iteration").drop(columns="phase").dropna(axis="columns", how="all")
        losses = [name for name in part.columns if name not in NO_LOSSES]
        curves = [charts.Curve(f"l{index % LOSS_STYLES}", name, part[name]) for index, name in enumerate(losses)]
        if "val" in part:
            curves.append(charts.Curve("held-out", "held-out normal clips", part["val"]))
        if curves:
            best = system.training.get("best_iteration") if phase == _selecting_phase(system.history) else None
            found.append((str(phase), charts.lines(curves, best, may_be_logarithmic=True) | {"best": best}))
    return found


def _selecting_phase(history: pd.DataFrame) -> str | None:
    """Return the last phase with a validation loss. Iterations restart in each phase; best_iteration belongs to this one."""
    measured = history.loc[history["val"].notna(), "phase"] if "val" in history else history["phase"].iloc[:0]
    return None if measured.empty else measured.iloc[-1]
