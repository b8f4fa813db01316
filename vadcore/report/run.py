"""run.js, beside the page: what differs between runs that give the same results. The page shows it where it is there."""

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
DIFFERS = ("date", "commit")  # facts of a run that are not the same twice
FORMS = {"windows_per_second": "{:.1f} windows/s", "peak_memory_mb": "{:,.0f} MB"}  # of costs that are no columns


def place(name: str) -> Markup:
    """An element that shows the cell ``name`` of run.js."""
    return Markup('<span data-run="{}">{}</span>').format(name, NONE)


def cell_name(system: System, key: str) -> str:
    return f"{system.dataset}/{system.model}/{key}"


def write_run(path: Path, results: dict, run: dict, cells: dict[str, dict]) -> None:
    """Write run.js for the page of ``results``, as metrics.json holds them: date and commit of ``run``, and ``cells``."""
    facts = {"of": digest_of(results), **{key: run[key] for key in DIFFERS}, "cells": cells}
    write_text(path, f"{START}{json.dumps(facts, indent=1, allow_nan=False)}{END}")


def run_cells(run: dict, systems: dict[str, list[System]]) -> dict[str, dict]:
    """What the page shows of a run: name -> ``text``, and of figures in tables ``value`` and whether it is the ``best``."""
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
    """The run and the rows of a file of figures in the report's folder; the date and the commit are those of run.js.

    Raises :class:`VadError` for a file that cannot be read, and where run.js is missing or belongs to other results.
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
    """Date and commit of the run whose results are in ``folder``. Raises ValueError where run.js belongs to others."""
    facts = json.loads((folder / FILE).read_text(encoding="utf-8").removeprefix(START).removesuffix(END))
    if facts["of"] != digest_of(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))):
        raise ValueError(f"{FILE} beside it belongs to other results")
    return {key: facts[key] for key in DIFFERS}
