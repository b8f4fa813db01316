"""Precompute the optical flow between neighbouring frames of every clip, if a system needs it."""

import shutil
import time

from tasks import paths
from tasks.parallel import per_clip
from tasks.stage import Stage
from vadcore.data.store import ClipStore
from vadcore.flow.compute import store_flow
from vadcore.flow.visualize import draw, fastest, pairs_with_most_motion
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json
from vadcore.utils.render import write_png

PICTURES = 4  # number of clips with a drawn flow field


def work(stage: Stage) -> None:
    frames_url, flow_url = paths.frames(stage.dataset), paths.flow(stage.dataset)
    frames = ClipStore(frames_url, "frames")
    flow = ClipStore(flow_url, "flow", write=True)
    if stage.params.needs_flow:
        _compute(stage, frames, flow)
        drawn = PICTURES
    else:
        stage.say(f"{flow_url}: nothing computed, because no system under models reads it")
        drawn = 0
    stage.run.dataset(stage.dataset, frames.digest(), str(frames_url), "optical_flow")
    stage.run.made(flow_url)
    _draw(stage, frames, flow, drawn)


def _compute(stage: Stage, frames: ClipStore, flow: ClipStore) -> None:
    """Compute the flow of all clips; flow already stored with the same settings is kept."""
    settings = stage.params.optical_flow
    options = settings.model_dump(exclude={"estimator", "size"})
    device, machine = "cpu", stage.params.machine  # OpenCV's estimators run on the CPU
    if "weights" in options:
        from vadcore.utils.device import choose_device  # imports torch, which OpenCV's estimators do not need

        device = str(choose_device(machine.device))
        if device != "cpu" and machine.scheduler is None:
            machine = machine.model_copy(update={"workers": 1})  # one process saturates the GPU
    started = time.monotonic()
    fresh = 0
    lengths = {clip: array.shape[0] for clip, array in frames.arrays().items()}
    calls = [(clip, frames.url, flow.url, settings.estimator, options, settings.size, device) for clip in lengths]
    for call, result in per_clip(store_flow, calls, machine, "optical flow"):
        if isinstance(result, VadError):
            raise result
        fresh += 0 if result else lengths[call[0]] - 1
    flow.keep_only(set(lengths))
    seconds = time.monotonic() - started
    stored = sum(length > 1 for length in lengths.values())
    stage.say(f"{flow.url}: {stored} clips ({fresh} fields computed now, {fresh / seconds:.0f} a second)")
    stage.run.metrics({"fields_per_second": fresh / seconds})


def _draw(stage: Stage, frames: ClipStore, flow: ClipStore, count: int) -> None:
    """Draw ``count`` flow fields for the MLflow run and the report."""
    out = paths.flow_pictures(stage.dataset)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shown = pairs_with_most_motion(frames, flow, count)
    longest = fastest(shown)
    entries = []
    for pair in shown:
        path = out / f"{pair.clip.split}-{pair.clip.name}-{pair.frame:05d}.png"
        write_png(path, draw(pair, longest))
        stage.run.picture(path, "optical_flow")
        entries.append({"picture": path.name, "split": pair.clip.split, "clip": pair.clip.name, "frame": pair.frame})
    write_json(out / "pictures.json", {"longest_px": round(longest, 2), "pictures": entries})
    stage.run.made(out)
