"""Scores of person-sized boxes: position, static residue, streams."""

import numpy as np
import pytest

from vadcore.evaluation.box_scores import MAP_BOX, MAP_MOVING_BOX, BoxScores

H, W = 50, 100  # boxes of 6 x 8 places


def noise(frames, seed=0):
    return np.random.default_rng(seed).uniform(0, 0.1, (frames, H, W)).astype(np.float32)


def test_highest_box():
    maps = np.zeros((2, H, W), np.float32)
    maps[0, 10:16, 20:28] = 3  # exactly a box
    maps[1, 10:13, 20:28] = 3  # half a box
    np.testing.assert_allclose(BoxScores().add(maps)[MAP_BOX], [3, 1.5])


def test_static_error_cancels_out():
    maps = noise(8)
    maps[:, 5:30, 5:30] += 4  # an edge that is never reconstructed
    maps[6, 20:32, 60:80] += 1  # appears
    found = BoxScores().add(maps)
    assert np.isnan(found[MAP_MOVING_BOX][:3]).all()  # no three frames before
    moving = found[MAP_MOVING_BOX][3:]
    assert moving[3] == pytest.approx(1, abs=0.15)
    assert np.delete(moving, 3).max() < 0.2
    assert found[MAP_BOX].min() > 3.9


def test_stream_in_parts_has_equal_scores():
    maps = noise(20, seed=1)
    maps[4] = np.nan  # a frame without a map
    whole, parts = BoxScores().add(maps), BoxScores()
    pieces = [parts.add(maps[start:stop]) for start, stop in ((0, 1), (1, 3), (3, 11), (11, 11), (11, 20))]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([piece[name] for piece in pieces]), values)
    assert np.flatnonzero(np.isnan(whole[MAP_BOX])).tolist() == [4]
    assert np.flatnonzero(np.isnan(whole[MAP_MOVING_BOX])).tolist() == [0, 1, 2, 4, 5, 6, 7]
