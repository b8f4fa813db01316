"""The clip store: exact round trips, complete or absent clips, digests, labels."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.footage import make_store, pictures
from vadcore.data.store import (
    CHUNK_FRAMES,
    ClipId,
    ClipStore,
    flow_from_fixed,
    flow_to_fixed,
    intervals,
)
from vadcore.utils.errors import VadError

CLIP = ClipId("test", "01")


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3]),
    start=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_frames_round_trip(tmp_path_factory, lengths, height, width, channels, start, seed):
    folder = tmp_path_factory.mktemp("store")
    shape = (sum(lengths), height, width, channels)
    frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    store = ClipStore(folder / "s.zarr", "frames", write=True)
    with store.writer(CLIP) as writer:
        for part in np.split(frames, np.cumsum(lengths)[:-1]):
            writer.append(part)
    np.testing.assert_array_equal(store.read(CLIP), frames)
    np.testing.assert_array_equal(store.read(CLIP, start, start + 16), frames[start : start + 16])


def test_clip_longer_than_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr("vadcore.data.store.SHARD_BYTES", CHUNK_FRAMES * 24 * 32 * 2)  # two chunks a shard
    frames = pictures(101)
    store = ClipStore(tmp_path / "s.zarr", "frames", write=True)
    with store.writer(CLIP) as writer:
        writer.append(frames)
    assert store.array(CLIP).shards[0] == 2 * CHUNK_FRAMES
    np.testing.assert_array_equal(store.read(CLIP), frames)


def test_clip_takes_three_files(tmp_path):
    make_store(tmp_path, train=1, test=0, frames=200)
    clip = tmp_path / "frames.zarr" / "train" / "01"
    assert sorted(str(f.relative_to(clip)) for f in clip.rglob("*") if f.is_file()) == [
        "frames/c.0.0.0.0",
        "frames/zarr.json",
        "zarr.json",
    ]


def test_dimensions_are_named(tmp_path):
    store = make_store(tmp_path, train=1, test=0, flow=True)
    assert store.array(ClipId("train", "01")).metadata.dimension_names == ("frame", "y", "x", "channel")
    flow = ClipStore(tmp_path / "flow.zarr", "flow")
    assert flow.array(ClipId("train", "01")).metadata.dimension_names == ("frame", "uv", "y", "x")


def test_clip_is_absent_after_failed_writing(tmp_path):
    store = ClipStore(tmp_path / "s.zarr", "frames", write=True)

    def write_half():
        with store.writer(CLIP) as writer:
            writer.append(pictures(40))
            raise RuntimeError("broken footage")

    with pytest.raises(RuntimeError):
        write_half()
    assert store.clips() == []
    assert not (tmp_path / "s.zarr" / "test" / "01").exists()


def test_incomplete_clip_is_absent_and_rewritten(tmp_path):
    store = make_store(tmp_path, train=0, test=1)
    ClipStore(tmp_path / "frames.zarr", "frames", write=True).array(CLIP).update_attributes({"complete": False})
    assert store.clips() == []
    again = ClipStore(tmp_path / "frames.zarr", "frames", write=True)
    with again.writer(CLIP) as writer:
        writer.append(pictures(7))
    assert again.length(CLIP) == 7


def test_empty_clip_is_refused(tmp_path):
    store = ClipStore(tmp_path / "s.zarr", "frames", write=True)
    with pytest.raises(VadError, match=r"test/01"), store.writer(CLIP):
        pass


def test_digest_depends_on_content(tmp_path):
    first, second = make_store(tmp_path / "a"), make_store(tmp_path / "b")
    assert first.digest() == second.digest()
    ClipStore(tmp_path / "b" / "frames.zarr", "frames", write=True).array(CLIP).update_attributes(
        {"abnormal": [[0, 1]]}
    )
    assert first.digest() != second.digest()


def test_all_clips_open_at_once(tmp_path):
    store = ClipStore(tmp_path / "s.zarr", "frames", write=True)
    for clip in (ClipId("test", "01"), ClipId("train", "02"), ClipId("train", "01")):
        with store.writer(clip) as writer:
            writer.append(np.zeros((int(clip.name), 4, 4, 1), np.uint8))
    with store.writer(ClipId("train", "03")) as writer:
        writer.append(np.zeros((3, 4, 4, 1), np.uint8))
        assert list(store.arrays("train")) == store.clips("train") == [ClipId("train", "01"), ClipId("train", "02")]
    opened = ClipStore(tmp_path / "s.zarr", "frames").arrays()
    assert {str(clip): array.shape[0] for clip, array in opened.items()} == {
        "train/01": 1,
        "train/02": 2,
        "train/03": 3,
        "test/01": 1,
    }
    assert list(opened) == store.clips()


def test_keep_only_removes_the_rest(tmp_path):
    make_store(tmp_path, train=2, test=2)
    store = ClipStore(tmp_path / "frames.zarr", "frames", write=True)
    store.keep_only({ClipId("train", "02"), CLIP})
    assert store.clips() == [ClipId("train", "02"), CLIP]


def test_labels_round_trip(tmp_path):
    store = make_store(tmp_path, train=0, test=1)
    np.testing.assert_array_equal(np.flatnonzero(store.labels(CLIP)), np.arange(20, 30))
    writable = ClipStore(tmp_path / "frames.zarr", "frames", write=True)
    writable.array(CLIP).update_attributes({"labelled": False})
    assert store.labels(CLIP) is None


def test_error_for_missing_store(tmp_path):
    with pytest.raises(VadError, match="optical_flow stage"):
        ClipStore(tmp_path / "flow.zarr", "flow")


def test_store_can_be_an_fsspec_url():
    store = ClipStore("memory://somewhere/frames.zarr", "frames", write=True)
    with store.writer(CLIP) as writer:
        writer.append(pictures(20))
    np.testing.assert_array_equal(ClipStore("memory://somewhere/frames.zarr", "frames").read(CLIP), pictures(20))


@given(st.lists(st.booleans(), max_size=40))
def test_intervals_are_the_runs_of_ones(labels):
    rebuilt = np.zeros(len(labels), bool)
    runs = intervals(np.array(labels, np.uint8))
    for start, stop in runs:
        assert start < stop
        rebuilt[start:stop] = True
    assert rebuilt.tolist() == labels
    assert all(a[1] < b[0] for a, b in pairwise(runs))  # maximal: no two runs touch


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=50))
def test_flow_rounding_error(values):
    flow = np.array(values)
    assert np.abs(flow_from_fixed(flow_to_fixed(flow)) - flow).max() <= 1 / 128 + 1e-4  # float32 read-out of 500 px
