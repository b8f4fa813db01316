"""Measure the overhead of the pipeline's layers over the bare work, as ratios measured side by side.

    python -m benchmarks.ratios [--frames FOLDER] [--out benchmarks/results/ratios.json]

FOLDER contains one folder of pictures per clip (default: ``$VAD_DATA_DIR/ped2/training/frames``; without it, generated
``street`` footage). Each pair is measured in alternating rounds, and the ratio is that of the median rounds, so that
other load on the machine affects both sides equally.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.reading import pyav_pictures
from benchmarks.result import write_result
from tasks.parallel import per_clip
from tasks.tracking.outbox import EventLog
from tasks.tracking.run import StageRun
from vadcore.config import Machine
from vadcore.data import formats as datasets
from vadcore.data.extract import extract_clip
from vadcore.data.formats.frames import FramesConfig
from vadcore.data.formats.street import StreetConfig
from vadcore.data.loader import ClipLoader
from vadcore.data.store import FLOW_UNIT, ClipStore
from vadcore.data.windows import Sampler, Segment, scoring_windows
from vadcore.evaluation.inference import score_clip
from vadcore.flow.compute import store_flow
from vadcore.models import Model, create_model
from vadcore.models.components.hog_hof import describe
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, TrainSettings, train
from vadcore.utils.device import autocast, bfloat16_is_faster, choose_device, choose_precision

SIZE = (128, 192)
SMALL = {  # learning systems, small enough for several steps per second on two cores
    "convlstm_ae": {"image_size": SIZE, "subtract_mean": False, "conv": (64, 32), "lstm": (32, 16, 32)},
    "conv_ae": {"image_size": (127, 191), "subtract_mean": False, "conv": (128, 64, 32)},
    "gru_ae": {"image_size": (64, 96)},
    "conv3d_ae": {"image_size": (64, 96), "conv": (32, 64, 128, 256)},
    "hog_hof_ae": {"image_size": SIZE},
}
ROUNDS = 5
COPIES = 16  # of the footage, to measure scaling: many, so that the pool's start-up (some seconds) has little weight


Work = float | tuple[float, float]


def side_by_side(
    bare: Callable[[], Work], ours: Callable[[], Work], warm_up: int = 1, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Return the median rates of both functions over alternating rounds, in units per second.

    The first ``warm_up`` rounds are not measured. Each function returns the units of work done, and optionally the
    seconds they took, if only part of the call counts.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(warm_up + rounds):
        for kept, work in zip(rates, (bare, ours), strict=True):
            started = time.perf_counter()
            done = work()
            units, seconds = done if isinstance(done, tuple) else (done, time.perf_counter() - started)
            if number >= warm_up:
                kept.append(units / seconds)
    return median(rates[0]), median(rates[1])


def footage_at_hand(frames: Path | None, folder: Path) -> tuple[list[datasets.Clip], object, str]:
    """Return the clips to extract, their settings and a description."""
    if frames is None and os.environ.get("VAD_DATA_DIR"):
        frames = Path(os.environ["VAD_DATA_DIR"]) / "ped2" / "training" / "frames"
    if frames is not None and frames.is_dir():
        config = FramesConfig(format="frames", source=str(frames.parents[1]), size=SIZE)
        clips = [clip for clip in datasets.clips(config, frames.parents[1]) if clip.split == "train"]
        return clips[:8], config, f"{frames.parents[1].name}, pictures"
    config = StreetConfig(format="street", size=SIZE, height=240, width=360, train_clips=4, test_clips=1, test_frames=2)
    datasets.prepare(config, folder / "raw", lambda text: None)
    return datasets.clips(config, folder / "raw")[:4], config, "street, video"


def bare_extraction(clips: list[datasets.Clip]) -> int:
    """Decode, convert to grey and resize, directly from the files: pictures with OpenCV, videos with PyAV."""
    count = 0
    for clip in clips:
        if clip.source.is_dir():
            for file in clip.files:
                picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
                cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_AREA)
                count += 1
            continue
        for picture in pyav_pictures(clip.source):
            cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), SIZE[::-1], interpolation=cv2.INTER_AREA)
            count += 1
    return count


def bare_processes(clips: list[datasets.Clip], processes: int) -> tuple[int, float]:
    """Run the bare loop in several processes at once, each on its own core, to measure the machine's limit."""
    allowed = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("fork")
    with on_cores(processes):
        workers = [context.Process(target=_on_core, args=(allowed[n % len(allowed)], clips)) for n in range(processes)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return 4 * processes * sum(len(clip.files) or 1 for clip in clips), time.perf_counter() - started


def _on_core(core: int, clips: list[datasets.Clip]) -> None:
    os.sched_setaffinity(0, {core})
    cv2.setNumThreads(1)
    for _ in range(4):
        bare_extraction(clips)


def extraction(clips, config, folder: Path) -> list[dict]:
    number = count()

    def fresh() -> tuple[Path, Path]:
        base = folder / f"extract{next(number)}"
        urls = base / "frames.zarr", base / "masks.zarr"
        ClipStore(urls[0], "frames", write=True)
        ClipStore(urls[1], "masks", write=True)
        return urls

    def ours() -> int:
        urls = fresh()
        return sum(extract_clip(clip, config, *urls).frames for clip in clips)

    bare, one = side_by_side(lambda: bare_extraction(clips), ours)
    rows = [row("extraction, one process, against a bare loop", "frames/s", bare, one, 0.70)]

    # Scaling: many copies of the clips through the pipeline's own pool, including its start-up. A single process is
    # limited to one core, because its decoder and compressor would otherwise use two.
    many = [(clip, config) for _ in range(COPIES) for clip in clips]

    def pooled(workers: int) -> Callable[[], int]:
        def work() -> int:
            urls = [fresh() for _ in range(COPIES)]
            calls = [(*call, *urls[n // len(clips)]) for n, call in enumerate(many)]
            with on_cores(workers):
                return sum(
                    done.frames for _, done in per_clip(extract_clip, calls, Machine(workers=workers), "extract")
                )

        return work

    single, double = side_by_side(pooled(1), pooled(2), warm_up=0, rounds=1)  # one long round, already warm from above
    alone, both = side_by_side(lambda: bare_processes(clips, 1), lambda: bare_processes(clips, 2), warm_up=0)
    rows.append(row("two bare loops on two cores, against one on one", "frames/s", alone, both, None))
    rows.append(row("extraction, two processes on two cores, against one on one", "frames/s", single, double, None))
    return rows


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Restrict this process and its children to ``count`` cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def stored(clips, config, folder: Path) -> tuple[ClipStore, ClipStore]:
    """Store the clips' frames and their optical flow as the pipeline does."""
    urls = folder / "frames.zarr", folder / "masks.zarr", folder / "flow.zarr"
    for url, kind in zip(urls, ("frames", "masks", "flow"), strict=True):
        ClipStore(url, kind, write=True)
    for clip in clips:
        extract_clip(clip, config, *urls[:2])
    frames = ClipStore(urls[0], "frames")
    for clip in frames.clips():
        store_flow(clip, urls[0], urls[2], "dis", {"preset": "medium"})
    return frames, ClipStore(urls[2], "flow")


def system(
    name: str, frames: ClipStore, flow: ClipStore, device, iterations: int, settings: dict | None = None
) -> tuple[Model, ClipLoader]:
    """Create a small system (see :data:`SMALL`), or one with ``settings``, and a loader of all footage for it."""
    torch.manual_seed(0)
    model = create_model(name, (settings or SMALL[name]) | {"batch_size": 4, "iterations": iterations}).to(device)
    segments = [Segment(clip, 0, frames.length(clip)) for clip in frames.clips("train")]
    return model, ClipLoader.for_model(model, frames, segments, flow, device=device)


def training(name: str, model: Model, footage: ClipLoader, dtype, folder: Path) -> dict:
    every_phase = model.phases
    model.phases = lambda: every_phase()[-1:]  # the phase that gathers statistics is not training
    phase = model.phases()[0]
    sampler = Sampler(footage.lengths, phase.windows, phase.batch_size, phase.sampling, 0)
    batches = [footage.batch(sampler.batch(n), phase.windows.length) for n in range(phase.iterations)]
    number = count()

    def bare() -> int:
        model.train()
        phase = model.phases()[0]
        (optimizer,) = phase.optimizers.values()
        for batch in batches:
            with autocast(footage.device, dtype):
                loss = phase.val(batch)  # the loss alone
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        synchronize(footage.device)
        return len(batches)

    def ours() -> tuple[int, float]:
        settings = TrainSettings(dtype=dtype, check_every=10**9, save_seconds=1e9, val_windows=1)
        folded = CheckpointFolder(folder / f"{name}{next(number)}", "train-x")
        trained = train(model, footage, footage, settings, folded, Callback(say=lambda text: None, progress=False))
        return len(batches), trained.step_seconds  # without the final checkpoint

    what = f"training step of {name} (small), against a bare loop"
    entry = row(what, "steps/s", *side_by_side(bare, ours), 0.95)
    model.phases = every_phase
    return entry


def precision(model, footage) -> dict:
    """Compare bfloat16 with float32 on this machine, to check vadcore.utils.device.bfloat16_is_faster."""
    phase = model.phases()[-1]
    sampler = Sampler(footage.lengths, phase.windows, phase.batch_size, phase.sampling, 0)
    x = footage.batch(sampler.batch(0), phase.windows.length).frames * 2 - 1

    def steps(dtype: torch.dtype) -> Callable[[], int]:
        def work() -> int:
            adam = torch.optim.Adam(model.parameters(), 1e-4)
            for _ in range(10):
                with autocast(footage.device, dtype):
                    loss = F.mse_loss(model(x), x)
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
            synchronize(footage.device)
            return 10

        return work

    faster, why = bfloat16_is_faster(footage.device)
    rates = side_by_side(steps(torch.float32), steps(torch.bfloat16))
    entry = row("training step in bfloat16, against float32", "steps/s", *rates, None)
    print(f"{'':4s}the pipeline takes {'bfloat16' if faster else 'float32'} here: {why}")
    return entry


def tracking(folder: Path) -> dict:
    """Measure the cost of logging a step: appending to the outbox, as a stage does."""
    outbox = EventLog.create(folder / "outbox", "bench", {"name": "bench"})
    run = StageRun(outbox)
    started = time.perf_counter()
    for step in range(2000):
        run.metrics({"loss": 0.1, "second": 0.2}, step)
    cost = (time.perf_counter() - started) / 2000
    print(f"{'logging two losses':62s} {cost * 1e6:8.1f} microseconds")
    return {"what": "logging two losses", "unit": "microseconds", "ours": round(cost * 1e6, 1)}


def scoring(what: str, model: Model, footage: ClipLoader, dtype) -> dict:
    model.eval()
    length = model.windows.length
    starts = scoring_windows(footage.lengths[0], model.windows)
    size = max(1, 80 // length)
    groups = [starts[first : first + size] for first in range(0, len(starts), size)]
    plan = [np.stack([np.zeros_like(g), g, np.ones_like(g)], axis=1) for g in groups]
    tensors = [footage.batch(picks, length).frames * 2 - 1 for picks in plan]

    def bare() -> int:
        with torch.inference_mode(), autocast(footage.device, dtype):
            for x in tensors:
                model(x)
        synchronize(footage.device)
        return footage.lengths[0]

    def ours() -> int:
        score_clip(model, footage, 0, dtype)
        return footage.lengths[0]

    return row(f"scoring with {what}, against the bare forward pass", "frames/s", *side_by_side(bare, ours), 0.90)


def descriptors(frames: ClipStore, flow: ClipStore) -> dict:
    """Measure HOG and HOF of dense cuboids at 128x128 on one core."""
    clip = frames.clips()[0]
    pictures = np.stack([cv2.resize(frame, (128, 128)) for frame in frames.read(clip, 0, 15)])
    fields = flow.read(clip, 0, 15).astype(np.float32) / FLOW_UNIT  # [15, 2, H, W]
    fields = np.stack([cv2.resize(field.transpose(1, 2, 0), (128, 128)).transpose(2, 0, 1) for field in fields])
    what, rounds = "HOG and HOF of dense cuboids at 128x128, one core", 20
    with on_cores(1):
        describe(pictures, fields, 16, 0.4)
        started = time.perf_counter()
        for _ in range(rounds):
            describe(pictures, fields, 16, 0.4)
        speed = rounds * len(pictures) / (time.perf_counter() - started)
    print(f"{what:62s} {speed:8.1f} frames/s (wanted: 50 or more)")
    return {"what": what, "unit": "frames/s", "ours": round(speed, 1), "wanted": 50}


def windows_from_zarr(clips, config, folder: Path) -> dict:
    """Measure random reads of 16-frame windows from a store of the footage at its original size, on one core."""
    urls = folder / "native.zarr", folder / "native-masks.zarr"
    store = ClipStore(urls[0], "frames", write=True)
    ClipStore(urls[1], "masks", write=True)
    for clip in clips:
        extract_clip(clip, config.model_copy(update={"size": None}), *urls)
    names = store.clips()
    rng = np.random.default_rng(0)
    picks = [(n := names[rng.integers(len(names))], int(rng.integers(store.length(n) - 16))) for _ in range(150)]
    stored = sum(file.stat().st_size for file in urls[0].rglob("*") if file.is_file())
    raw = sum(store.array(name).nbytes for name in names)
    with on_cores(1):
        started = time.perf_counter()
        size = sum(store.read(name, first, first + 16).nbytes for name, first in picks)
        speed = size / (time.perf_counter() - started) / 1e6
    what = "random 16-frame windows out of the store, one core"
    print(f"{what:62s} {speed:8.1f} MB/s (wanted: 200 or more); size {stored / raw:.3f} of raw (wanted: 0.45 or less)")
    return {"what": what, "unit": "MB/s", "ours": round(speed, 1), "wanted": 200, "size_ratio": round(stored / raw, 3)}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row(what: str, unit: str, bare: float, ours: float, wanted: float | None) -> dict:
    goal = f"  (wanted: {wanted:.2f} or more)" if wanted else ""
    print(f"{what:62s} {ours:8.1f} of {bare:8.1f} {unit:9s} ratio {ours / bare:.3f}{goal}", flush=True)
    return {
        "what": what,
        "unit": unit,
        "bare": round(bare, 2),
        "ours": round(ours, 2),
        "ratio": round(ours / bare, 3),
        "wanted": wanted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, help="a folder of clip folders of pictures")
    parser.add_argument("--iterations", type=int, default=40, help="steps of a training in each round")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = choose_device()
    dtype, why = choose_precision("auto", device)
    print(f"{device}, {why}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips, config, what = footage_at_hand(arguments.frames, folder)
        print(f"footage: {what}, {len(clips)} clips")
        cv2.setNumThreads(1)
        rows = extraction(clips, config, folder)
        frames, flow = stored(clips, config, folder)
        for name in SMALL:
            model, windows = system(name, frames, flow, device, arguments.iterations)
            rows.append(training(name, model, windows, dtype, folder))
        published = {"image_size": (256, 256), "subtract_mean": False}
        for scored, settings in (
            ("a small convlstm_ae", SMALL["convlstm_ae"]),
            ("the published convlstm_ae", published),
        ):
            model, footage = system("convlstm_ae", frames, flow, device, arguments.iterations, settings)
            rows.append(scoring(scored, model, footage, dtype))
        model, footage = system("convlstm_ae", frames, flow, device, arguments.iterations)
        rows.append(precision(model, footage))
        rows.append(tracking(folder))
        rows.append(descriptors(frames, flow))
        rows.append(windows_from_zarr(clips, config, folder))
    if arguments.out:
        write_result(arguments.out, [{"footage": what, **entry} for entry in rows], profile=None)


if __name__ == "__main__":
    main()
