"""Generate, download or copy the footage of a data set, as delivered, to data/raw."""

from tasks import paths
from tasks.stage import Stage
from vadcore.data import formats as datasets
from vadcore.data.delivery import left_out, left_out_lines


def work(stage: Stage) -> None:
    config = stage.params.dataset[stage.dataset]
    raw = paths.raw(stage.dataset)
    datasets.prepare(config, raw, stage.say)
    found = datasets.clips(config, raw)
    train = sum(clip.split == "train" for clip in found)
    unused = left_out(raw, [file for clip in found for file in clip.files])
    for line in left_out_lines(unused):
        stage.say(f"{raw}: {line}")
    stage.say(f"{raw}: {train} training clips, {len(found) - train} test clips")
    count = sum(map(len, unused.values()))
    stage.run.metrics({"train_clips": train, "test_clips": len(found) - train, "files_left_out": count})
    stage.run.tags({f"left out: {reason}": ", ".join(paths)[:500] for reason, paths in unused.items()})
    stage.run.made(raw)
