"""Scores of timelines, packed for the page."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadcore.report.charts import frames_per_score, pack_scores

SCORES = st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=1, max_size=40)


def unpacked(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_missing_frames_have_no_score():
    read = unpacked(pack_scores(np.array([3, 4, 6]), np.array([0.5, np.nan, 2.25]), None, 1))
    np.testing.assert_array_equal(read, [0.5, np.nan, np.nan, 2.25])


def test_highest_score_of_several_frames():
    read = unpacked(pack_scores(np.arange(10, 17), np.array([1, 5, np.nan, np.nan, np.nan, 2, 3.0]), None, 3))
    np.testing.assert_array_equal(read, [5, 2, 3])
    assert np.isnan(unpacked(pack_scores(np.arange(4), np.array([1, 2, np.nan, np.nan]), None, 2))[1])


@given(SCORES, st.floats(-1e3, 1e3), st.integers(1, 5))
def test_rounding_does_not_cross_the_threshold(scores, threshold, every):
    scores = np.array(scores)
    for level in (threshold, *scores[~np.isnan(scores)][:1]):  # a threshold may also be one of the scores
        read = unpacked(pack_scores(np.arange(len(scores)), scores, level, every)).astype(np.float64)
        blocks = [scores[start : start + every] for start in range(0, len(scores), every)]
        assert [bool((block >= level).any()) for block in blocks] == (read >= level).tolist()


def test_score_just_below_the_threshold():
    threshold = 0.1 + 1e-12
    assert np.float32(0.1) == np.float32(threshold)
    for score, over in ((0.1, False), (threshold, True)):
        read = unpacked(pack_scores(np.arange(1), np.array([score]), threshold, 1)).astype(np.float64)
        assert bool(read[0] >= threshold) is over


@pytest.mark.parametrize(("scores", "frames"), [(1, 1), (1000, 1), (1001, 2), (2001, 3)])
def test_frames_per_score_by_page_size(scores, frames):
    assert frames_per_score(scores, most=1000) == frames
