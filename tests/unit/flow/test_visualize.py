"""Pictures of optical flow: arrows and colours."""

import numpy as np
import pytest

from tests.helpers.footage import make_store
from vadcore.data.store import ClipId, ClipStore, flow_to_fixed
from vadcore.flow.visualize import ARROW, KEY, Shown, draw, fastest, pairs_with_most_motion
from vadcore.utils.render import flow_to_rgb

GREY = 90


def pair(flow: np.ndarray) -> Shown:
    return Shown(ClipId("test", "01"), 3, np.full((*flow.shape[1:], 1), GREY, np.uint8), flow)


def half_moving(right: float, down: float) -> np.ndarray:
    """Flow ``[2, 120, 160]``: the right half moves."""
    flow = np.zeros((2, 120, 160), np.float32)
    flow[:, :, 80:] = np.array([right, down]).reshape(2, 1, 1)
    return flow


def test_arrows_only_where_pixels_move():
    picture = draw(pair(half_moving(2, 0)), longest=2.0)
    assert picture.shape == (240, 2 * 320 + 2, 3)  # the smallest whole factor that gives 240 rows
    frame, colours = picture[:, :320], picture[:, 322:]
    changed = (frame != GREY).any(2)
    assert not changed[:, :156].any()
    assert changed[:, 160:].any()
    assert (frame.reshape(-1, 3) == ARROW).all(1).any()
    expected = flow_to_rgb(half_moving(2, 0), 2.0).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(colours[:100], expected[:100])  # below, the key covers a corner
    key = colours[-2 * KEY - 5 : -4, -2 * KEY - 5 : -4]
    assert np.array_equal(key[KEY, -1], flow_to_rgb(np.array([1.0, 0.0]).reshape(2, 1, 1), 1.0)[0, 0])
    assert (key[KEY, KEY] == 255).all()  # no motion is white


@pytest.mark.parametrize(("right", "down"), [(2.0, 0.0), (0.0, 2.0), (-2.0, 0.0), (0.0, -2.0)])
def test_arrows_point_along_the_motion(right, down):
    """One cell moves, so one arrow of 24 pixels is drawn from its middle in the direction of the motion."""
    flow = np.zeros((2, 240, 240), np.float32)
    flow[:, 120:132, 120:132] = np.array([right, down]).reshape(2, 1, 1)
    frame = draw(pair(flow), longest=2.0)[:, :240]
    rows, columns = np.nonzero((frame != GREY).any(2))
    along, across, motion = (columns, rows, right) if right else (rows, columns, down)
    tip = along.max() if motion > 0 else along.min()
    assert tip - 126 == pytest.approx(12 * motion, abs=2)
    assert np.ptp(across) < 20


def test_still_scene_has_no_arrows():
    still = pair(np.zeros((2, 120, 160), np.float32))
    assert fastest([still]) == 0
    assert (draw(still, 0.0)[:, :320] == GREY).all()


def test_liveliest_pairs(tmp_path):
    frames = make_store(tmp_path, train=3, test=2, frames=20, size=(48, 64))
    flow = ClipStore(tmp_path / "made.zarr", "flow", write=True)
    for clip in frames.clips():
        fields = np.zeros((19, 2, 48, 64), np.float32)
        fields[18, 0] = 3.0  # the last pair moves
        with flow.writer(clip) as writer:
            writer.append(flow_to_fixed(fields))
    shown = pairs_with_most_motion(frames, flow, 3)
    assert [(p.clip.split, p.clip.name) for p in shown] == [
        (c.split, c.name) for c in (frames.clips()[0], frames.clips()[2], frames.clips()[4])
    ]
    assert {p.frame for p in shown} == {18}
    assert fastest(shown) == pytest.approx(3.0)
    assert np.array_equal(shown[0].picture, frames.read(shown[0].clip, 18, 19)[0])


def test_single_frame_clips_have_no_pairs(tmp_path):
    frames = make_store(tmp_path, train=1, test=0, frames=1, size=(48, 64))
    assert pairs_with_most_motion(frames, ClipStore(tmp_path / "none.zarr", "flow", write=True), 4) == []
