"""What a run cost: figures of a machine, kept beside the results and apart from them, which are the same on every run."""

from __future__ import annotations

import json
from pathlib import Path

from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files, write_json
from vadcore.utils.folders import folder_of

FILE = "cost.json"  # .dvcignore names it: DVC neither stores it nor counts it as part of a dependency
TABLED = ("score_fps", "train_seconds")  # shown in tables of results


def write_cost(folder: Path, cost: dict) -> None:
    """Write ``cost`` beside the metrics.json in ``folder``, whose results it belongs to."""
    write_json(folder / FILE, {"of": _digest(folder), **cost})


def read_cost(folder: Path) -> dict:
    """The cost of the results in ``folder``; empty where it is unknown: no run on this machine gave these results, or not
    the last one.

    Raises :class:`VadError` for a file that cannot be read.
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
    """The costs of training and of scoring a system, from the folders models/ and scores/."""
    return read_cost(folder_of(models, dataset, model)) | read_cost(folder_of(scores, dataset, model))


def _digest(folder: Path) -> str:
    return sha256_files([folder / "metrics.json"])
