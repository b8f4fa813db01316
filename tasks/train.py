"""Train a system on a data set's normal footage, and score normal footage for calibration."""

import inspect
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tasks import paths, processes
from tasks.stage import Stage
from vadcore.data.loader import ClipLoader, check_one_size
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment, blocks_of, hold_out, split_at_pauses
from vadcore.evaluation.cost import write_cost
from vadcore.evaluation.inference import MAP_MAX, score_clip
from vadcore.models import Model, ModelConfig, create_model, save_model, system_of
from vadcore.models.card import model_card
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, Trained, TrainSettings, train
from vadcore.utils.code import code_digest
from vadcore.utils.device import choose_device, choose_precision, peak_memory_mb
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, digest_of, sha256_files, write_json, write_text
from vadcore.utils.provenance import processor

# torch's optimizers import torch._dynamo at first use, which takes 0.8 s and is needed only for torch.compile
for _method in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    setattr(torch.optim.Optimizer, _method, inspect.unwrap(getattr(torch.optim.Optimizer, _method)))


FOLDS = 3  # parts of the training clips, each scored by statistics of the others
MOST_SEEN = 6_000  # normal frames in all, up to which the clips that a network was trained on are scored, too
MOST_UNSEEN = 36_000  # the same for systems without a trained network
# a model, the normal footage that it scores, and whether it was trained on that
Scoring = tuple[Model, list[Segment], bool]
PICTURE_FIGURES = ("psnr", "ssim", "sharpness")
PRINTED = (
    "parameters",
    "iterations",
    "best_iteration",
    "val_loss",
    *PICTURE_FIGURES,
    "train_seconds",
    "peak_memory_mb",
)


def work(stage: Stage) -> None:
    params, dataset, name = stage.params, stage.dataset, stage.model
    config, settings = params.model[name], params.train
    seed = params.seed if config.seed is None else config.seed
    device = choose_device(params.machine.device)
    dtype, why = choose_precision(settings.precision, device)

    frames = ClipStore(paths.frames(dataset), "frames")
    flow = ClipStore(paths.flow(dataset), "flow") if config.needs_flow else None
    if config.image_size is None:
        check_one_size(frames, frames.arrays())  # also of the test clips, before any training
    clips, digest = frames.arrays("train"), frames.digest()
    lengths = {clip: array.shape[0] for clip, array in clips.items()}
    groups = {clip: array.attrs.get("group") for clip, array in clips.items()}
    kept, held = hold_out(lengths, settings.val_share, params.seed, groups)  # the same clips for every system
    torch.manual_seed(seed)
    model = create_model(name, config)
    stage.say(f"{name} on {dataset}: {device}, {why if model.trained else 'without training'}")
    where = {"device": device, "cache": params.machine.cache}
    val = ClipLoader.for_model(model, frames, split_at_pauses(held, frames), flow, **where)

    decides = {
        "train": settings.model_dump(exclude={"log_every", "save_seconds"}),
        "seeds": [params.seed, seed],
        "precision": str(dtype),
        "device": device.type,
        "frames": digest,
        "code": code_digest([f"vadcore.models.{system_of(name)}", "vadcore.training.trainer"]),
    }
    key = digest_of(
        {
            **decides,
            "model": config.model_dump(exclude=set(config.scoring_keys)),
            "flow": flow.digest() if flow else None,
            "files": sha256_files(_existing(config.files, name)),
        }
    )
    if flow and (other := differing_flow_settings(flow, config.flow_made_by, frames, config.channels)):
        stage.say(
            f"{paths.flow(dataset)}: computed with other settings than the flow of {name}, so a loss between them also "
            f"measures this difference; to remove it, set {', '.join(other)}"
        )
    checkpoint = CheckpointFolder(paths.checkpoints(dataset, name), f"train-{key}")
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    stage.run.dataset(dataset, digest, str(paths.frames(dataset)), "train")
    stage.run.params({"parameters": parameters, "device": str(device), "dtype": str(dtype)})

    first = _shared_checkpoint(stage, config, decides)
    phases = model.phases()
    parts = [model, *([model.trained_first] if model.trained_first else [])]
    learning = [phase.name for part in parts for phase in part.phases() if phase.optimizers]
    callback = Callback(
        metrics=lambda phase, step, values: stage.run.metrics(
            values if [phase] == learning else {f"{phase}/{key}": value for key, value in values.items()}, step
        ),
        picture=lambda path: stage.run.picture(path, "samples", step=int(path.stem.rpartition("-")[2])),
        say=stage.say,
        progress=sys.stderr.isatty(),
    )
    result, scorings = Trained(), [(model, held, False)]
    if phases:
        footage = ClipLoader.for_model(model, frames, split_at_pauses(kept, frames), flow, **where)
        stage.say(
            f"{parameters} parameters; {len(kept)} clips to train on, {len(held)} held out; windows from {footage.cache}"
            + (f"; {processes.world_size()} processes train together" if processes.launched() else "")
        )
        run = TrainSettings(seed=seed, dtype=dtype, **settings.model_dump(exclude={"precision", "val_share"}))
        result = train(model, footage, val, run, checkpoint, callback, first)
    room = (MOST_SEEN if model.trained else MOST_UNSEEN) - sum(map(len, held))
    pieces = _at_random(blocks_of(kept), room, params.seed)
    if model.trained or not phases:
        scorings.append((model, pieces, model.trained))
    else:
        for fold in range(FOLDS):
            part = pieces[fold::FOLDS]
            rest = [block for block in blocks_of(kept) if block not in part]
            if part and rest:
                other = create_model(name, config)
                footage = ClipLoader.for_model(other, frames, split_at_pauses(rest, frames), flow, **where)
                folder = CheckpointFolder(checkpoint.folder / f"fold-{fold}", "train")
                train(other, footage, val, run, folder, Callback(progress=False))
                scorings.append((other, part, False))
    if processes.rank():
        return  # only the first process scores and writes

    out = paths.model(dataset, name)
    _write(out, name, model.to("cpu"), [checkpoint, *([first] if first else [])], result)
    model.to(device)
    judging = digest_of(
        [config.model_dump(), code_digest([f"vadcore.models.{system_of(name)}", "vadcore.evaluation.inference"])]
    )
    judged = checkpoint.folder / f"normal-{judging[:16]}.parquet"
    if not judged.exists():
        judged.parent.mkdir(parents=True, exist_ok=True)
        _score_normal(judged, scorings, frames, flow, where, dtype)
    with complete(out / "normal.parquet") as temporary:
        shutil.copy(judged, temporary)
    metrics = {
        "dataset": dataset,
        "model": name,
        "seed": seed,
        "trained": model.trained,
        "parameters": parameters,
        "iterations": result.iterations,
        "best_iteration": result.best_iteration,
        "val_loss": result.val_loss,
        **dict.fromkeys(PICTURE_FIGURES),  # of the kept weights, if the system makes pictures
        **result.quality,
        "image_size": list(val.size),
        "color": config.color,
        "precision": str(dtype if model.trained else torch.float32).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
    }
    cost = {
        "train_seconds": round(result.seconds, 1),  # including check points and saving
        "windows_per_second": round(result.windows / result.step_seconds, 1) if result.windows else None,
        "peak_memory_mb": round(result.peak_memory_mb or peak_memory_mb(device)),
    }
    write_json(out / "metrics.json", metrics)
    write_text(out / "README.md", model_card(name, config, metrics, len(kept), len(held), str(out)))
    write_cost(out, cost)
    metrics |= cost
    # kept_psnr and so on: psnr itself is a curve over iterations, and this value would be added to it at step 0
    stage.run.metrics({f"kept_{k}" if k in PICTURE_FIGURES else k: v for k, v in metrics.items()})
    stage.say(f"{out}: " + ", ".join(f"{k} {v}" for k, v in metrics.items() if k in PRINTED and v is not None))
    stage.run.artifact(out / "metrics.json")
    stage.run.model(out)
    for made in sorted(out.iterdir()):
        stage.run.made(made)


def _shared_checkpoint(stage: Stage, config: ModelConfig, decides: dict) -> CheckpointFolder | None:
    """Return the checkpoint folder of the part that is trained first; systems with the same part share it."""
    if config.trained_first is None:
        return None
    same = {"part": config.trained_first.model_dump(), "size": config.image_size, "color": config.color}
    root = paths.CHECKPOINTS / stage.dataset / f"{system_of(stage.model)}.first"
    return CheckpointFolder(root, digest_of({**decides, **same}))


def _existing(files: tuple[str, ...], model: str) -> list[Path]:
    """Return the paths of the files that a system's training reads. Raises VadError if one is missing."""
    for file in files:
        if not Path(file).is_file():
            raise VadError(f"model.{model}: {file}: missing; correct the path, or add a section flownet.<name> for it")
    return [Path(file) for file in files]


def differing_flow_settings(flow: ClipStore, wanted: dict, frames: ClipStore, channels: int) -> list[str]:
    """Return the settings, as ``key: value``, in which a system's own optical flow differs from the stored flow.

    Parameters
    ----------
    flow: the stored flow.
    wanted: settings of the flow that the system computes itself.
    channels: colour channels of the pictures that it computes flow from.
    """
    plain = dict(wanted)
    if "weights" in wanted:
        plain["weights"] = sha256_files([Path(wanted["weights"])])
    differing = set()
    for clip in flow.clips("train"):
        known = flow.attributes(clip)
        made = {"estimator": known["estimator"], "size": list(flow.array(clip).shape[2:]), **known["options"]}
        differing |= {key for key in plain if plain[key] != made.get(key)}
    settings = [f"optical_flow.{key}: {value}" for key, value in wanted.items() if key in differing]
    if wanted and any(frames.array(clip).shape[-1] != channels for clip in flow.clips("train")):
        settings.append("color: rgb for the system too")  # it cannot use more colours than are stored
    return settings


def _write(out: Path, name: str, model: Model, checkpoints: list[CheckpointFolder], result: Trained) -> None:
    """Write the outs of a training from its final state, even if a killed stage had already written some of them."""
    save_model(model, name, out)
    history = pd.DataFrame(result.history, columns=None if result.history else ["phase", "iteration", "loss", "val"])
    lengths = history.groupby("phase", sort=False)["iteration"].max()
    history["step"] = history["iteration"] + history["phase"].map(lengths.cumsum() - lengths)  # counted over all phases
    with complete(out / "history.csv") as temporary:
        history.to_csv(temporary, index=False)
    samples = out / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir(parents=True)
    for drawn in (checkpoint.folder / "samples" for checkpoint in checkpoints):
        if drawn.is_dir():
            shutil.copytree(drawn, samples, dirs_exist_ok=True)
    if not any(samples.iterdir()):
        (samples / "none.txt").write_text("This system makes no reconstructions or predictions.\n")


def _at_random(pieces: list[Segment], most: int, seed: int) -> list[Segment]:
    """Return pieces in random order with at most ``most`` frames in total. A smaller ``most`` gives a subset."""
    order = np.random.default_rng([seed, 5]).permutation(len(pieces))
    total = np.cumsum([len(pieces[n]) for n in order])
    return [pieces[n] for n, frames in zip(order, total, strict=True) if frames <= most]


def _score_normal(
    path: Path, scorings: list[Scoring], frames: ClipStore, flow: ClipStore | None, where: dict, dtype
) -> None:
    """Write the raw measures of normal footage and the maximum of each map. The first scoring covers the held-out footage.

    Calibration and fusions use them, so that changing either needs no new training.
    """
    tables = []
    times = frames.own_times({segment.clip for _, segments, _ in scorings for segment in segments})
    for number, (model, segments, seen) in enumerate(scorings):
        footage = ClipLoader.for_model(model.to(where["device"]), frames, segments, flow, **where)
        for place, segment in enumerate(segments):
            measured = score_clip(model, footage, place, dtype)
            known = {"clip": segment.clip.name, "start": segment.start, "frame": np.arange(segment.start, segment.stop)}
            known["fps"] = frames.attributes(segment.clip)["fps"]
            if times:
                known["seconds"] = frames.times(segment.clip)[segment.start : segment.stop]
            known |= {"held_out": number == 0, "seen": seen}
            tables.append(pd.DataFrame({**known, **measured.measures, MAP_MAX: measured.map_max}))
    table, model = pd.concat(tables, ignore_index=True), scorings[0][0]
    if table.loc[table["held_out"], model.score].notna().sum() == 0:
        raise VadError(
            f"{frames.url}: the held-out clips are shorter than one window of {model.windows.length} frames; "
            "give longer training clips or a larger train.val_share"
        )
    with complete(path) as temporary:
        table.to_parquet(temporary, index=False)
