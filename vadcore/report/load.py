"""Load the results of scoring and training for one system on one data set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from vadcore.evaluation.cost import read_costs
from vadcore.utils.errors import VadError
from vadcore.utils.folders import folder_of, is_fusion

FRAME_COLUMNS = ("clip", "frame", "label", "fps", "score", "p_value")


@dataclass(frozen=True)
class System:
    """One model on one data set.

    Attributes
    ----------
    row: its row of the results table. AUC and similar metrics in 0..1, None where a metric does not exist.
    frames: one row per frame, sorted by clip and frame: clip, frame, label (0, 1, NaN), fps, score (NaN: not scored),
        p_value.
    roc: fpr, tpr, threshold. None or empty unless both classes are labelled.
    events: the alarms: clip, start_frame, end_frame (inclusive), peak_frame, peak_score, ...
    worst: its highest-scoring frames, with ``picture`` as a path.
    settings: the configuration with which the system was trained.
    cost: measured cost of training and scoring on this machine; empty where unknown.
    training: measurements of the training stage. ``history``: its losses over iterations. ``samples``: its strips of
        pictures, sorted by phase and iteration (an animation may exist next to each). None and empty for systems
        without training.
    calibration: how the threshold was calibrated. operating: the operating curve, one row per target false-alarm rate.
    score_stage: the stage that wrote the scores.
    snapshots: pictures per clip for the page: ``frames`` (frame numbers) and ``sheets``, whose files are paths.
    rollouts: error of multi-step predictions, one row per step ahead. None for a system that does not roll out its own
        predictions, or if no clip was long enough. rollout_folder: their pictures.
    """

    dataset: str
    model: str
    row: dict
    cost: dict
    frames: pd.DataFrame
    roc: pd.DataFrame | None
    events: pd.DataFrame
    worst: list[dict]
    settings: dict
    training: dict
    history: pd.DataFrame | None
    samples: list[Path]
    calibration: dict
    operating: pd.DataFrame
    score_stage: str
    snapshots: dict[str, dict]
    rollouts: pd.DataFrame | None
    rollout_folder: Path

    @property
    def labelled(self) -> bool:
        return bool(self.frames["label"].notna().any())


def load_system(scores: Path, models: Path, dataset: str, model: str) -> System:
    """Read the results of scoring and training (or fusion) from the folders ``scores`` and ``models``.

    Raises
    ------
    VadError: a file is missing or unreadable. The message names the stage that writes it.
    """
    scored, trained = (folder_of(Path(root), dataset, model) for root in (scores, models))
    score_stage, train_stage = (
        f"{'fuse' if is_fusion(model) else stage}@{dataset}-{model}" for stage in ("score", "train")
    )
    training = _read_json(trained / "metrics.json", train_stage)
    row = _read_json(scored / "metrics.json", score_stage)
    if row.get("parameters") is None and "parameters" in training:  # the score stage may repeat them
        row["parameters"] = training["parameters"]

    frames = _read(pd.read_parquet, scored / "frames.parquet", score_stage)
    lacking = [column for column in FRAME_COLUMNS if column not in frames]
    if lacking:
        raise VadError(
            f"{scored / 'frames.parquet'}: no column {', '.join(lacking)}; run `dvc repro --force {score_stage}`"
        )
    frames = frames[list(FRAME_COLUMNS)].sort_values(["clip", "frame"], kind="stable", ignore_index=True)

    worst = scored / "worst" / "worst.json"
    history = _read(pd.read_csv, trained / "history.csv", train_stage) if (trained / "history.csv").exists() else None
    return System(
        dataset=dataset,
        model=model,
        row=row,
        cost=read_costs(Path(scores), Path(models), dataset, model),
        frames=frames,
        roc=_read(pd.read_csv, scored / "roc.csv", score_stage).dropna() if (scored / "roc.csv").exists() else None,
        events=_read(pd.read_csv, scored / "events.csv", score_stage, dtype={"clip": str}),
        worst=[entry | {"picture": worst.parent / entry["picture"]} for entry in _read_json(worst, score_stage)]
        if worst.exists()
        else [],
        settings=_read(
            lambda file: yaml.safe_load(file.read_text(encoding="utf-8")), trained / "config.yaml", train_stage
        ),
        training=training,
        history=history,
        samples=_in_order(trained.glob("samples/*.png"), history),
        calibration=_read_json(scored / "calibration.json", score_stage),
        operating=_read(pd.read_csv, scored / "operating.csv", score_stage),
        score_stage=score_stage,
        snapshots=_snapshots(scored / "snapshots", score_stage),
        rollouts=_read(pd.read_csv, steps, score_stage)
        if (steps := scored / "rollouts" / "steps.csv").exists()
        else None,
        rollout_folder=scored / "rollouts",
    )


def _in_order(samples: Iterable[Path], history: pd.DataFrame | None) -> list[Path]:
    """Sort strips named ``<phase>-<iteration>.png`` in training order."""
    phases = {phase: place for place, phase in enumerate([] if history is None else history["phase"].unique())}
    return sorted(samples, key=lambda path: (phases.get(path.stem.rpartition("-")[0], len(phases)), path.stem))


def _snapshots(folder: Path, stage: str) -> dict[str, dict]:
    clips = _read_json(folder / "snapshots.json", stage)
    for clip in clips.values():
        clip["sheets"] = {kind: sheet | {"file": folder / sheet["file"]} for kind, sheet in clip["sheets"].items()}
    return clips


def load_flow_pictures(folder: Path) -> dict:
    """Read the pictures of the optical_flow stage from ``folder``.

    Returns ``longest_px`` and ``pictures``, each with split, clip, frame and ``picture`` as a path. Raises VadError if
    they are missing or unreadable.
    """
    found = _read_json(folder / "pictures.json", f"optical_flow@{folder.parent.name}")
    pictures = [entry | {"picture": folder / entry["picture"]} for entry in found["pictures"]]
    return {"longest_px": found["longest_px"], "pictures": pictures}


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


def _read_json(path: Path, stage: str):
    return plain(_read(lambda file: json.loads(Path(file).read_text(encoding="utf-8")), path, stage))


def _read(reader, path: Path, stage: str, **options):
    if not path.exists():
        raise VadError(f"{path}: does not exist; run `dvc repro {stage}`")
    try:
        return reader(path, **options)
    except (ValueError, OSError) as error:  # pandas, pyarrow and json raise subclasses of these
        reason = " ".join(str(error).split())
        raise VadError(f"{path}: cannot be read ({reason}); run `dvc repro --force {stage}`") from error
