"""Train FlowNet on generated pairs whose optical flow is known exactly."""

import shutil
import sys

import pandas as pd

from tasks import paths
from tasks.stage import Stage
from vadcore.evaluation.cost import write_cost
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.flownet import learn_flow
from vadcore.training.trainer import Callback, TrainSettings
from vadcore.utils.code import code_digest
from vadcore.utils.device import choose_device, choose_precision
from vadcore.utils.files import complete, digest_of, write_json


def work(stage: Stage) -> None:
    config, settings, seed = stage.params.flownet[stage.model], stage.params.train, stage.params.seed
    device = choose_device(stage.params.machine.device)
    dtype, why = choose_precision(settings.precision, device)
    stage.say(f"{stage.model}: FlowNet2-SD of width {config.width:g} on {device}, {why}")
    run = TrainSettings(seed=seed, dtype=dtype, **settings.model_dump(exclude={"precision", "val_share"}))
    key = digest_of(
        {
            "flownet": config.model_dump(),
            "train": settings.model_dump(include={"check_every", "val_windows"}),
            "seed": seed,
            "precision": str(dtype),
            "device": device.type,
            "code": code_digest(["vadcore.training.flownet"]),
        }
    )
    checkpoint = CheckpointFolder(paths.CHECKPOINTS / "flownet" / stage.model, f"train-{key}")
    callback = Callback(
        metrics=lambda phase, step, values: stage.run.metrics(values, step),
        picture=lambda path: stage.run.picture(path, "samples", step=int(path.stem)),
        say=stage.say,
        progress=sys.stderr.isatty(),
    )
    out = paths.flownet(stage.model)
    result = learn_flow(config, run, checkpoint, out / "weights.safetensors", device=device, callback=callback)
    with complete(out / "history.csv") as temporary:
        pd.DataFrame(result.history).to_csv(temporary, index=False)
    shutil.rmtree(out / "samples", ignore_errors=True)
    shutil.copytree(checkpoint.folder / "samples", out / "samples")
    metrics = {
        "flownet": stage.model,
        "seed": seed,
        "iterations": result.iterations,
        "best_iteration": result.best_iteration,
        "held_out_epe": result.val_loss,  # pixels, mean over held-out generated pairs
        "precision": str(dtype).removeprefix("torch."),
    }
    cost = {"train_seconds": round(result.seconds, 1)}
    write_json(out / "metrics.json", metrics)
    write_cost(out, cost)
    metrics |= cost
    stage.run.metrics(metrics)
    stage.say(f"{out}: " + ", ".join(f"{key} {value}" for key, value in metrics.items()))
    stage.run.artifact(out / "metrics.json")
    for made in sorted(out.iterdir()):
        stage.run.made(made)
