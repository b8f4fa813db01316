"""The report's curves, axes and figures, as they are drawn and written."""

import numpy as np
import pandas as pd
import pytest

from vadcore.report import charts
from vadcore.report.columns import write


def test_thinning_keeps_every_peak_of_its_bucket():
    y = np.random.default_rng(0).standard_normal(10_000)
    y[[1234, 7777]] = 50, -50
    kept = charts.thin(np.arange(10_000), y, buckets=100)
    assert len(kept) <= 2 * 100 + 2
    assert {0, 1234, 7777, 9999} <= set(kept.tolist())
    for start in range(0, 10_000, 100):
        part = y[start : start + 100]
        assert {start + part.argmax(), start + part.argmin()} <= set(kept.tolist())


def test_a_path_breaks_where_there_is_no_score_and_shows_a_lonely_frame():
    # low 0, high 10: y = 1000 - 100 * score
    d = charts.path(np.arange(7), np.array([1, 2, np.nan, 5, np.nan, 0, 10.0]), 0, 10)
    assert d == "M0 900l1-100M3 500l0 0M5 1000l1-1000"


def test_a_level_stretch_is_drawn_by_its_ends():
    assert charts.path(np.arange(6), np.array([5, 5, 5, 5, 10, 10.0]), 0, 10) == "M0 500l3 0 1-500 1 0"


@pytest.mark.parametrize(
    ("labels", "runs"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [(0, 2)]),
        ([1, 0, 1], [(0, 0), (2, 2)]),
        ([np.nan, 1, 1], [(1, 2)]),
    ],
)
def test_intervals_are_runs_of_abnormal_frames_with_both_ends(labels, runs):
    assert charts.intervals(np.arange(3), np.array(labels)) == runs


def test_a_missing_frame_ends_an_interval():
    assert charts.intervals(np.array([3, 4, 6]), np.ones(3)) == [(3, 4), (6, 6)]


def test_the_operating_point_is_where_scores_reach_the_threshold():
    curve = pd.DataFrame({"fpr": [0, 0, 0.5, 1], "tpr": [0, 0.5, 0.75, 1], "threshold": [np.inf, 3, 2, 1]})
    assert charts.operating_point(curve, 2) == (0.5, 0.75)
    assert charts.operating_point(curve, 2.5) == (0, 0.5)
    assert charts.operating_point(curve, None) is None


def test_score_axis_holds_all_scores_and_the_threshold():
    low, high = charts.score_range(np.array([1.0, np.nan, 3.0]), 5.0)
    assert (low, high) == pytest.approx((1 - 0.16, 5 + 0.16))  # 4 % of 4 at both ends
    assert charts.score_range(np.array([2.0, 2.0]), None) == (1.5, 2.5)
    assert charts.score_range(np.array([np.nan]), None) == (0, 1)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.95449, "percent", "95.4"),
        (1.0, "percent", "100.0"),
        (None, "percent", "–"),
        (0.7, "rate", "0.70"),
        (31.49, "rate", "31.5"),
        (3.26, "speed", "3.3"),
        (1654.6, "speed", "1,655"),
        (42.4, "time", "42 s"),
        (5400, "time", "1.5 h"),
        (999, "count", "999"),
        (45_371_666, "count", "45.4 M"),
    ],
)
def test_figures_are_written_as_a_person_reads_them(value, kind, text):
    assert write(value, kind) == text
