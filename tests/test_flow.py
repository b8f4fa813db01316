"""The stored flow is that of its estimator, from each frame to the next."""

import cv2
import numpy as np
import pytest
from data import data_dir
from footage_maker import make_store

from vadcore.flow import create_estimator, store_flow
from vadcore.store import ClipId, ClipStore, flow_from_fixed

CLIP = ClipId("train", "01")


def shifted(dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
    """A textured picture and the same moved by (dx, dy), uint8 ``[64, 96, 1]``."""
    noise = np.random.default_rng(0).normal(128, 60, (100, 140)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = (texture - texture.mean()) * (50 / texture.std()) + 128
    moved = cv2.warpAffine(texture, np.float32([[1, 0, dx], [0, 1, dy]]), (140, 100))
    return tuple(np.clip(p[18:82, 22:118, None], 0, 255).astype(np.uint8) for p in (texture, moved))


@pytest.mark.parametrize("motion", [(1.0, 0.0), (0.0, -1.5), (2.5, 2.0)])
def test_dis_finds_a_known_motion(motion):
    flow = create_estimator("dis")(*shifted(*motion))
    assert flow.shape == (2, 64, 96)
    inner = flow[:, 10:-10, 10:-10]
    assert np.abs(inner - np.reshape(motion, (2, 1, 1))).mean() < 0.1


def test_flow_is_stored_for_every_pair_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("vadcore.flow.BLOCK", 16)
    frames = make_store(tmp_path, train=1, test=0, frames=40, size=(48, 64))
    ClipStore(tmp_path / "flow2.zarr", "flow", write=True)
    assert not store_flow(CLIP, frames.url, tmp_path / "flow2.zarr", "dis", {"preset": "fast"})
    flow = ClipStore(tmp_path / "flow2.zarr", "flow")
    assert flow.length(CLIP) == 39
    estimate = create_estimator("dis", preset="fast")
    pictures = frames.read(CLIP)
    for t in (0, 15, 16, 38):
        stored = flow_from_fixed(flow.read(CLIP, t, t + 1)[0])
        assert np.abs(stored - estimate(pictures[t], pictures[t + 1])).max() <= 1 / 128 + 1e-5


def test_flow_is_computed_once_for_the_same_frames_and_settings(tmp_path):
    frames = make_store(tmp_path, train=1, test=0, size=(48, 64))
    url = tmp_path / "flow2.zarr"
    ClipStore(url, "flow", write=True)
    assert not store_flow(CLIP, frames.url, url, "dis", {"preset": "fast"})
    assert store_flow(CLIP, frames.url, url, "dis", {"preset": "fast"})
    assert not store_flow(CLIP, frames.url, url, "dis", {"preset": "medium"})


def test_dis_has_the_known_errors_on_real_pairs():
    """Mean end-point errors of OpenCV's DIS (medium) on three FlyingChairs pairs: 2.70, 0.64 and 3.02 px."""
    folder = data_dir("flyingchairs")
    estimate = create_estimator("dis")
    for number, expected in ((1, 2.70), (2, 0.64), (3, 3.02)):
        first, second = (
            cv2.cvtColor(cv2.imread(str(folder / f"{number:05d}_img{n}.ppm")), cv2.COLOR_BGR2RGB) for n in (1, 2)
        )
        raw = np.fromfile(folder / f"{number:05d}_flow.flo", np.float32, offset=12).reshape(*first.shape[:2], 2)
        error = np.linalg.norm(estimate(first, second).transpose(1, 2, 0) - raw, axis=2).mean()
        assert error == pytest.approx(expected, abs=0.15)
