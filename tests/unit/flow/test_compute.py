"""The flow store: what is computed, stored and recomputed."""

import numpy as np
import pytest
import torch

from tests.helpers.footage import make_store
from vadcore.data.store import ClipId, ClipStore, flow_from_fixed
from vadcore.flow.compute import store_flow
from vadcore.flow.estimators import create_estimator
from vadcore.flow.flownet import FlowNetSD, save_flownet
from vadcore.utils.errors import VadError
from vadcore.utils.images import resize_picture

CLIP = ClipId("train", "01")


@pytest.fixture
def store(tmp_path):
    """A clip of 40 frames, the URL of an empty flow store, and a function that stores the flow of the clip there."""
    frames = make_store(tmp_path, train=1, test=0, frames=40, size=(48, 64))
    url = tmp_path / "flow2.zarr"
    ClipStore(url, "flow", write=True)

    def make(estimator: str, size=None, **options) -> bool:
        return store_flow(CLIP, frames.url, url, estimator, options, size)

    return frames, url, make


def test_flow_of_every_pair_across_blocks(store, monkeypatch):
    monkeypatch.setattr("vadcore.flow.compute.BLOCK_PIXELS", 16 * 48 * 64)
    frames, url, make = store
    assert not make("dis", preset="fast")
    flow = ClipStore(url, "flow")
    assert flow.length(CLIP) == 39
    estimate = create_estimator("dis", preset="fast")
    pictures = frames.read(CLIP)
    for t in (0, 15, 16, 38):
        stored = flow_from_fixed(flow.read(CLIP, t, t + 1))
        expected = estimate(pictures[t : t + 1], pictures[t + 1 : t + 2])
        assert np.abs(stored - expected).max() <= 1 / 128 + 1e-5


def test_frames_are_resized_before_estimation(store):
    frames, url, make = store
    make("dis", preset="fast", size=(24, 40))
    flow = ClipStore(url, "flow")
    assert flow.array(CLIP).shape[1:] == (2, 24, 40)
    pictures = np.stack([resize_picture(picture, (24, 40)) for picture in frames.read(CLIP)])
    expected = create_estimator("dis", preset="fast")(pictures[:-1], pictures[1:])
    assert np.abs(flow_from_fixed(flow.read(CLIP)) - expected).max() <= 1 / 128 + 1e-5
    assert make("dis", preset="fast", size=(24, 40))
    assert not make("dis", preset="fast")


def test_flow_is_computed_once_per_settings(store):
    _, _, make = store
    assert not make("dis", preset="fast")
    assert make("dis", preset="fast")
    assert not make("dis", preset="medium")
    assert not make("farneback")
    assert make("farneback")


def test_changed_weights_recompute_flow(store, tmp_path):
    _, url, make = store
    for name, seed in (("a", 0), ("copy", 0), ("b", 1)):
        torch.manual_seed(seed)
        save_flownet(FlowNetSD(0.125), tmp_path / f"{name}.safetensors")
    assert not make("flownet", weights=str(tmp_path / "a.safetensors"))
    first = ClipStore(url, "flow").read(CLIP)
    assert make("flownet", weights=str(tmp_path / "copy.safetensors"))
    assert not make("flownet", weights=str(tmp_path / "b.safetensors"))
    assert not np.array_equal(ClipStore(url, "flow").read(CLIP), first)


def test_store_records_estimator_and_options(store, tmp_path):
    _, url, make = store
    save_flownet(FlowNetSD(0.125), tmp_path / "a.safetensors")
    make("flownet", weights=str(tmp_path / "a.safetensors"))
    known = ClipStore(url, "flow").attributes(CLIP)
    assert known["estimator"] == "flownet"
    assert len(known["options"]["weights"]) == 64  # the file's sha256


def test_nan_flow_is_not_stored(store, monkeypatch):
    _, url, make = store

    def damaged(first, second):
        return np.full((len(first), 2, *first.shape[1:3]), np.nan, np.float32)

    monkeypatch.setattr("vadcore.flow.compute.create_estimator", lambda *_, **__: damaged)
    with pytest.raises(VadError, match="weights"):
        make("dis")
    assert ClipStore(url, "flow").clips() == []
