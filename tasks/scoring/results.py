"""Results of a system from its measures and maps: calibration, tables, figures, pictures, a registered model version."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import paths
from tasks.scoring.curves import curves
from tasks.scoring.pictures import draw_snapshots, draw_worst, heat_scale
from tasks.stage import Stage
from tasks.tracking.registry import registered_name
from vadcore.config import Params
from vadcore.data.store import ClipId, ClipStore
from vadcore.data.windows import Segment
from vadcore.evaluation.calibration import Calibration, calibrate
from vadcore.evaluation.cost import read_cost, write_cost
from vadcore.evaluation.evaluate import RANKING, event_table, measure_table, result_row, score_table
from vadcore.evaluation.events import smooth, times_of
from vadcore.evaluation.frame_metrics import join_labels, roc_curve
from vadcore.evaluation.inference import ClipScores
from vadcore.evaluation.operating import operating_points
from vadcore.evaluation.preprocess import MEMBERS, SYSTEM, describe, pack
from vadcore.evaluation.trial import val_digest
from vadcore.utils.files import complete, write_json, write_text


def write_results(
    stage: Stage,
    score: str,
    facts: dict,
    scored: dict[Segment, ClipScores],
    cost: dict,
    frames: ClipStore,
    flow: ClipStore | None,
) -> None:
    """Calibrate on the held-out footage, evaluate the test clips, write the results, log them and register the model.

    Parameters
    ----------
    score: name of the measure that is the score.
    facts: further facts about the system for its row of results.
    scored: measures, maps and reconstructions of every test clip.
    cost: cost of scoring.
    frames, flow: the stores; flow is None if the system needs none.
    """
    params, dataset, name = stage.params, stage.dataset, stage.model
    folder, out = paths.model(dataset, name), paths.scores(dataset, name)
    masks = ClipStore(paths.masks(dataset), "masks")
    calibration = _calibrate(pd.read_parquet(folder / "normal.parquet"), score, params)
    trained = json.loads((folder / "metrics.json").read_text())
    fps = {segment.clip.name: frames.attributes(segment.clip)["fps"] for segment in scored}
    labels = {segment.clip.name: frames.labels(segment.clip) for segment in scored}
    maps = {segment.clip.name: of_clip.maps for segment, of_clip in scored.items()}
    raw = {segment.clip.name: of_clip.measures for segment, of_clip in scored.items()}
    times = frames.own_times(segment.clip for segment in scored)
    table = join_labels(score_table(raw, score, fps, params.score.smoothing, calibration, times), labels)
    events = event_table(table, calibration, params.calibrate)
    operating = operating_points(table, calibration, params.calibrate)
    measures = measure_table(table, next(iter(raw.values())), params.score.smoothing)
    row = {
        "dataset": dataset,
        "model": name,
        "seed": trained["seed"],
        **facts,
        "label_set": json.loads(paths.facts(dataset).read_text())["label_set"],
        "score_measure": score,
        "smoothing_frames": params.score.smoothing,
        **result_row(table, calibration, params.calibrate, maps, _Masks(masks)),
        **{key: trained[key] for key in ("trained", "parameters", "iterations", "precision")},
    }
    _write(out, row, table, events, operating, measures, calibration, maps)
    write_cost(out, cost)
    scale = heat_scale(maps)
    draw_worst(out / "worst", _worst(table, calibration, params), maps, scale, frames, masks)
    draw_snapshots(out / "snapshots", scored, params.score.snapshots, scale, frames, masks)
    row |= cost | {"train_seconds": read_cost(folder).get("train_seconds")}
    _log(stage, out, row)
    _register(stage, folder, out, frames, flow, row)


class _Masks(Mapping):
    """Mapping from clip to masks ``[T, H, W]``, read on access: all masks of a data set may not fit into memory."""

    def __init__(self, store: ClipStore):
        self.store, self.names = store, [clip.name for clip in store.clips("test")]

    def __getitem__(self, clip: str) -> np.ndarray:
        return self.store.read(ClipId("test", clip))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _calibrate(normal: pd.DataFrame, measure_name: str, params: Params) -> Calibration:
    """Calibrate from the raw measures of the normal clips, smoothed like the test scores."""
    pieces = {
        f"{clip}, from frame {start}": rows for (clip, start), rows in normal.groupby(["clip", "start"], sort=True)
    }
    timed = {name: times_of(rows) for name, rows in pieces.items()}
    scores = {
        name: smooth(rows[measure_name].to_numpy(np.float64), params.score.smoothing, *timed[name])
        for name, rows in pieces.items()
    }
    fps = {name: rate for name, (rate, _) in timed.items()}
    seconds = {name: times for name, (_, times) in timed.items() if times is not None}
    seen = {name for name, rows in pieces.items() if rows["seen"].iloc[0]}
    settings = params.calibrate
    rule = (settings.target_far_per_hour, settings.merge_gap_s, settings.min_event_s)
    return calibrate(scores, fps, *rule, seen, seconds)


def _write(
    out: Path, row: dict, table, events, operating, measures, calibration: Calibration, maps: dict[str, np.ndarray]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with complete(out / "frames.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    tables = {"roc": roc_curve(table), "events": events, "operating": operating, "measures": measures}
    for name, written in tables.items():
        with complete(out / f"{name}.csv") as temporary:
            written.to_csv(temporary, index=False)
    write_text(out / "calibration.json", calibration.to_json())
    shutil.rmtree(out / "maps", ignore_errors=True)
    (out / "maps").mkdir()
    with ThreadPoolExecutor() as pool:  # compression releases the interpreter lock
        list(pool.map(lambda clip: _write_maps(out / "maps" / f"{clip}.npz", maps[clip]), maps))
    write_json(out / "metrics.json", row)


def _write_maps(path: Path, maps: np.ndarray) -> None:
    with complete(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, maps=maps)


def _worst(table: pd.DataFrame, calibration: Calibration, params: Params) -> list[dict]:
    """Return the frames with the highest scores, at least one second apart within a clip."""
    chosen: list[dict] = []
    times: list[tuple[str, float]] = []
    table = table if "seconds" in table else table.assign(seconds=table["frame"] / table["fps"])
    for frame in table.dropna(subset=["score"]).sort_values(["score", "clip", "frame"], ascending=False).itertuples():
        least = max(1, 1 / frame.fps) + 1e-6
        if all(clip != frame.clip or abs(second - frame.seconds) > least for clip, second in times):
            times.append((frame.clip, frame.seconds))
            chosen.append(
                {
                    "clip": frame.clip,
                    "frame": int(frame.frame),
                    "score": float(frame.score),
                    "p_value": float(frame.p_value),
                    "label": None if pd.isna(frame.label) else int(frame.label),
                    "picture": f"{frame.clip}-{frame.frame:05d}.png",
                }
            )
        if len(chosen) == params.score.worst:
            break
    return chosen


def _log(stage: Stage, out: Path, row: dict) -> None:
    stage.run.metrics(row)
    for step, figures in curves(pd.read_csv(out / "roc.csv"), pd.read_csv(out / "operating.csv")):
        stage.run.metrics(figures, step)
    for measure in pd.read_csv(out / "measures.csv").to_dict("records"):
        found = {f"{key}/{measure['measure']}": measure[key] for key in RANKING if not pd.isna(measure[key])}
        stage.run.metrics(found)
    for file in ("metrics.json", "roc.csv", "events.csv", "operating.csv", "measures.csv", "calibration.json"):
        stage.run.artifact(out / file)
    stage.run.artifact(out / "worst", "worst")
    for made in sorted(out.iterdir()):
        stage.run.made(made)
    printed = ("auc_micro", "auc_micro_minmax", "auc_macro", "eer", "pixel_auc")
    figures = ", ".join(f"{key} {row[key]:.4f}" for key in printed if row.get(key) is not None)
    speed = f"; {row['score_fps']:.0f} frames a second" if "score_fps" in row else ""
    stage.say(f"{out}: {figures or 'no figures: ' + _why_none(row)}{speed}")


def _register(stage: Stage, folder: Path, out: Path, frames: ClipStore, flow: ClipStore | None, row: dict) -> None:
    """Register the files that detection needs as a version of the data set's model in the MLflow registry."""
    weights = getattr(stage.params.optical_flow, "weights", None)
    normal = pd.read_parquet(folder / "normal.parquet")
    last = normal[normal["held_out"]].groupby(["clip", "start"])["frame"].max()
    pieces = [(clip, start, stop + 1) for (clip, start), stop in last.items()]
    tags = {key: value for key, value in row.items() if value is not None}
    tags |= {"vad.dataset": stage.dataset, "vad.model": stage.model, "vad.val": val_digest(pieces)}
    with tempfile.TemporaryDirectory() as temporary:
        detector = Path(temporary) / "detector"
        pack(describe(folder, out, frames, flow, weights), folder, out / "calibration.json", detector)
        more = sorted(path for path in detector.iterdir() if path.name not in (*SYSTEM, MEMBERS))
        stage.run.model(detector, more, registered_name(stage.dataset), tags)


def _why_none(row: dict) -> str:
    if row["frames_unlabelled"]:
        return "the footage is not labelled"
    return "the scored frames are all normal or all abnormal"
