"""Reading the results that are kept with the project, files of the form that benchmarks/result.py describes."""

from __future__ import annotations

import json
from pathlib import Path

from vadcore.utils.errors import VadError

FACTS = {"command": str, "profile": str | None, "commit": str | None, "hardware": str, "versions": dict, "date": str}
NEEDED = {  # what a row of a system is about, and what it has then
    "auc_micro": ("seed", "label_set"),
    "step_ahead": ("seed", "label_set", "sequences", "variant", "what", "psnr", "ssim"),
    "iteration": ("seed",),
}
VERSIONS = ("python", "torch", "opencv-python")  # of those kept, which are told


def read_kept(path: Path) -> list[tuple[dict, list[dict]]]:
    """Each run of a kept file with its rows, which do not say any more of which run they are.

    Raises :class:`VadError` for a file that is not of the form.
    """
    try:
        return by_run(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise VadError(f"{path}: {error}; restore it (git checkout -- {path}), or remove it") from error


def by_run(results: dict) -> list[tuple[dict, list[dict]]]:
    """As :func:`read_kept`, of what a file holds. Raises ValueError, which says what is wrong."""
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
    """Whether its figures of events are: rows without ``normal_alarmed`` are of an older rule, which is not to be shown."""
    return "normal_alarmed" in row


def label_set(rows: list[dict], path: Path) -> str | None:
    """What the rows of a table were judged by. Raises :class:`VadError` where that is not the same for all."""
    found = list(dict.fromkeys(row["label_set"] for row in rows))
    if len(found) > 1:
        raise VadError(
            f"{path}: the figures on {rows[0]['dataset']} are of two label sets, “{found[0]}” and “{found[1]}”, and cannot "
            "stand in one table; keep those of each in a file of its own, under a profile of another name"
        )
    return found[0]


def origin(run: dict) -> dict[str, str]:
    """How a run was made, in short: its command, hardware, versions, commit and date."""
    commit, _, changed = (run["commit"] or "unknown").partition("+")
    return {
        "command": run["command"],
        "hardware": run["hardware"],
        "versions": ", ".join(f"{name} {run['versions'][name]}" for name in VERSIONS if name in run["versions"]),
        "commit": commit[:10] + (" with changes" if changed else ""),
        "date": run["date"][:10],
    }


def seeds(rows: list[dict]) -> str:
    """``seed 1``, ``seeds 1, 2``; empty without rows."""
    found = sorted({row["seed"] for row in rows})
    return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}" if found else ""
