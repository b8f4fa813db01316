"""Score a data set's test clips with a trained system, calibrate, and evaluate against the labels."""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from tasks import paths
from tasks.stage import Stage, stage_main
from vadcore.calibrate import Calibration, calibrate
from vadcore.checkpoint import CheckpointFolder
from vadcore.device import choose_device, choose_precision
from vadcore.evaluate import evaluate, score_table
from vadcore.events import find_events, smooth
from vadcore.files import complete, digest_of, sha256_files, write_json, write_text
from vadcore.footage import Footage
from vadcore.metrics import roc_curve
from vadcore.models import code_digest, load_model
from vadcore.render import beside, write_png
from vadcore.score import Measured, measure
from vadcore.store import ClipStore
from vadcore.windows import Segment


SCORING_CODE = ("score.py", "windows.py", "footage.py", "device.py", "models/base.py")


def score_stage(stage: Stage) -> None:
    params, dataset, name = stage.params, stage.dataset, stage.model
    folder, out = paths.model(dataset, name), paths.scores(dataset, name)
    frames = ClipStore(paths.frames(dataset), "frames")
    masks = ClipStore(paths.masks(dataset), "masks")
    model = load_model(folder)
    flow = ClipStore(paths.flow(dataset), "flow") if model.config.needs_flow else None
    device = choose_device(params.machine.device)
    trained = json.loads((folder / "metrics.json").read_text())
    dtype, why = choose_precision(trained["precision"], device)
    stage.say(f"{name} on {dataset}: {device}, {why} (that of training)")

    calibration = _calibrate(stage, pd.read_parquet(folder / "held_out.parquet"), model.score)
    model.to(device)
    clips = [Segment(clip, 0, frames.length(clip)) for clip in frames.clips("test")]
    identity = {
        "model": sha256_files([folder / "weights.safetensors", folder / "config.yaml"]),
        "frames": frames.digest(),
        "flow": flow.digest() if flow else None,
        "precision": str(dtype),
        "code": code_digest(name, SCORING_CODE),
    }
    parts = CheckpointFolder(paths.checkpoints(dataset, name), f"score-{digest_of(identity)}").folder
    measured: dict[str, Measured] = {}
    seconds = 0.0
    for segment in tqdm(clips, desc="score", unit="clip", mininterval=1 if sys.stderr.isatty() else 10):
        part = parts / f"{segment.clip.name}.npz"
        if not part.exists():
            footage = Footage.for_model(model, frames, [segment], flow, device=device, cache="ram")
            started = time.monotonic()
            result = measure(model, footage, 0, dtype)
            with complete(part) as temporary, temporary.open("wb") as file:
                named = {f"measure_{key}": values for key, values in result.measures.items()}
                np.savez(file, maps=result.maps, seconds=time.monotonic() - started, **named)
        with np.load(part) as saved:
            named = {key.removeprefix("measure_"): saved[key] for key in saved if key.startswith("measure_")}
            measured[segment.clip.name] = Measured(named, saved["maps"])
            seconds += float(saved["seconds"])

    fps = {segment.clip.name: frames.attributes(segment.clip)["fps"] for segment in clips}
    labels = {segment.clip.name: frames.labels(segment.clip) for segment in clips}
    table = score_table(
        {clip: result.measures for clip, result in measured.items()},
        model.score,
        labels,
        fps,
        smoothing=params.score.smoothing,
        calibration=calibration,
    )
    truth = {clip.name: masks.read(clip) for clip in masks.clips("test")}
    row = {
        "dataset": dataset,
        "model": name,
        "seed": trained["seed"],
        "label_set": json.loads(paths.facts(dataset).read_text())["label_set"],
        "score_measure": model.score,
        "smoothing_frames": params.score.smoothing,
        **evaluate(table, calibration, params.calibrate, {clip: r.maps for clip, r in measured.items()}, truth),
        "score_fps": round(sum(map(len, clips)) / seconds, 1),
        **{key: trained[key] for key in ("trained", "train_seconds", "parameters", "iterations", "precision")},
    }
    out.mkdir(parents=True, exist_ok=True)
    with complete(out / "frames.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    with complete(out / "roc.csv") as temporary:
        roc_curve(table).to_csv(temporary, index=False)
    events = _events(table, calibration, params.calibrate)
    with complete(out / "events.csv") as temporary:
        events.to_csv(temporary, index=False)
    write_text(out / "calibration.json", calibration.to_json())
    shutil.rmtree(out / "maps", ignore_errors=True)
    (out / "maps").mkdir()
    for clip, result in measured.items():
        with complete(out / "maps" / f"{clip}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, maps=result.maps)
    _worst(out / "worst", table, measured, frames, truth, calibration, params.score.worst)
    write_json(out / "metrics.json", row)
    _log(stage, out, row)


if __name__ == "__main__":
    stage_main("score", score_stage, ("dataset", "model"), __doc__)
