"""Footage in memory and streamed: the same windows, sizes, channels and flow."""

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.footage import make_store, pictures
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipId, ClipStore, flow_to_fixed
from vadcore.data.windows import Segment
from vadcore.utils.errors import VadError

PICKS = np.array([[0, 3, 1], [1, 0, 2], [2, 20, 1]])


def segments(store):
    return [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]


def test_window_holds_the_named_frames(tmp_path):
    store = make_store(tmp_path)
    batch = ClipLoader(store, segments(store), cache="ram").batch(PICKS, length=4)
    assert batch.frames.shape == (3, 4, 1, 24, 32)
    expected = pictures(40, seed=1)[0:8:2, ..., 0]  # clip 1, start 0, stride 2
    np.testing.assert_array_equal((batch.frames[1, :, 0] * 255).round().numpy(), expected)
    assert batch.numbers.tolist() == [[3, 4, 5, 6], [0, 2, 4, 6], [20, 21, 22, 23]]
    assert batch.frames.min() >= 0
    assert batch.frames.max() <= 1


@pytest.mark.parametrize(("size", "channels"), [(None, 1), ((16, 16), 1), ((48, 64), 1), ((12, 16), 3)])
def test_ram_and_stream_give_same_windows(tmp_path, size, channels):
    store = make_store(tmp_path, channels=channels)
    kept = ClipLoader(store, segments(store), size, channels, cache="ram")
    streamed = ClipLoader(store, segments(store), size, channels, cache="stream")
    plan = [PICKS, PICKS[::-1].copy(), *[PICKS] * 10]
    for a, b in zip(kept.batches(plan, 4), streamed.batches(plan, 4), strict=True):
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.numbers, b.numbers)


def test_resizing_averages_and_rgb_becomes_grey(tmp_path):
    store = make_store(tmp_path, channels=3)
    batch = ClipLoader(store, segments(store), (12, 16), channels=1).batch(PICKS[:1], length=1)
    grey = cv2.cvtColor(pictures(40, channels=3, seed=0)[3], cv2.COLOR_RGB2GRAY)
    expected = cv2.resize(grey, (16, 12), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal((batch.frames[0, 0, 0] * 255).round().numpy(), expected)


@pytest.mark.parametrize("cache", ["ram", "stream"])
def test_flow_is_scaled_to_requested_size(tmp_path, cache):
    store = make_store(tmp_path, flow=True)
    flow = ClipStore(tmp_path / "flow.zarr", "flow")
    whole = ClipLoader(store, segments(store), flow=flow, cache=cache).batch(PICKS[:1], length=3)
    assert whole.flow.shape == (1, 2, 2, 24, 32)
    assert torch.equal(whole.flow[0, :, 0, 8:14], torch.ones(2, 6, 32))  # 1 px to the right
    half = ClipLoader(store, segments(store), (12, 16), flow=flow, cache=cache).batch(PICKS[:1], length=3)
    assert torch.equal(half.flow[0, :, 0, 4:7], torch.full((2, 3, 16), 0.5))  # half the size: half the pixels


def test_too_long_flow_is_clipped(tmp_path):
    store = make_store(tmp_path, flow=True)
    flow = ClipStore(tmp_path / "flow.zarr", "flow", write=True)
    clip = store.clips("train")[0]
    flow.remove(clip)
    with flow.writer(clip) as writer:
        writer.append(flow_to_fixed(np.full((39, 2, 24, 32), 300.0, np.float32)))
        writer.update({"fps": 10.0})
    large = ClipLoader(store, segments(store)[:1], (48, 64), flow=flow).batch(np.array([[0, 0, 1]]), length=3)
    assert float(large.flow.min()) > 511


def test_segments_keep_frame_numbers(tmp_path):
    store = make_store(tmp_path)
    tail = ClipLoader(store, [Segment(store.clips("train")[0], 30, 40)], cache="ram")
    batch = tail.batch(np.array([[0, 2, 1]]), length=2)
    assert batch.numbers.tolist() == [[32, 33]]
    np.testing.assert_array_equal((batch.frames[0, 0, 0] * 255).round().numpy(), pictures(40)[32, ..., 0])


def test_grey_footage_as_rgb_is_refused(tmp_path):
    store = make_store(tmp_path)
    with pytest.raises(VadError, match=r"dataset\.\*\.color"):
        ClipLoader(store, segments(store), channels=3)


def test_large_footage_is_streamed(tmp_path, monkeypatch):
    store = make_store(tmp_path)
    assert ClipLoader(store, segments(store)).cache == "ram"
    monkeypatch.setattr("vadcore.data.loader.psutil.virtual_memory", lambda: type("M", (), {"available": 1000})())
    assert ClipLoader(store, segments(store)).cache == "stream"


@pytest.mark.parametrize("cache", ["ram", "stream"])
def test_background_is_median_of_nearby_frames(tmp_path, cache):
    store = make_store(tmp_path, train=1, test=0, frames=40)
    (clip,) = store.clips("train")
    footage = ClipLoader(store, [Segment(clip, 5, 40)], cache=cache, background=12)
    batch = footage.batch(np.array([[0, 0, 1], [0, 20, 1]]), 3)
    frames = store.read(clip)[5:].transpose(0, 3, 1, 2)
    for background, around in zip(batch.background, (frames[:12], frames[8:20]), strict=True):
        np.testing.assert_array_equal((background * 255).numpy().round(), np.sort(around, axis=0)[5])


@pytest.mark.parametrize("cache", ["ram", "stream"])
def test_frames_with_motion(tmp_path, cache):
    still = np.repeat(pictures(1, (48, 64)), 60, axis=0)
    noise = np.random.default_rng(0).normal(0, 2, still.shape)
    frames = np.clip(still + noise + np.linspace(0, 60, 60)[:, None, None, None], 0, 255).astype(
        np.uint8
    )  # light rises
    frames[20:31, 10:30, 10:20] = np.arange(50, 215, 15, dtype=np.uint8)[:, None, None, None]
    store = ClipStore(tmp_path / "frames.zarr", "frames", write=True)
    with store.writer(ClipId("train", "a")) as writer:
        writer.append(frames)
        writer.update({"fps": 10.0, "source_sha256": "a", "extraction": "test", "labelled": False})
    (found,) = ClipLoader(store, segments(store), cache=cache).moving()
    assert np.flatnonzero(found).tolist() == list(range(19, 31))  # from the frame before it appears
    (part,) = ClipLoader(store, [Segment(ClipId("train", "a"), 25, 26)], cache=cache).moving()
    assert part.tolist() == [False]  # a single frame


def test_long_footage_is_searched_sparsely(tmp_path, monkeypatch):
    store = make_store(tmp_path)
    loader = ClipLoader(store, segments(store), cache="ram")
    monkeypatch.setattr("vadcore.data.loader.LOOKED_AT", 30)
    assert [of_clip.shape for of_clip in loader.moving()] == [(40,)] * 3
    assert all(of_clip.all() for of_clip in loader.moving())
