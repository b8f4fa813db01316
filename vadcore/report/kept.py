"""Read the committed benchmark results, in the file format described in benchmarks/result.py."""

from __future__ import annotations

import json
from pathlib import Path

from vadcore.utils.errors import VadError

FACTS = {"command": str, "profile": str | None, "commit": str | None, "hardware": str, "versions": dict, "date": str}
NEEDED = {  # key that identifies the kind of a row, and the keys that such a row needs
    "auc_micro": ("seed", "label_set"),
    "step_ahead": ("seed", "label_set", "sequences", "variant", "what", "psnr", "ssim"),
    "iteration": ("seed",),
}
VERSIONS = ("python", "torch", "opencv-python")  # recorded versions that are shown


def read_kept(path: Path) -> list[tuple[dict, list[dict]]]:
    """Read a committed file as pairs of a run and its rows. The ``run`` index is removed from the rows.

    Raises :class:`VadError` for an unreadable file or an invalid format.
    """
    try:
        return by_run(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise VadError(f"{path}: {error}; restore it (git checkout -- {path}), or remove it") from error


def by_run(results: dict) -> list[tuple[dict, list[dict]]]:
    """Like :func:`read_kept`, for the parsed content of a file. Raises ValueError, which says what is wrong."""
    if not isinstance(results, dict) or not {"run", "runs"} & set(results):
        raise ValueError("says of no run that made it")
    several = "run" not in results
    runs, rows = results["runs"] if several else [results["run"]], results.get("rows")
    if not isinstance(runs, list) or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("has no list of runs and of rows")
    for run in runs:
        for name, kind in FACTS.items():
            if not isinstance(run, dict) or name not in run or not isinstance(run[name], kind):
                raise ValueError(f"does not say the {name} of a run")
    for row in rows:
        if "dataset" in row and "model" in row:
            needed = next((names for figure, names in NEEDED.items() if figure in row), ("auc_micro",))
            if missing := [name for name in needed if name not in row]:
                raise ValueError(f"does not say the {missing[0]} of {row['model']} on {row['dataset']}")
    if not several:
        return [(runs[0], rows)]
    if any(row.get("run") not in range(len(runs)) for row in rows):
        raise ValueError("has a row that is of none of its runs")
    return [
        (run, [{key: value for key, value in row.items() if key != "run"} for row in rows if row["run"] == number])
        for number, run in enumerate(runs)
    ]


def counted_by_the_present_rule(row: dict) -> bool:
    """Return whether the row's event figures follow the current matching rule.

    Rows without ``normal_alarmed`` follow an older rule, and their event figures are not shown.
    """
    return "normal_alarmed" in row


def label_set(rows: list[dict], path: Path) -> str | None:
    """Return the label set of the rows of a table. Raises :class:`VadError` if the rows have different label sets."""
    found = list(dict.fromkeys(row["label_set"] for row in rows))
    if len(found) > 1:
        raise VadError(
            f"{path}: the figures on {rows[0]['dataset']} are of two label sets, “{found[0]}” and “{found[1]}”, and cannot "
            "stand in one table; keep those of each in a file of its own, under a profile of another name"
        )
    return found[0]


def origin(run: dict) -> dict[str, str]:
    """Return how a run was made: command, hardware, versions, commit and date, shortened."""
    commit, _, changed = (run["commit"] or "unknown").partition("+")
    return {
        "command": run["command"],
        "hardware": run["hardware"],
        "versions": ", ".join(f"{name} {run['versions'][name]}" for name in VERSIONS if name in run["versions"]),
        "commit": commit[:10] + (" with changes" if changed else ""),
        "date": run["date"][:10],
    }


def seeds(rows: list[dict]) -> str:
    """Format the seeds as ``seed 1`` or ``seeds 1, 2``; empty without rows."""
    found = sorted({row["seed"] for row in rows})
    return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}" if found else ""
