"""Decode a data set's footage into chunked Zarr arrays, clip by clip."""

import time

from tasks import paths
from tasks.parallel import per_clip
from tasks.stage import Stage
from vadcore.data import formats as datasets
from vadcore.data.delivery import left_out as left_out_files
from vadcore.data.delivery import left_out_lines
from vadcore.data.extract import compared, extract_clip
from vadcore.data.store import ClipId, ClipStore
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json


def work(stage: Stage) -> None:
    config = stage.params.dataset[stage.dataset]
    raw = paths.raw(stage.dataset)
    if not raw.is_dir():
        raise VadError(f"{raw}: no footage here; run the prepare stage first")
    clips = datasets.clips(config, raw)
    urls = paths.frames(stage.dataset), paths.masks(stage.dataset)
    frames, masks = ClipStore(urls[0], "frames", write=True), ClipStore(urls[1], "masks", write=True)

    started = time.monotonic()
    done, left_out = [], []
    calls = [(clip, config, *urls, stage.params.extract.max_missing) for clip in clips]
    for call, result in per_clip(extract_clip, calls, stage.params.machine, "extract"):
        if not isinstance(result, VadError):
            done.append(result)
            for remark in result.remarks:
                stage.say(remark)
        elif stage.params.extract.on_error == "stop":
            raise VadError(f"{result} (or set extract.on_error to skip, to leave out such clips)")
        else:
            stage.say(f"left out: {result}")
            left_out.append({"clip": str(ClipId(call[0].split, call[0].name)), "why": str(result)})
    for split in {clip.split for clip in clips} - {extracted.clip.split for extracted in done}:
        raise VadError(f"{raw}: none of its {split} clips can be read; replace the files listed above")
    seconds = time.monotonic() - started

    frames.keep_only({extracted.clip for extracted in done})
    masks.keep_only({extracted.clip for extracted in done if extracted.masks})
    remarks = [remark for extracted in sorted(done, key=lambda one: one.clip) for remark in extracted.remarks]
    differences = compared(frames, clips)
    differences += [f"no {split} clips" for split in ("train", "test") if not frames.clips(split)]
    for remark in differences:
        stage.say(f"{urls[0]}: {remark}")
    facts = _facts(config, frames, sorted(left_out, key=lambda entry: entry["clip"]))
    not_used = left_out_lines(left_out_files(raw, [file for clip in clips for file in clip.files]))
    facts |= {key: lines for key, lines in (("remarks", differences + remarks), ("not_used", not_used)) if lines}
    write_json(paths.facts(stage.dataset), facts)
    fresh = sum(extracted.frames for extracted in done if not extracted.kept)
    stage.say(
        f"{urls[0]}: {len(done)} clips, {facts['frames']} frames ({fresh} decoded now, {fresh / seconds:.0f} a second)"
        + (f"; {len(left_out)} clips left out" if left_out else "")
    )
    stage.run.metrics({"clips": len(done), "frames": facts["frames"], "frames_per_second": fresh / seconds})
    stage.run.dataset(stage.dataset, facts["digest"], str(raw), "extract")
    for out in (*urls, paths.facts(stage.dataset)):
        stage.run.made(out)


def _facts(config, frames: ClipStore, left_out: list) -> dict:
    """Return the key facts of a data set."""
    splits = {}
    seconds = 0.0
    for split in ("train", "test"):
        clips = frames.arrays(split)
        attributes = [array.attrs.asdict() for array in clips.values()]
        lengths = [array.shape[0] for array in clips.values()]
        seconds += sum(map(frames.seconds, clips))
        splits[f"{split}_clips"] = len(clips)
        splits[f"{split}_frames"] = sum(lengths)
        if split == "test":
            splits["test_frames_abnormal"] = sum(b - a for known in attributes for a, b in known["abnormal"])
            splits["test_clips_labelled"] = sum(known["labelled"] for known in attributes)
    first = next(iter(frames.clips()))
    height, width, channels = frames.array(first).shape[1:]
    return {
        "format": config.format,
        "label_set": config.truth,
        "frames": splits["train_frames"] + splits["test_frames"],
        **splits,
        "hours": round(seconds / 3600, 4),
        "height": height,
        "width": width,
        "color": "grey" if channels == 1 else "rgb",
        "fps": frames.attributes(first)["fps"],
        "digest": frames.digest(),
        "left_out": left_out,
    }
