"""Score a data set's test clips with a trained system, calibrate, and evaluate against the labels."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from tasks import paths
from tasks.parallel import per_clip
from tasks.scoring.pictures import draw_rollouts
from tasks.scoring.results import write_results
from tasks.stage import Stage
from vadcore.data.extract import compared
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment, split_at_pauses
from vadcore.evaluation.inference import ClipScores, score_clip
from vadcore.evaluation.snapshots import snapshot_frames
from vadcore.models import Model, load_model, system_of
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.utils.code import code_digest
from vadcore.utils.device import choose_device, choose_precision
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, digest_of, sha256_files

_LOADED: dict[tuple[Path, str, torch.device], Model] = {}  # at most one model


def work(stage: Stage) -> None:
    params, dataset, name = stage.params, stage.dataset, stage.model
    folder = paths.model(dataset, name)
    frames = ClipStore(paths.frames(dataset), "frames")
    model = load_model(folder)
    flow = ClipStore(paths.flow(dataset), "flow") if model.config.needs_flow else None
    device = choose_device(params.machine.device)
    trained = json.loads((folder / "metrics.json").read_text())
    dtype, why = choose_precision(trained["precision"], device)
    stage.say(f"{name} on {dataset}: {device}" + (f", {why} (as in training)" if model.trained else ""))

    for remark in compared(frames):
        stage.say(f"{frames.url}: {remark}")

    model.to(device)
    clips = [Segment(clip, 0, array.shape[0]) for clip, array in frames.arrays("test").items()]
    pieces = split_at_pauses(clips, frames)
    if short := [piece for piece in pieces if len(piece) < model.windows.length and piece not in clips]:
        stage.say(
            f"{sum(map(len, short))} frames in {len(short)} pieces between pauses of the recording are not scored: they are "
            f"shorter than a window of {model.windows.length} frames"
        )
    pictured = snapshot_frames({segment.clip.name: len(segment) for segment in clips}, params.score.snapshots)
    identity = {
        "model": sha256_files([folder / "weights.safetensors", folder / "config.yaml"]),
        "frames": frames.digest(),
        "flow": flow.digest() if flow else None,
        "precision": str(dtype),
        "snapshots": params.score.snapshots,
        "code": code_digest([f"vadcore.models.{system_of(name)}", "vadcore.evaluation.inference"]),
    }
    if not clips:
        raise VadError(f"{frames.url}: no test clips to score; give the data set footage in its test split")
    parts = CheckpointFolder(paths.checkpoints(dataset, name), f"score-{digest_of(identity)}").folder
    _LOADED[folder, identity["model"], device] = model
    stores = (frames.url, flow.url if flow else None)
    where = folder, identity["model"], *stores, params.machine.device, trained["precision"]
    calls = [
        (part, segment, pictured[segment.clip.name], *where)
        for segment in clips
        if not (part := parts / f"{segment.clip.name}.npz").exists()
    ]
    machine = params.machine  # a cluster, or this process, whose torch uses all cores
    machine = machine if machine.scheduler else machine.model_copy(update={"workers": 1})
    for _, result in per_clip(_score_clip, calls, machine, "score"):
        if isinstance(result, VadError):
            raise result
    scored: dict[Segment, ClipScores] = {}
    seconds = 0.0
    for segment in clips:
        with np.load(parts / f"{segment.clip.name}.npz") as saved:
            named = {key.removeprefix("measure_"): saved[key] for key in saved if key.startswith("measure_")}
            reconstructions = dict(zip(saved["pictured"].tolist(), saved["pictures"], strict=True))
            scored[segment] = ClipScores(named, saved["maps"], reconstructions)
            seconds += float(saved["seconds"])
    footage = ClipLoader.for_model(model, frames, pieces, flow, device=device)
    cost = {"score_fps": round(sum(map(len, clips)) / seconds, 1)}
    draw_rollouts(stage, paths.scores(dataset, name) / "rollouts", model, footage, dtype)
    write_results(stage, model.score, model.config.facts, scored, cost, frames, flow)


def _loaded(folder: Path, digest: str, device: torch.device) -> Model:
    """Return the model in ``folder`` on ``device``. It is loaded once per process and ``digest`` of its files."""
    if (folder, digest, device) not in _LOADED:
        _LOADED.clear()
        _LOADED[folder, digest, device] = load_model(folder).to(device)
    return _LOADED[folder, digest, device]


def _score_clip(
    part: Path,
    segment: Segment,
    pictured: np.ndarray,
    folder: Path,
    digest: str,
    frames_url: Path,
    flow_url: Path | None,
    wanted_device: str,
    precision: str,
) -> None:
    """Write measures, error maps and reconstructions of one clip to ``part``; runs here or on another machine."""
    device = choose_device(wanted_device)
    model = _loaded(folder, digest, device)
    dtype, _ = choose_precision(precision, device)
    flow = ClipStore(flow_url, "flow") if flow_url else None
    footage = ClipLoader.for_model(model, ClipStore(frames_url, "frames"), [segment], flow, device=device)
    started = time.monotonic()
    result = score_clip(model, footage, 0, dtype, pictured.tolist())
    arrays = {f"measure_{key}": values for key, values in result.measures.items()}
    arrays |= {
        "maps": result.maps,
        "pictured": np.array(list(result.reconstructions), np.int64),
        "pictures": np.array(list(result.reconstructions.values()), np.uint8),
        "seconds": time.monotonic() - started,
    }
    with complete(part) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
