"""Cost of a run (times, throughput). Stored in a file of its own, because it depends on the machine."""

from __future__ import annotations

import json
from pathlib import Path

from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files, write_json
from vadcore.utils.folders import folder_of

FILE = "cost.json"  # listed in .dvcignore: DVC does not store it and does not count it as part of a dependency
TABLED = ("score_fps", "train_seconds")  # shown in tables of results


def write_cost(folder: Path, cost: dict) -> None:
    """Write ``cost`` to ``folder``, which contains the metrics.json of the results."""
    write_json(folder / FILE, {"of": _digest(folder), **cost})


def read_cost(folder: Path) -> dict:
    """Read the cost of the results in ``folder``.

    Empty if the cost is unknown: the results do not come from a run on this machine, or not from the last one. Raises
    :class:`VadError` if the file cannot be read.
    """
    path = folder / FILE
    try:
        cost = json.loads(path.read_text(encoding="utf-8"))
        of = cost.pop("of")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VadError(f"{path}: cannot be read ({error}); remove it") from error
    return cost if of == _digest(folder) else {}


def read_costs(scores: Path, models: Path, dataset: str, model: str) -> dict:
    """Read the costs of training and scoring a system from the folders models/ and scores/."""
    return read_cost(folder_of(models, dataset, model)) | read_cost(folder_of(scores, dataset, model))


def _digest(folder: Path) -> str:
    return sha256_files([folder / "metrics.json"])
