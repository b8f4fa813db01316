"""The trial that selects a champion: held-out normal footage with artificial anomalies."""

import numpy as np
import pytest

from tests.helpers.footage import make_store
from vadcore.data.store import ClipId
from vadcore.data.windows import Segment
from vadcore.evaluation.synthetic_anomalies import KINDS
from vadcore.evaluation.trial import MOST_FRAMES, make_trial
from vadcore.utils.errors import VadError


def test_every_kind_of_anomaly_is_inserted(tmp_path):
    store = make_store(tmp_path, train=3, frames=40)
    held = [Segment(clip, 0, 40) for clip in store.clips("train")[1:]]
    trial = make_trial(store, held, tmp_path / "trial.zarr", seed=1)
    assert [clip.name for clip in trial.clips("test")] == sorted(
        f"{n}-0-{kind}-{time}" for n in ("02", "03") for kind in KINDS for time in (1, 2, 3)
    )
    for clip in trial.clips("test"):
        labels = trial.labels(clip)
        normal = store.read(ClipId("train", clip.name[:2]))
        assert 0 < labels.sum() < 40
        assert np.array_equal(trial.read(clip)[labels == 0], normal[labels == 0])
        assert not np.array_equal(trial.read(clip), normal)
        assert trial.attributes(clip)["fps"] == 10.0


def test_same_seed_gives_same_store(tmp_path):
    store = make_store(tmp_path, train=2, frames=40)
    held = [Segment(store.clips("train")[0], 10, 40)]
    digests = [make_trial(store, held, tmp_path / f"{n}.zarr", seed).digest() for n, seed in enumerate((1, 1, 2))]
    assert digests[0] == digests[1] != digests[2]


def test_long_clips_are_cut_into_pieces(tmp_path):
    frames = 2 * MOST_FRAMES + 50
    store = make_store(tmp_path, train=1, test=0, frames=frames)
    trial = make_trial(store, [Segment(store.clips("train")[0], 0, frames)], tmp_path / "trial.zarr", seed=1)
    lengths = [trial.length(clip) for clip in trial.clips("test")]
    assert max(lengths) <= MOST_FRAMES
    assert sum(lengths) == frames * len(KINDS) * 2  # three pieces


def test_too_short_footage_is_refused(tmp_path):
    store = make_store(tmp_path, train=1, test=0, frames=40)
    with pytest.raises(VadError, match=r"\b6 frames"):
        make_trial(store, [Segment(store.clips("train")[0], 0, 5)], tmp_path / "trial.zarr", seed=1)
