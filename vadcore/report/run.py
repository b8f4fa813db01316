"""Write and read run.js, next to the page: what differs between runs with equal results."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from vadcore.evaluation.cost import TABLED
from vadcore.report.columns import COLUMNS, NONE, best_text, write
from vadcore.report.kept import by_run
from vadcore.report.load import System
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of, write_text

FILE = "run.js"
START, END = "window.vadRun = ", ";\n"
DIFFERS = ("date", "commit")  # facts of a run that are not reproducible
FORMS = {"windows_per_second": "{:.1f} windows/s", "peak_memory_mb": "{:,.0f} MB"}  # costs that are not table columns


def place(name: str) -> Markup:
    """Return an HTML element that shows the cell ``name`` of run.js."""
    return Markup('<span data-run="{}">{}</span>').format(name, NONE)


def cell_name(system: System, key: str) -> str:
    return f"{system.dataset}/{system.model}/{key}"


def write_run(path: Path, results: dict, run: dict, cells: dict[str, dict]) -> None:
    """Write run.js: date and commit of ``run``, ``cells``, and the digest of ``results`` (as in metrics.json)."""
    facts = {"of": digest_of(results), **{key: run[key] for key in DIFFERS}, "cells": cells}
    write_text(path, f"{START}{json.dumps(facts, indent=1, allow_nan=False)}{END}")


def run_cells(run: dict, systems: dict[str, list[System]]) -> dict[str, dict]:
    """Return the cells of run.js by name: ``text``, and for table figures also ``value`` and ``best`` (a boolean)."""
    cells = {"date": {"text": run["date"]}}
    if run["commit"]:
        head, changes, _ = run["commit"].partition("+changes")
        cells |= {"commit": {"text": run["commit"]}, "short commit": {"text": head[:12] + changes}}
    for group in systems.values():
        for column in COLUMNS:
            if column.key in TABLED:
                best = best_text([system.cost.get(column.key) for system in group], column)
                for system in group:
                    if (value := system.cost.get(column.key)) is not None:
                        text = write(value, column.kind)
                        cell = {"text": text, "value": value, "best": text == best}
                        cells[cell_name(system, column.key)] = cell
        for system in group:
            for key, form in FORMS.items():
                if system.cost.get(key) is not None:
                    cells[cell_name(system, key)] = {"text": form.format(system.cost[key])}
    return cells


def read_made(path: Path) -> tuple[dict, list[dict]]:
    """Read the run and the rows of a file in the report folder, with date and commit from run.js.

    Raises :class:`VadError` if the file cannot be read, or if run.js is missing or belongs to other results.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        facts = _facts(path.parent)
        if isinstance(results, dict) and isinstance(results.get("run"), dict):
            results["run"] |= facts
        ((run, rows),) = by_run(results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VadError(f"{path}: cannot be read ({error}); run dvc repro --force --single-item report") from error
    return run, rows


def _facts(folder: Path) -> dict:
    """Return date and commit of the run whose results are in ``folder``. Raises ValueError for other results' run.js."""
    facts = json.loads((folder / FILE).read_text(encoding="utf-8").removeprefix(START).removesuffix(END))
    if facts["of"] != digest_of(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))):
        raise ValueError(f"{FILE} beside it belongs to other results")
    return {key: facts[key] for key in DIFFERS}
