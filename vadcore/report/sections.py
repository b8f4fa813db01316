"""Sections of the page below the results table: score curves, highest-scoring frames, training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.checkpoints import MEASURES, check_points
from vadcore.report.columns import count, significant
from vadcore.report.histograms import histogram
from vadcore.report.judged import judge, missed
from vadcore.report.load import System, load_flow_pictures
from vadcore.report.media import film, picture
from vadcore.report.raised import alarms_of, listed
from vadcore.report.readings import frames_a_reading
from vadcore.report.run import cell_name, place
from vadcore.report.snapshots import viewer
from vadcore.report.strips import first_and_last
from vadcore.report.text import calibrated, truth, unlabelled

WORST_SHOWN = 6  # pictures per system
NO_LOSSES = {"val", "step", *(measure.key for measure in MEASURES)}  # columns of history.csv that are not losses


def clips(number: int, group: list[System], styles: list[str]) -> list[dict]:
    """Return every clip with one chart per system. A system has the same score axis in all clips."""
    every = frames_a_reading(len(group) * len(group[0].frames))
    scales = [charts.score_range(system.frames["score"].to_numpy(), system.row.get("threshold")) for system in group]
    frames = [dict(list(system.frames.groupby("clip", sort=False))) for system in group]
    events = [dict(list(system.events.groupby("clip", sort=False))) for system in group]
    found = []
    for index, (name, own) in enumerate(frames[0].items(), 1):
        lanes, judged = [], []
        for position, system in enumerate(group):
            part, alarms = frames[position][name], events[position].get(name, system.events.iloc[:0])
            judged.append(judge(part, alarms))
            peak = part["score"].max()
            lanes.append(
                {
                    "style": styles[position],
                    "model": system.model,
                    "svg": Markup(charts.timeline(part, alarms, system.row.get("threshold"), *scales[position], every)),
                    "peak": "no score" if pd.isna(peak) else f"max {significant(float(peak))}",
                }
            )
        fps, raised = float(own["fps"].iloc[0]), alarms_of(name, group, styles, judged)
        found.append(
            {
                "id": f"d{number}c{index}",
                "name": name,
                "frames": len(own),
                "first": int(own["frame"].iloc[0]),
                "last": int(own["frame"].iloc[-1]),
                "fps": f"{fps:g}",
                "seconds": f"{len(own) / fps:.1f} s",
                "every": every,
                "abnormal": bool((own["label"] == 1).any()),
                "truth": truth(own),
                "unlabelled": unlabelled(own),
                "missed": missed(judged, group, styles, fps),
                "lanes": lanes,
                "viewer": viewer(f"d{number}c{index}", name, group),
                "alarms": raised,
                "listed": listed(raised),
            }
        )
    return found


def worst(system: System) -> list[dict]:
    """Return the highest-scoring frames with their labels."""
    return [_worst_frame(system, entry) for entry in system.worst[:WORST_SHOWN]]


def _worst_frame(system: System, entry: dict) -> dict:
    threshold, label = system.row.get("threshold"), entry.get("label")
    above = threshold is not None and entry["score"] >= threshold
    kind = {None: "unlabelled", 0: "normal", 1: "abnormal"}[None if label is None else int(label)]
    said = "no label" if kind == "unlabelled" else kind
    p_value = entry.get("p_value")
    return {
        **picture(entry["picture"]),
        "clip": entry["clip"],
        "frame": entry["frame"],
        "score": significant(entry["score"]),
        "p_value": None if p_value is None else significant(p_value, 2),
        "verdict": f"{said}, {'above' if above else 'below'} the threshold",
        "kind": kind,
    }


def flow(folder: Path) -> dict | None:
    """Return pictures of optical flow and the longest motion. None if no clip has a second frame."""
    found = load_flow_pictures(folder)
    pictures = [
        {**picture(entry["picture"]), "split": entry["split"], "clip": entry["clip"], "frame": entry["frame"]}
        for entry in found["pictures"]
    ]
    return {"longest": significant(found["longest_px"]), "pictures": pictures} if pictures else None


def training(system: System) -> dict:
    """Return the training measurements, losses, sample pictures and calibration of a system."""
    measured, trained = system.training, system.row.get("trained", True)
    fused = _fused(system.settings)
    learns = trained and not fused
    cost = {key: place(cell_name(system, key)) for key in ("train_seconds", "windows_per_second", "peak_memory_mb")}
    facts = [
        *fused,
        ("training time", cost["train_seconds"] if learns else None),
        ("iterations", f"{measured['iterations']:,}" if measured.get("iterations") else None),
        ("weights kept from iteration", f"{measured['best_iteration']:,}" if measured.get("best_iteration") else None),
        (
            "held-out loss",
            significant(measured.get("val_loss")) if measured.get("val_loss") is not None else None,
        ),
        *(
            (f"{measure.title} of the kept weights", f"{measure.write(measured[measure.key])}{measure.unit}")
            for measure in MEASURES
            if measured.get(measure.key) is not None
        ),
        ("parameters", count(measured["parameters"]) if measured.get("parameters") else None),
        ("speed", cost["windows_per_second"] if learns else None),
        ("peak memory", None if fused else cost["peak_memory_mb"]),
        ("precision", measured.get("precision")),
        ("device", measured.get("device")),
    ]
    # Other animations are shown in the side-by-side section.
    moving = film(system.samples[-1].with_suffix(".webp")) if system.samples and check_points(system) is None else None
    return {
        "model": system.model,
        "trained": trained,
        "facts": [(name, value) for name, value in facts if value is not None],
        "losses": _losses(system),
        "samples": [{"name": _named(path), **picture(path)} for path in first_and_last(system.samples)],
        "film": moving,
        "histogram": histogram(system),
        "calibrated": calibrated(system.calibration),
        "calibration": yaml.safe_dump(_facts_of(system.calibration), sort_keys=False, allow_unicode=True),
    }


def _fused(settings: dict) -> list[tuple[str, str]]:
    """Return what a fusion combines and how, as (name, text) pairs. Empty for other systems."""
    members = settings.get("members", {})
    if not members:
        return []
    weights = [f"{weight:g} × " for weight in settings["weights"] or ()] or [""] * len(members)
    parts = ", ".join(f"{weight}{name}" for weight, name in zip(weights, members, strict=True))
    share = f"{100 * settings['high']:g} %"
    return [
        ("combines", f"the {settings['rule']} of {parts}, each in units of its held-out normal footage"),
        *(
            (
                f"{name}, {member['measure']}",
                f"0 is the median, {significant(member['score']['median'])}; 1 is what {share} of the frames stay below, "
                f"{significant(member['score']['high'])}",
            )
            for name, member in members.items()
        ),
    ]


def _named(sample: Path) -> str:
    phase, _, iteration = sample.stem.rpartition("-")
    return f"{phase}, iteration {int(iteration):,}"


def _losses(system: System) -> list[dict]:
    """Return one chart per training phase: every loss, and the loss on held-out normal clips where it was measured.

    The overall iteration counter and the picture quality measures are left out, because they are not losses.
    """
    history = system.history
    if history is None or not len(history):
        return []
    charted = []
    selecting = history.loc[history["val"].notna(), "phase"] if "val" in history else history["phase"].iloc[:0]
    for phase, part in history.groupby("phase", sort=False):
        part = part.set_index("iteration").drop(columns="phase").dropna(axis="columns", how="all")
        names = [name for name in part.columns if name not in NO_LOSSES]
        curves = [(f"l{index % 6}", name, part[name]) for index, name in enumerate(names)]
        if "val" in part:
            curves.append(("held-out", "held-out normal clips", part["val"]))
        if not curves:
            continue
        # Iterations restart in each phase; best_iteration belongs to the last phase with a held-out loss.
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


def _facts_of(calibration: dict) -> dict:
    """Return a calibration without its thousands of order statistics."""
    return {key: value for key, value in calibration.items() if not isinstance(value, list | tuple)}
