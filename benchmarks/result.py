"""Files of benchmarks/results: ``{"run": how they were made, "rows": measurements}``.

Rows of several runs are stored as ``{"runs": [...], "rows": [...]}``; ``run`` of a row is then the index of its run. In
memory a row has the facts of its run under ``run``.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from vadcore.report.build import read_run
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json
from vadcore.utils.provenance import run_facts

FACTS = {"command": str, "profile": str | None, "commit": str | None, "hardware": str, "versions": dict, "date": str}
NEEDED = {  # figure that identifies the kind of a row, and the keys that such a row needs
    "auc_micro": ("seed", "label_set"),
    "step_ahead": ("seed", "label_set", "sequences", "variant", "what", "psnr", "ssim"),
    "iteration": ("seed",),
}


def write_result(path: Path, rows: list[dict], profile: str | None, command: str | None = None) -> None:
    """Write ``rows`` with the facts of this run. ``command`` defaults to the command line of this process."""
    if command is None:
        program = "python -m benchmarks." + Path(sys.argv[0]).stem
        command = shlex.join([*program.split(), *sys.argv[1:]])
        if data_dir := os.environ.get("VAD_DATA_DIR"):
            command = command.replace(data_dir.rstrip("/") + "/", "$VAD_DATA_DIR/")
    write_rows(path, [{"run": run_facts(command, profile), **row} for row in rows])
    print(f"written: {path}")


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write ``rows`` with the facts of their runs."""
    runs = distinct_runs(rows)
    if len(runs) == 1:
        results = {"run": runs[0], "rows": [_figures(row) for row in rows]}
    else:
        results = {"runs": runs, "rows": [{"run": runs.index(row["run"]), **_figures(row)} for row in rows]}
    write_json(path, results)


def read_rows(path: Path) -> list[dict]:
    """Read the rows of a file of benchmarks/results. Raises :class:`VadError` for an unreadable or invalid file."""
    try:
        return _rows(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise VadError(f"{path}: {error}; restore it (git checkout -- {path}), or remove it") from error


def read_report(path: Path) -> list[dict]:
    """Read the rows of a JSON file of a report, with date and commit from its run.js.

    Raises :class:`VadError` if a file is missing or invalid, or if there are no rows.
    """
    if not path.exists():
        raise VadError(f"{path}: does not exist; run dvc repro first")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        results["run"] |= read_run(path.parent)
        rows = _rows(results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VadError(f"{path}: cannot be read ({error}); run dvc repro --force --single-item report") from error
    if not rows:
        raise VadError(f"{path}: has no rows; run dvc repro with a system under models that has such figures")
    return rows


def distinct_runs(rows: list[dict]) -> list[dict]:
    """Return the runs of ``rows`` in the order of their first rows."""
    runs: list[dict] = []
    for row in rows:
        if row["run"] not in runs:
            runs.append(row["run"])
    return runs


def same_figures(rows: list[dict], others: list[dict]) -> bool:
    """Return whether two lists of rows are equal apart from their runs."""
    return [_figures(row) for row in rows] == [_figures(row) for row in others]


def label_set(rows: list[dict], path: Path) -> str | None:
    """Return the label set of the rows of a table. Raises :class:`VadError` if they have different label sets."""
    found = list(dict.fromkeys(row["label_set"] for row in rows))
    if len(found) > 1:
        raise VadError(
            f"{path}: the rows of {rows[0]['dataset']} have two label sets, “{found[0]}” and “{found[1]}”; store each "
            "under a profile of its own"
        )
    return found[0]


def _figures(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "run"}


def _rows(results: dict) -> list[dict]:
    """Return the rows of a parsed file. Raises ValueError for an invalid format."""
    if not isinstance(results, dict) or not {"run", "runs"} & set(results):
        raise ValueError("has no run")
    runs, rows = results.get("runs", [results.get("run")]), results.get("rows")
    if not isinstance(runs, list) or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("has no list of runs and of rows")
    for run in runs:
        for name, kind in FACTS.items():
            if not isinstance(run, dict) or name not in run or not isinstance(run[name], kind):
                raise ValueError(f"has a run without {name}")
    for row in rows:
        if "runs" in results and row.get("run") not in range(len(runs)):
            raise ValueError("has a row without a run")
        if {"dataset", "model"} <= row.keys():
            needed = next((names for figure, names in NEEDED.items() if figure in row), ("auc_micro",))
            if missing := [name for name in needed if name not in row]:
                raise ValueError(f"has no {missing[0]} of {row['model']} on {row['dataset']}")
    return [row | {"run": runs[row.get("run", 0)]} for row in rows]
