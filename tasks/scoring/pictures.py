"""Pictures of scored footage: the worst frames, snapshots of every clip, rollouts (predictions of many frames ahead)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np

from tasks.stage import Stage
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipId, ClipStore
from vadcore.data.windows import Segment
from vadcore.evaluation.inference import ClipScores
from vadcore.evaluation.rollout import RollsOut, marked, mean_frame, per_step, roll_outs, strip_steps
from vadcore.evaluation.snapshots import Snapshot, snapshot_frames, write_sheets
from vadcore.utils.files import complete, write_json, write_text
from vadcore.utils.render import animation, beside, stacked, write_animation, write_png
from vadcore.utils.spaced import spaced

AT_ONCE = 128  # frames read at a time


def heat_scale(maps: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the lowest and highest error of the colour scale of all pictures, from the maps of every test clip."""
    seen = np.concatenate([of_clip[::5].ravel() for of_clip in maps.values()]).astype(np.float32)
    low, high = np.nanpercentile(seen, [50, 99.9]) if np.isfinite(seen).any() else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-12))


def draw_worst(
    folder: Path, worst: list[dict], maps, scale: tuple[float, float], frames: ClipStore, masks: ClipStore
) -> None:
    """Draw each of the worst frames beside its error map."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for entry in worst:
        clip, number = ClipId("test", entry["clip"]), entry["frame"]
        error = maps[clip.name][number].astype(np.float32)
        picture = _flat(frames.read(clip, number, number + 1)[0])
        mask = masks.read(clip, number, number + 1)[0] if masks.has(clip) else None
        write_png(folder / entry["picture"], beside(picture, error, *scale, mask))
    write_json(folder / "worst.json", worst)


def draw_snapshots(
    folder: Path,
    scored: dict[Segment, ClipScores],
    count: int,
    scale: tuple[float, float],
    frames: ClipStore,
    masks: ClipStore,
) -> None:
    """Draw the pictures that the report shows along a clip: the frame, its reconstruction, and its error map."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    chosen = snapshot_frames({segment.clip.name: len(segment) for segment in scored}, count)
    written = {}
    for segment, of_clip in scored.items():
        name, clip, numbers = segment.clip.name, segment.clip, chosen[segment.clip.name]
        if not len(numbers):
            continue
        true = _each(masks, clip, numbers) if masks.has(clip) else repeat(None, len(numbers))
        drawn = (
            Snapshot(_flat(picture), of_clip.reconstructions.get(at), of_clip.maps[at], mask)
            for at, picture, mask in zip(numbers.tolist(), _each(frames, clip, numbers), true, strict=True)
        )
        written[name] = write_sheets(folder, name, numbers, drawn, scale)
    write_json(folder / "snapshots.json", written)


def _each(store: ClipStore, clip: ClipId, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the frames ``numbers`` of a clip in ``store``, read in blocks. ``numbers`` must increase."""
    for start in range(0, int(numbers[-1]) + 1, AT_ONCE):
        wanted = numbers[(numbers >= start) & (numbers < start + AT_ONCE)]
        if len(wanted):
            yield from store.read(clip, start, int(wanted[-1]) + 1)[wanted - start]


def _flat(picture: np.ndarray) -> np.ndarray:
    """Return a uint8 picture ``[H, W, C]`` as ``[H, W]`` if it is grey."""
    return picture[..., 0] if picture.shape[2] == 1 else picture


def draw_rollouts(stage: Stage, folder: Path, model, footage: ClipLoader, dtype) -> None:
    """Write the rollouts of a system that can predict from its own predictions: figures per step, pictures, an animation.

    For comparison, the figures include those of the mean training frame of the same store.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = stage.params.score.rollouts
    if not isinstance(model, RollsOut):
        write_text(folder / "none.txt", "This system cannot predict from its own predictions.\n")
        return
    done = roll_outs(model, footage, settings.prime, settings.steps, settings.sequences, dtype)
    if not done:
        reason = f"no test clip has the {settings.prime} + {settings.steps} frames that score.rollouts asks for"
        write_text(folder / "none.txt", f"{reason}.\n")
        stage.say(f"no rollouts: {reason}; lower prime or steps")
        return
    frames = footage.frames
    known = [Segment(clip, 0, array.shape[0]) for clip, array in frames.arrays("train").items()]
    training = ClipLoader(frames, known, footage.size, footage.channels, device=footage.device, cache="stream")
    table = per_step(done, mean_frame(training))
    with complete(folder / "steps.csv") as temporary:
        table.to_csv(temporary, index=False)
    drawn = [done[n] for n in spaced(len(done), settings.shown)]
    for rollout in drawn:
        picture = stacked(rollout.rows, strip_steps(rollout.prime, len(rollout.truth)))
        write_png(folder / f"{rollout.clip}-{rollout.start:05d}.png", picture)
    film = animation([rollout.rows for rollout in drawn])
    write_animation(folder / "rollouts.webp", [marked(frame, n >= settings.prime) for n, frame in enumerate(film)])
    for path in sorted(folder.iterdir()):
        stage.run.artifact(path, "rollouts")
    for name in ("psnr", "ssim"):
        for what, part in table.groupby("what"):
            for step, value in zip(part["step_ahead"], part[name], strict=True):
                stage.run.metrics({f"rollout/{name} {what}": value}, step)
    stage.say(f"{folder}: {len(done)} sequences, {settings.prime} frames given, {settings.steps} ahead")
