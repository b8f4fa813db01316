"""Compare training of the latent LSTM on stored latent points with encoding its windows on the fly.

    python -m benchmarks.latent_ratios [--out benchmarks/results/latent-ratios.json]

Uses Moving MNIST made from scikit-learn's digits; the choice of digits does not affect the speed. Measures frames per
second of a training step. Both variants train on the same windows with the same step.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from benchmarks.ratios import row, side_by_side, synchronize
from benchmarks.result import write_result
from vadcore.data import formats as datasets
from vadcore.data.extract import extract_clip
from vadcore.data.formats.moving_mnist import MovingMnistConfig
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Sampler, Segment
from vadcore.models import create_model
from vadcore.models.latent.points import PointBatch, Points
from vadcore.training.trainer import _Updates
from vadcore.utils.device import autocast, choose_device, choose_precision

PROFILE = Path(__file__).parents[1] / "profiles" / "moving-mnist-cpu.yaml"
CLIPS = 80
CASES = {  # case -> settings of latent_lstm, steps per round
    "as in moving-mnist-cpu, vcae": ("latent_lstm-vcae-mse", 6),
    "as in moving-mnist-cpu, cae_vae": ("latent_lstm-cae_vae-mse", 6),
    "as published, vcae": ({}, 1),
    "as published, cae_vae": ({"front_end": {"name": "cae_vae"}}, 1),
}


def stored(folder: Path) -> ClipStore:
    """Extract sequences of 30 frames and return their store."""
    config = MovingMnistConfig(format="moving_mnist", source="scikit-learn", train_clips=CLIPS, test_clips=1)
    datasets.prepare(config, folder / "raw", lambda text: None)
    frames, masks = folder / "frames.zarr", folder / "masks.zarr"
    for url, kind in ((frames, "frames"), (masks, "masks")):
        ClipStore(url, kind, write=True)
    for clip in datasets.clips(config, folder / "raw"):
        extract_clip(clip, config, frames, masks)
    return ClipStore(frames, "frames")


def step(what: str, settings: dict, steps: int, frames: ClipStore, device: torch.device) -> dict:
    torch.manual_seed(0)
    model = create_model("latent_lstm", settings | {"iterations": steps}).to(device).train()
    phase = model.phases()[0]
    phase.begin()
    segments = [Segment(clip, 0, frames.length(clip)) for clip in frames.clips("train")]
    footage = ClipLoader.for_model(model, frames, segments, None, device=device)
    dtype, _ = choose_precision("auto", device)
    points = Points(model.front, footage, dtype)
    sampler = Sampler(footage.lengths, phase.windows, phase.batch_size, phase.sampling, 0)
    plan = [sampler.batch(n) for n in range(steps)]
    length, update = phase.windows.length, _Updates(phase, processes=1)
    shown = steps * phase.batch_size * length

    def on_the_fly() -> int:
        for batch in footage.batches(plan, length):
            with autocast(device, dtype):
                with torch.no_grad():
                    encoded = PointBatch(*model._points(batch.frames))
                phase.step(encoded, update)
        synchronize(device)
        return shown

    def from_points() -> int:
        for batch in points.batches(plan, length):
            with autocast(device, dtype):
                phase.step(batch, update)
        synchronize(device)
        return shown

    both: tuple[Callable[[], int], Callable[[], int]] = (on_the_fly, from_points)
    return row(f"latent_lstm ({what}), stored points against encoding", "frames/s", *side_by_side(*both), 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = choose_device()
    profile = yaml.safe_load(PROFILE.read_text())["model"]
    with tempfile.TemporaryDirectory() as temporary:
        frames = stored(Path(temporary))
        rows = [
            step(what, profile[case] if isinstance(case, str) else case, steps, frames, device)
            for what, (case, steps) in CASES.items()
        ]
    if arguments.out:
        write_result(arguments.out, rows, profile=None)


if __name__ == "__main__":
    main()
