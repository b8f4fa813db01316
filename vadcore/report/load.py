"""Load the results of scoring and training for one system on one data set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from vadcore.evaluation.cost import read_costs
from vadcore.utils.errors import VadError, one_line
from vadcore.utils.folders import folder_of, is_fusion

FRAME_COLUMNS = ["clip", "frame", "label", "fps", "score", "p_value"]


@dataclass(frozen=True)
class System:
    """One model on one data set.

    Attributes
    ----------
    number: position of the system in its group, starting at 0.
    row: its row of the results table. AUC and similar metrics in 0..1, None where a metric does not exist.
    frames: one row per frame, sorted by clip and frame: clip, frame, label (0, 1, NaN), fps, score (NaN: not scored),
        p_value, and ``seconds`` if the times of any clip are not ``frame / fps``.
    roc: fpr, tpr, threshold. Empty unless both classes are labelled.
    events: the alarms: clip, start_frame, end_frame (inclusive), peak_frame, peak_score, ...
    worst: its highest-scoring frames, with ``picture`` as a path.
    settings: the configuration with which the system was trained.
    cost: measured cost of training and scoring on this machine; empty where unknown.
    training: measurements of the training stage. ``history``: its losses over iterations. ``samples``: its strips of
        pictures, sorted by phase and iteration (an animation may exist next to each). None and empty for systems
        without training.
    calibration: how the threshold was calibrated. operating: the operating curve, one row per target false-alarm rate.
    measures: metrics of every measure, one row each; empty for footage without both classes.
    score_stage: the stage that wrote the scores.
    snapshots: pictures per clip for the page: ``frames`` (frame numbers) and ``sheets``, whose files are paths.
    rollouts: error of multi-step predictions, one row per step ahead. None for a system that does not roll out its own
        predictions, or if no clip was long enough. rollout_folder: their pictures.
    """

    number: int
    dataset: str
    model: str
    row: dict
    cost: dict
    frames: pd.DataFrame
    roc: pd.DataFrame
    events: pd.DataFrame
    worst: list[dict]
    settings: dict
    training: dict
    history: pd.DataFrame | None
    samples: list[Path]
    calibration: dict
    operating: pd.DataFrame
    measures: list[dict]
    score_stage: str
    snapshots: dict[str, dict]
    rollouts: pd.DataFrame | None
    rollout_folder: Path

    @property
    def labelled(self) -> bool:
        return bool(self.frames["label"].notna().any())

    @property
    def trained(self) -> bool:
        return self.row.get("trained", True)

    @property
    def threshold(self) -> float | None:
        return self.row.get("threshold")

    @property
    def style(self) -> str:
        """CSS classes of the system on the page: its colour, and ``free`` (dashed) if it is untrained."""
        return f"s{self.number}" + ("" if self.trained else " free")

    def cell(self, key: str) -> str:
        """Name of the cell of run.js with the cost ``key``."""
        return f"{self.dataset}/{self.model}/{key}"


@dataclass(frozen=True)
class _Outputs:
    """The folder that a stage writes."""

    folder: Path
    stage: str

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def read(self, name: str, reader: Callable[..., Any], **options) -> Any:
        """Call ``reader`` with the path of a file. Raises :class:`VadError` if the file is missing or unreadable."""
        path = self.folder / name
        if not path.exists():
            raise VadError(f"{path}: does not exist; run `dvc repro {self.stage}`")
        try:
            return reader(path, **options)
        except (ValueError, OSError) as error:  # pandas, pyarrow and json raise subclasses of these
            reason = one_line(error)
            raise VadError(f"{path}: cannot be read ({reason}); run `dvc repro --force {self.stage}`") from error

    def json(self, name: str) -> Any:
        return plain(self.read(name, lambda path: json.loads(path.read_text(encoding="utf-8"))))

    def csv(self, name: str, **options) -> pd.DataFrame:
        return self.read(name, pd.read_csv, **options)


def load_system(scores: Path, models: Path, dataset: str, model: str, number: int = 0) -> System:
    """Read the results of scoring and training (or fusion) from the folders ``scores`` and ``models``.

    Raises
    ------
    VadError: a file is missing or unreadable. The message names the stage that writes it.
    """
    scored, trained = (
        _Outputs(folder_of(Path(root), dataset, model), f"{'fuse' if is_fusion(model) else stage}@{dataset}-{model}")
        for root, stage in ((scores, "score"), (models, "train"))
    )
    training = trained.json("metrics.json")
    row = scored.json("metrics.json")
    if row.get("parameters") is None and "parameters" in training:  # the score stage may repeat them
        row["parameters"] = training["parameters"]
    frames = scored.read("frames.parquet", _read_frames)
    history = trained.csv("history.csv") if trained.has("history.csv") else None
    worst = scored.json("worst/worst.json") if scored.has("worst/worst.json") else []
    return System(
        number=number,
        dataset=dataset,
        model=model,
        row=row,
        cost=read_costs(Path(scores), Path(models), dataset, model),
        frames=frames.sort_values(["clip", "frame"], kind="stable", ignore_index=True),
        roc=scored.csv("roc.csv").dropna() if scored.has("roc.csv") else pd.DataFrame(),
        events=scored.csv("events.csv", dtype={"clip": str}),
        worst=[entry | {"picture": scored.folder / "worst" / entry["picture"]} for entry in worst],
        settings=trained.read("config.yaml", lambda path: yaml.safe_load(path.read_text(encoding="utf-8"))),
        training=training,
        history=history,
        samples=_in_order(trained.folder.glob("samples/*.png"), history),
        calibration=scored.json("calibration.json"),
        operating=scored.csv("operating.csv"),
        measures=plain(scored.csv("measures.csv").dropna(subset="auc_micro").to_dict("records")),
        score_stage=scored.stage,
        snapshots=_snapshots(scored),
        rollouts=scored.csv("rollouts/steps.csv") if scored.has("rollouts/steps.csv") else None,
        rollout_folder=scored.folder / "rollouts",
    )


def _read_frames(path: Path) -> pd.DataFrame:
    timed = "seconds" in pq.read_schema(path).names
    return pd.read_parquet(path, columns=[*FRAME_COLUMNS, *(["seconds"] if timed else [])])


def _in_order(samples: Iterable[Path], history: pd.DataFrame | None) -> list[Path]:
    """Sort strips named ``<phase>-<iteration>.png`` in training order."""
    phases = [] if history is None else list(history["phase"].unique())

    def place(path: Path) -> tuple[int, str]:
        phase = path.stem.rpartition("-")[0]
        return (phases.index(phase) if phase in phases else len(phases)), path.stem

    return sorted(samples, key=place)


def _snapshots(scored: _Outputs) -> dict[str, dict]:
    clips = scored.json("snapshots/snapshots.json")
    for clip in clips.values():
        for sheet in clip["sheets"].values():
            sheet["file"] = scored.folder / "snapshots" / sheet["file"]
    return clips


def load_flow_pictures(folder: Path) -> dict:
    """Read the pictures of the optical_flow stage from ``folder``.

    Returns ``longest_px`` and ``pictures``, each with split, clip, frame and ``picture`` as a path. Raises VadError if
    they are missing or unreadable.
    """
    found = _Outputs(folder, f"optical_flow@{folder.parent.name}").json("pictures.json")
    return found | {"pictures": [entry | {"picture": folder / entry["picture"]} for entry in found["pictures"]]}


def same_footage(systems: list[System]) -> None:
    """Check that the systems of one data set scored the same frames with the same labels.

    Raises
    ------
    VadError: frames or labels differ, because one system was scored before the footage or its labels changed.
    """
    first = systems[0]
    for other in systems[1:]:
        if not first.frames[["clip", "frame", "label"]].equals(other.frames[["clip", "frame", "label"]]):
            raise VadError(
                f"scores/{first.dataset}: {first.model} and {other.model} were scored on different frames or labels; "
                f"run `dvc repro --force {first.score_stage} {other.score_stage}`"
            )


def plain(value):
    """Convert a value for JSON: NaN and infinity become None, also inside lists and dicts."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
