"""Generate, download or copy the footage of a data set, as delivered, to data/raw."""

from tasks import paths
from tasks.stage import Stage
from vadcore.data import formats as datasets


def work(stage: Stage) -> None:
    config = stage.params.dataset[stage.dataset]
    raw = paths.raw(stage.dataset)
    datasets.prepare(config, raw, stage.say)
    found = datasets.clips(config, raw)
    train = sum(clip.split == "train" for clip in found)
    stage.say(f"{raw}: {train} training clips, {len(found) - train} test clips")
    stage.run.metrics({"train_clips": train, "test_clips": len(found) - train})
    stage.run.made(raw)
