"""Build the report: one HTML page, the same figures as JSON and CSV, and run.js for what changes from run to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from vadcore.evaluation.cost import TABLED
from vadcore.report.checkpoints import quality_rows
from vadcore.report.load import System, load_system, plain, same_footage
from vadcore.report.media import write_strips
from vadcore.report.page import render_page
from vadcore.report.rollouts import rollout_rows
from vadcore.report.table import COLUMNS, best_text
from vadcore.report.text import write
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of, write_json, write_text

RUN = "run.js"
START, END = "window.vadRun = ", ";\n"
DIFFERS = ("date", "commit")  # facts of a run that are not reproducible
COSTS = {"windows_per_second": "{:.1f} windows/s", "peak_memory_mb": "{:,.0f} MB"}  # costs that are not table columns


def build_report(
    scores: Path,
    models: Path,
    out: Path,
    datasets: list[str],
    model_names: list[str],
    run: dict,
    params: dict | str,
    dataset_facts: dict[str, dict],
    title: str = "Video anomaly report",
    check_points: tuple[int, ...] | None = None,
    flow_pictures: Mapping[str, Path] | None = None,
) -> None:
    """Write the report into ``out``.

    Files: ``index.html``, ``metrics.json``, ``results.csv``, ``quality.json``, ``rollouts.json``, ``run.js`` and
    pictures in ``out/strips``. Each file is written completely or not at all.

    The output is reproducible: the same results give the same bytes. Values that change from run to run (date,
    commit, costs) are stored in ``run.js`` only. The page reads them from there and shows a dash if the file is
    missing.

    Parameters
    ----------
    scores, models: folders that contain ``<dataset>/<model>/`` (fusions: ``fused/<dataset>/<model>/``), as written by
        scoring and training.
    datasets, model_names: data sets and models to show, in this order. Other content of the folders is ignored.
    run: how the results were made: command, profile, commit, hardware, versions (a dict), date.
    params: the configuration, parsed or as text.
    dataset_facts: facts about the footage of each data set (format, clips, frames, hours, size, fps, source digest,
        label set, ...), shown as given.
    title: heading of the page.
    check_points: iterations whose pictures are shown side by side. None selects up to three that all systems have. An
        iteration that no system has is skipped, with a note on the page.
    flow_pictures: folder of optical flow pictures for each data set whose flow is shown.

    Raises
    ------
    VadError: ``datasets`` or ``model_names`` is empty, results are missing or unreadable, or the models of a data set
        scored different frames.
    """
    for key, names in (("datasets", datasets), ("models", model_names)):
        if not names:
            raise VadError(f"params.yaml: {key} is empty, there is nothing to report; list at least one")
    groups = {
        dataset: [load_system(scores, models, dataset, model, number) for number, model in enumerate(model_names)]
        for dataset in datasets
    }
    for group in groups.values():
        same_footage(group)
    systems = [system for group in groups.values() for system in group]

    facts = plain({key: value for key, value in run.items() if key not in DIFFERS})
    results = {"run": facts, "rows": [system.row for system in systems]}
    # Render everything before writing: if rendering fails, the previous report is unchanged.
    page = render_page(
        groups, facts, digest_of(results), params, dataset_facts, title, check_points, flow_pictures or {}
    )
    out = Path(out)
    write_run(out / RUN, results, run, run_cells(run, groups))
    write_json(out / "metrics.json", results)
    write_json(out / "quality.json", {"run": facts, "rows": quality_rows(systems)})
    write_json(out / "rollouts.json", {"run": facts, "rows": plain(rollout_rows(systems))})
    write_text(
        out / "results.csv", pd.DataFrame(results["rows"], dtype=object).to_csv(index=False, lineterminator="\n")
    )
    write_strips(out / "strips", systems)
    write_text(out / "index.html", page)


def write_run(path: Path, results: dict, run: dict, cells: dict[str, dict]) -> None:
    """Write run.js: date and commit of ``run``, ``cells``, and the digest of ``results`` (as in metrics.json)."""
    facts = {"of": digest_of(results), **{key: run[key] for key in DIFFERS}, "cells": cells}
    write_text(path, f"{START}{json.dumps(facts, indent=1, allow_nan=False)}{END}")


def run_cells(run: dict, groups: dict[str, list[System]]) -> dict[str, dict]:
    """Return the cells of run.js by name: ``text``, and for table figures also ``value`` and ``best`` (a boolean)."""
    cells = {"date": {"text": run["date"]}}
    if run["commit"]:
        head, changes, _ = run["commit"].partition("+changes")
        cells |= {"commit": {"text": run["commit"]}, "short commit": {"text": head[:12] + changes}}
    columns = [column for column in COLUMNS if column.key in TABLED]
    for group in groups.values():
        best = {column.key: best_text([system.cost.get(column.key) for system in group], column) for column in columns}
        for system in group:
            known = {key: value for key, value in system.cost.items() if value is not None}
            for column in columns:
                if (value := known.get(column.key)) is not None:
                    text = write(value, column.kind)
                    cells[system.cell(column.key)] = {"text": text, "value": value, "best": text == best[column.key]}
            cells |= {
                system.cell(key): {"text": form.format(known[key])} for key, form in COSTS.items() if key in known
            }
    return cells


def read_run(folder: Path) -> dict:
    """Return date and commit of the run whose results are in ``folder``.

    Raises OSError, ValueError or KeyError if run.js or metrics.json is missing or unreadable, or if run.js belongs to
    other results.
    """
    facts = json.loads((folder / RUN).read_text(encoding="utf-8").removeprefix(START).removesuffix(END))
    if facts["of"] != digest_of(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))):
        raise ValueError(f"{RUN} beside it belongs to other results")
    return {key: facts[key] for key in DIFFERS}
