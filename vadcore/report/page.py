"""From loaded results to the page: what is said about them, and in which words."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vadcore.errors import VadError
from vadcore.render import encode
from vadcore.report import charts
from vadcore.report.columns import COLUMNS, NONE, Column, count, duration, significant, write
from vadcore.report.load import System
from vadcore.report.published import NOTE, Published, known_data_set

WORST_SHOWN = 6  # pictures a system
SAMPLES_SHOWN = 4  # check points a system, spread evenly, first and last among them
PICTURE_WIDTH = 1200  # pixels; wider ones are reduced
QUALITY = 80  # of WebP, 0..100
TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    systems: dict[str, list[System]],
    run: dict,
    params: dict | str,
    dataset_facts: dict[str, dict],
    published: tuple[Published, ...],
    title: str,
) -> str:
    """The page as text. See :func:`vadcore.report.build_report`."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
        title=title,
        run=run,
        params=params if isinstance(params, str) else yaml.safe_dump(params, sort_keys=False, allow_unicode=True),
        terms=[column for column in COLUMNS if any(_has(group, column) for group in systems.values())],
        datasets=[
            _dataset(number, name, group, dataset_facts.get(name, {}), published)
            for number, (name, group) in enumerate(systems.items(), 1)
        ],
        models=[system.model for system in next(iter(systems.values()))],
        published_note=NOTE,
        none=NONE,
    )


def _dataset(number: int, name: str, group: list[System], facts: dict, published: tuple[Published, ...]) -> dict:
    first = group[0]
    columns = [column for column in COLUMNS if _has(group, column)]
    known = known_data_set(name)
    styles = [f"s{index}" + ("" if system.row.get("trained", True) else " free") for index, system in enumerate(group)]
    curves = [
        (style, system.roc, system.row.get("threshold"))
        for style, system in zip(styles, group, strict=True)
        if system.roc is not None and len(system.roc)
    ]
    return {
        "id": f"d{number}",
        "name": name,
        "labelled": first.labelled,
        "masks": any(system.row.get("pixel_auc") is not None for system in group),
        "facts": [(key.replace("_", " "), _fact(value)) for key, value in facts.items()],
        "summary": _summary(group),
        "columns": columns,
        "groups": _groups(columns),
        "rows": _rows(group, columns),
        "protocol": _protocol(group),
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
            (entry.system, entry.source, entry.needs, f"{entry.auc[known]:.1f}")
            for entry in published
            if known in entry.auc
        ],
        "clips": _clips(number, group, styles),
        "worst": [
            {"model": system.model, "pictures": [_worst(system, entry) for entry in system.worst[:WORST_SHOWN]]}
            for system in group
            if system.worst
        ],
        "training": [_training(system) for system in group],
    }


def _has(group: list[System], column: Column) -> bool:
    return any(system.row.get(column.key) is not None for system in group)


def _fact(value) -> str:
    """A fact of the footage as text; dicts and lists become short phrases."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return " × ".join(_fact(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None else str(value)


def _groups(columns: list[Column]) -> list[tuple[str, int]]:
    """The table's upper heading: (title, columns below it)."""
    titles = [column.group for column in columns]
    return [(title, titles.count(title)) for title in dict.fromkeys(titles)]


def _rows(group: list[System], columns: list[Column]) -> list[dict]:
    best = {}
    for column in columns:
        values = [system.row[column.key] for system in group if system.row.get(column.key) is not None]
        # Told apart by what is printed: two equal figures are both the best, and where all are equal none is.
        if column.better and len({write(value, column.kind) for value in values}) > 1:
            best[column.key] = write((max if column.better == "high" else min)(values), column.kind)
    made = [_made(system.row) for system in group]
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
                    "best": text == best.get(column.key),
                    "note": _cell_note(system.row, column),
                }
            )
        how = [part for part in made[index] if part not in _shared(made)]
        trained = system.row.get("trained", True)
        rows.append(
            {
                "model": system.model,
                "style": f"s{index}",
                "trained": system.row.get("trained", True),
                "how": " · ".join(how if trained else ["nothing learned", *how]),
                "cells": cells,
            }
        )
    return rows


def _made(row: dict) -> list[str]:
    """How a system's scores came about, in short phrases."""
    smoothing, threshold = row.get("smoothing_frames"), row.get("threshold")
    parts = [
        f"score: {row['score_measure']}" if row.get("score_measure") else None,
        f"threshold {significant(threshold)}" if threshold is not None else None,
        f"smoothed over time with sigma {smoothing:g} frames" if smoothing else "not smoothed over time",
        f"seed {row['seed']}" if row.get("seed") is not None else None,
    ]
    return [part for part in parts if part is not None]


def _shared(made: list[list[str]]) -> list[str]:
    """What all of several systems have in common; with a single one nothing, so that it stands beside it."""
    return [part for part in made[0] if len(made) > 1 and all(part in other for other in made)]


def _cell_note(row: dict, column: Column) -> str:
    if column.key == "auc_macro" and row.get("macro_clips") is not None and row.get("auc_macro") is not None:
        return f"{row['macro_clips']:.0f} clips"
    if column.key == "false_alarms_per_hour" and row.get("false_alarms_per_hour_asked") is not None:
        return f"asked {row['false_alarms_per_hour_asked']:g}" + ("‡" if row.get("threshold_extrapolated") else "")
    return ""


def _summary(group: list[System]) -> str:
    """What the table says, in one or two sentences; no more than the figures bear."""
    if not group[0].labelled:
        return (
            "This footage has no labels, so nothing can be said about how good the systems are. The curves show their "
            "scores and where each of them raises an alarm."
        )
    judged = [system for system in group if system.row.get("auc_micro") is not None]
    trained = [system for system in judged if system.row.get("trained", True)]
    free = [system for system in judged if not system.row.get("trained", True)]
    if not judged:
        return "The labels hold only one class, so frames cannot be ranked against them."
    best = max(trained or free, key=lambda system: system.row["auc_micro"])
    auc = best.row["auc_micro"]
    among = " of the trained systems" if trained and free else ""
    text = f"{best.model} ranks the frames best{among}: raw micro AUC {100 * auc:.1f} %"
    if trained and free:
        rival = max(free, key=lambda system: system.row["auc_micro"])
        gap = 100 * (auc - rival.row["auc_micro"])
        side = f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}" if f"{abs(gap):.1f}" != "0.0" else "level with"
        text += f", {side} {rival.model}, which learns nothing"
    text += ". "
    rate, alarms = best.row.get("detection_rate"), best.row.get("false_alarms_per_hour")
    if rate is not None and alarms is not None:
        text += f"At the threshold set on normal footage alone it finds {100 * rate:.0f} % of the events"
        delay = best.row.get("detection_delay_seconds")
        text += f" after {delay:.1f} s" if delay is not None else ""
        text += f", with {write(alarms, 'rate')} false alarms an hour"
        asked = best.row.get("false_alarms_per_hour_asked")
        text += f" ({asked:g} asked for)." if asked is not None else "."
    return text.strip()


def _protocol(group: list[System]) -> list[str]:
    """How the figures of a table were made; each line is a sentence."""
    rows = [system.row for system in group]
    row = rows[0]
    lines = []
    if not group[0].labelled:
        lines.append("No labels: AUC and the like do not exist for this footage.")
    elif row.get("label_set"):
        lines.append(f"Label set: {row['label_set']}.")
    shared = _shared([_made(entry) for entry in rows])
    if shared:
        lines.append(f"All systems: {', '.join(shared)}.")
    if row.get("frames_scored") is not None:
        least, most = (
            pick(entry["frames_scored"] for entry in rows if entry.get("frames_scored") is not None)
            for pick in (min, max)
        )
        judged = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        text = f"{judged} test frames judged"
        if any(entry.get("frames_unscored") for entry in rows):
            text += "; a frame that a model’s window cannot judge has no score and counts in none of its metrics"
        lines.append(text + ".")
    if row.get("frames_abnormal") is not None and group[0].labelled:
        total = int(group[0].frames["label"].notna().sum())
        lines.append(f"{row['frames_abnormal']:,} of {total:,} labelled frames are abnormal.")
    if row.get("footage_hours") is not None:
        asked = row.get("false_alarms_per_hour_asked")
        lines.append(
            f"Thresholds are set{f' for {asked:g} false alarms an hour' if asked is not None else ''} on "
            f"{duration(3600 * row['footage_hours'])} of normal training footage that training did not see; nothing of "
            "the test footage is used for training, selection or thresholds."
        )
    if any(entry.get("threshold_extrapolated") for entry in rows):
        lines.append(
            f"{'‡ ' if group[0].labelled else ''}That rate is rarer than so little footage can show: the threshold is "
            "extrapolated from the tail of the normal scores."
        )
    return lines


def _clips(number: int, group: list[System], styles: list[str]) -> list[dict]:
    scales = [charts.score_range(system.frames["score"].to_numpy(), system.row.get("threshold")) for system in group]
    frames = [dict(list(system.frames.groupby("clip", sort=False))) for system in group]
    events = [dict(list(system.events.groupby("clip", sort=False))) for system in group]
    clips = []
    for index, (name, own) in enumerate(frames[0].items(), 1):
        lanes = []
        for position, system in enumerate(group):
            part, alarms = frames[position][name], events[position].get(name, system.events.iloc[:0])
            peak = part["score"].max()
            lanes.append(
                {
                    "style": styles[position],
                    "model": system.model,
                    "svg": Markup(charts.timeline(part, alarms, system.row.get("threshold"), *scales[position])),
                    "peak": "no score" if pd.isna(peak) else f"max {significant(float(peak))}",
                    "alarms": len(alarms),
                }
            )
        fps = float(own["fps"].iloc[0])
        clips.append(
            {
                "id": f"d{number}c{index}",
                "name": name,
                "frames": len(own),
                "first": int(own["frame"].iloc[0]),
                "last": int(own["frame"].iloc[-1]),
                "fps": f"{fps:g}",
                "seconds": f"{len(own) / fps:.1f} s",
                "abnormal": bool((own["label"] == 1).any()),
                "truth": _truth(own),
                "lanes": lanes,
            }
        )
    return clips


def _truth(frames: pd.DataFrame) -> str:
    if frames["label"].isna().all():
        return "no labels"
    runs = charts.intervals(frames["frame"].to_numpy(), frames["label"].to_numpy())
    if not runs:
        return "all normal"
    shown = ", ".join(f"{start}–{end}" for start, end in runs[:4])
    return f"abnormal {shown}" + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")


def _worst(system: System, entry: dict) -> dict:
    threshold, label = system.row.get("threshold"), entry.get("label")
    alarm = threshold is not None and entry["score"] >= threshold
    kind = {None: "unlabelled", 0: "normal", 1: "abnormal"}[None if label is None else int(label)]
    verdict = {
        ("abnormal", True): "abnormal, caught",
        ("abnormal", False): "abnormal, below the threshold",
        ("normal", True): "normal: a false alarm",
        ("normal", False): "normal, below the threshold",
        ("unlabelled", True): "no label, above the threshold",
        ("unlabelled", False): "no label, below the threshold",
    }[kind, alarm]
    p_value = entry.get("p_value")
    return {
        **_picture(entry["picture"]),
        "clip": entry["clip"],
        "frame": entry["frame"],
        "score": significant(entry["score"]),
        "p_value": None if p_value is None else significant(p_value, 2),
        "verdict": verdict,
        "kind": kind,
    }


def _picture(path: Path) -> dict:
    """A picture file as a WebP data URI with its size."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise VadError(f"{path}: not a readable picture; run the stage that writes it again with `dvc repro --force`")
    if image.shape[1] > PICTURE_WIDTH:
        height = round(image.shape[0] * PICTURE_WIDTH / image.shape[1])
        image = cv2.resize(image, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
    data = encode(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), ".webp", cv2.IMWRITE_WEBP_QUALITY, QUALITY)
    text = base64.b64encode(data).decode("ascii")
    return {"uri": f"data:image/webp;base64,{text}", "width": image.shape[1], "height": image.shape[0]}


def _training(system: System) -> dict:
    measured = system.training
    facts = [
        ("training time", duration(measured["train_seconds"]) if measured.get("train_seconds") else None),
        ("iterations", f"{measured['iterations']:,}" if measured.get("iterations") else None),
        ("weights kept from iteration", f"{measured['best_iteration']:,}" if measured.get("best_iteration") else None),
        (
            "held-out loss",
            significant(measured.get("held_out_loss")) if measured.get("held_out_loss") is not None else None,
        ),
        ("parameters", count(measured["parameters"]) if measured.get("parameters") else None),
        ("speed", f"{measured['windows_per_second']:.1f} windows/s" if measured.get("windows_per_second") else None),
        ("peak memory", f"{measured['peak_memory_mb']:,.0f} MB" if measured.get("peak_memory_mb") else None),
        ("precision", measured.get("precision")),
        ("device", measured.get("device")),
    ]
    chosen = (
        sorted({round(at) for at in np.linspace(0, len(system.samples) - 1, SAMPLES_SHOWN)}) if system.samples else []
    )
    return {
        "model": system.model,
        "trained": system.row.get("trained", True),
        "facts": [(name, value) for name, value in facts if value is not None],
        "losses": _losses(system),
        "samples": [
            {"name": system.samples[at].stem.lstrip("0") or "0", **_picture(system.samples[at])} for at in chosen
        ],
        "calibration": yaml.safe_dump(system.calibration, sort_keys=False, allow_unicode=True),
    }


def _losses(system: System) -> list[dict]:
    """One chart a training phase: every loss of its steps, and the loss on held-out normal clips where it was measured."""
    history = system.history
    if history is None or not len(history):
        return []
    charted = []
    selecting = (
        history.loc[history["held_out"].notna(), "phase"] if "held_out" in history else history["phase"].iloc[:0]
    )
    for phase, part in history.groupby("phase", sort=False):
        part = part.set_index("iteration").drop(columns="phase").dropna(axis="columns", how="all")
        names = [name for name in part.columns if name != "held_out"]
        curves = [(f"l{index % 6}", name, part[name]) for index, name in enumerate(names)]
        if "held_out" in part:
            curves.append(("held-out", "held-out normal clips", part["held_out"]))
        if not curves:
            continue
        # The count starts anew in each phase; the best iteration is that of the last phase that selects.
        best = system.training.get("best_iteration") if len(selecting) and phase == selecting.iloc[-1] else None
        svg, bottom, top, logarithmic = charts.losses([(style, curve) for style, _, curve in curves], best)
        charted.append(
            {
                "phase": phase,
                "svg": Markup(svg),
                "logarithmic": logarithmic,
                "low": significant(bottom),
                "high": significant(top),
                "first": int(part.index[0]),
                "last": int(part.index[-1]),
                "best": best,
                "curves": [(style, name) for style, name, _ in curves],
            }
        )
    return charted
