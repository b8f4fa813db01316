"""Measure the cost of optical flow in training and in its stage, as ratios measured side by side.

    python -m benchmarks.flow_ratios [--frames FOLDER] [--flownet FILE] [--out benchmarks/results/flow-ratios.json]

FOLDER as in ``benchmarks.ratios``. Two comparisons: a training step of ``future_frame`` that reads the target flow from
the store, against one that also computes the flow of the true frames; and the work of the ``optical_flow`` stage (read,
estimate, write), against the estimator alone on pictures in memory.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.ratios import footage_at_hand, row, side_by_side, stored, synchronize
from benchmarks.result import write_result
from vadcore.config import load_params
from vadcore.data.loader import ClipLoader
from vadcore.data.store import FLOW_UNIT, ClipStore
from vadcore.data.windows import Batch, Sampler, Segment
from vadcore.flow.compute import store_flow
from vadcore.flow.estimators import create_estimator
from vadcore.flow.flownet import FlowNetSD, save_flownet
from vadcore.models import create_model
from vadcore.training.trainer import _Updates
from vadcore.utils.device import autocast, choose_device, choose_precision

SMALL = {"image_size": (128, 192), "conv": (32, 64, 128, 256), "discriminator": (64, 128, 256, 256)}
CASES = {  # case -> settings of future_frame, width of FlowNet, windows per batch, steps per round
    "small": (SMALL | {"flow_enlarge": 2}, 0.25, 4, 8),
    "small, no adversary": (SMALL | {"flow_enlarge": 2, "adversarial": 0}, 0.25, 4, 8),
    "small, FlowNet of the published width": (SMALL | {"flow_enlarge": 2}, 1.0, 2, 2),
    "as published": ({}, 1.0, 1, 2),
}
PROFILE = Path("profiles/ped2-cpu.yaml")  # its setting is measured too


def step(what: str, settings: dict, width: float, size: int, steps: int, frames, flow, device, folder: Path) -> dict:
    """Compare training steps per second with stored and with computed flow of the true frames."""
    weights = folder / f"flownet-{width:g}.safetensors"
    torch.manual_seed(0)
    save_flownet(FlowNetSD(width), weights)  # speed does not depend on the weights
    shared = {"batch_size": size, "iterations": steps, "flownet": str(weights), "flownet_width": width}
    model = create_model("future_frame", settings | shared).to(device).train()
    (phase,) = model.phases()
    phase.begin()
    update = _Updates(phase, processes=1)
    segments = [Segment(clip, 0, frames.length(clip)) for clip in frames.clips("train")]
    sampler = Sampler([len(segment) for segment in segments], phase.windows, size, phase.sampling, 0)
    plan = [sampler.batch(n) for n in range(steps)]
    dtype, _ = choose_precision("auto", device)

    def steps_over(footage: ClipLoader, prepare: Callable[[Batch], None]) -> Callable[[], int]:
        def work() -> int:
            for batch in footage.batches(plan, phase.windows.length):
                with autocast(footage.device, dtype):
                    prepare(batch)
                    phase.step(batch, update)
            synchronize(footage.device)
            return steps

        return work

    @torch.no_grad()
    def compute(batch: Batch) -> None:
        batch.flow = model._flow(batch, batch.frames[:, -1] * 2 - 1)[:, None]

    with_flow, without = (ClipLoader.for_model(model, frames, segments, store, device=device) for store in (flow, None))
    rates = side_by_side(steps_over(without, compute), steps_over(with_flow, lambda batch: None))
    return row(f"future_frame ({what}), stored flow against computed", "steps/s", *rates, 1.25)


def stage(what: str, name: str, options: dict, frames: ClipStore, device, folder: Path) -> dict:
    """Compare the stage's work in one process with the estimator alone, in flow fields per second."""
    estimate = create_estimator(name, str(device), **options)
    pictures = [frames.read(clip) for clip in frames.clips()]
    fields = sum(len(clip) - 1 for clip in pictures)
    number = count()

    def bare() -> int:
        for clip in pictures:
            estimate(clip[:-1], clip[1:])
        return fields

    def ours() -> int:
        url = folder / f"{what}{next(number)}.zarr"
        ClipStore(url, "flow", write=True)
        for clip in frames.clips():
            store_flow(clip, frames.url, url, name, options, device=str(device))
        return fields

    return row(f"optical_flow by {what}, against the estimator alone", "fields/s", *side_by_side(bare, ours), 0.85)


def fixed_point(what: str, name: str, options: dict, frames: ClipStore, device, folder: Path) -> dict:
    """Measure the size of stored fixed-point flow and its largest error against the estimator's output."""
    flow = ClipStore(folder / f"{what}.zarr", "flow", write=True)
    for clip in frames.clips():
        store_flow(clip, frames.url, flow.url, name, options, device=str(device))
    size = sum(file.stat().st_size for file in Path(flow.url).rglob("*") if file.is_file())
    half = sum(flow.array(clip).size * 2 for clip in flow.clips())
    clip = frames.clips()[0]
    pictures = frames.read(clip, 0, 33)
    exact = create_estimator(name, str(device), **options)(pictures[:-1], pictures[1:])
    error = float(np.abs(flow.read(clip, 0, 32) / FLOW_UNIT - exact).max())
    what = f"stored flow of {what}, share of float16's size"
    print(f"{what:62s} {size / half:8.3f} (wanted: 0.25 or less); largest error {error:.5f} px (wanted: 1/128 or less)")
    return {"what": what, "unit": "share", "ours": round(size / half, 3), "wanted": 0.25, "error_px": round(error, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, help="a folder of clip folders of pictures")
    parser.add_argument("--flownet", type=Path, default=Path("weights/flownet.safetensors"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = choose_device()
    print(device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips, config, footage = footage_at_hand(arguments.frames, folder)
        print(f"footage: {footage}, {len(clips)} clips")
        cv2.setNumThreads(1)
        frames, flow = stored(clips, config, folder)
        rows = []
        flownet = {"weights": str(arguments.flownet)}
        for what, name, options in (
            ("flownet", "flownet", flownet),
            ("flownet, enlarged three times", "flownet", flownet | {"enlarge": (3, 3)}),
            ("dis", "dis", {"preset": "medium"}),
        ):
            rows.append(fixed_point(what, name, options, frames, device, folder))
            rows.append(stage(what, name, options, frames, device, folder))
        profile = load_params(PROFILE).model["future_frame"].model_dump(exclude={"iterations", "drop_at"})
        for case, settings in {**CASES, PROFILE.stem: (profile, 0.25, 4, 4)}.items():
            rows.append(step(case, *settings, frames, flow, device, folder))
    if arguments.out:
        write_result(arguments.out, [{"footage": footage, **entry} for entry in rows], profile=None)


if __name__ == "__main__":
    main()
