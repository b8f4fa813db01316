"""The table of operating points: calibration and detection at several false alarm rates."""

import numpy as np
import pandas as pd
import pytest

from vadcore.config import Calibrate
from vadcore.evaluation.calibration import calibrate
from vadcore.evaluation.events import detection_metrics, find_events
from vadcore.evaluation.operating import FIGURES, RATES, operating_points

FPS = 10.0
ASKED = Calibrate(target_far_per_hour=12, merge_gap_s=0.5, min_event_s=0.2)


def scores(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=frames)


@pytest.fixture(scope="module")
def calibration():
    return calibrate({"a": scores(1, 20_000)}, FPS, 12, 0.5, 0.2)


@pytest.fixture(scope="module")
def footage():
    """Scores with the distribution of the calibration, and three seconds of far higher ones."""
    values, labels = scores(2, 20_000), np.zeros(20_000)
    values[500:530] += 30
    labels[500:530] = 1
    return pd.DataFrame({"clip": "b", "frame": np.arange(20_000), "fps": FPS, "score": values, "label": labels})


@pytest.fixture(scope="module")
def points(calibration, footage):
    return operating_points(footage, calibration, ASKED)


def test_one_row_per_false_alarm_rate(points, calibration):
    reached = [rate for rate in RATES if rate <= calibration.highest_rate]
    assert points["target_far_per_hour"].tolist() == sorted({*reached, 12})
    assert points.loc[points["chosen"], "target_far_per_hour"].tolist() == [12]


def test_thresholds_match_calibration(points, calibration):
    expected = [calibration.threshold_at(rate) for rate in points["target_far_per_hour"]]
    assert points["threshold"].tolist() == expected
    assert (points["threshold"].diff().dropna() <= 0).all()
    assert points.loc[points["chosen"], "threshold"].item() == calibration.threshold


def test_figures_match_detection_metrics(points, footage):
    for line in points.itertuples():
        found = detection_metrics(footage, line.threshold, FPS, 0.5, 0.2)
        for key in FIGURES:
            expected = np.nan if found[key] is None else found[key]
            np.testing.assert_equal(getattr(line, key), expected)


def test_extrapolated_rates_are_marked(points, calibration):
    # 20,000 frames at 10 a second are 0.56 hours: fewer than 1.8 alarms an hour cannot be seen in them
    assert calibration.resolvable_rate == pytest.approx(1.8)
    assert points.loc[points["extrapolated"], "target_far_per_hour"].tolist() == [1, 1.5]


def test_unreachable_rates_are_left_out(footage):
    quiet = calibrate({"a": scores(1, 300)}, FPS, 5000, 0.5, 0.2)  # half a minute with a few alarms
    most = max(len(find_events(scores(1, 300), at, FPS, 0.5, 0.2)) for at in np.unique(scores(1, 300)))
    assert quiet.highest_rate == pytest.approx(most * 120)
    points = operating_points(footage, quiet, ASKED.model_copy(update={"target_far_per_hour": 5000.0}))
    assert points["target_far_per_hour"].tolist() == [*(rate for rate in RATES if rate <= most * 120), 5000]


def test_observed_rate_matches_requested_rate(points):
    between = points[(points["target_far_per_hour"] >= 30) & (points["target_far_per_hour"] <= 1000)]
    ratio = between["false_alarms_per_hour"] / between["target_far_per_hour"]
    assert ((ratio > 0.5) & (ratio < 2)).all()


def test_columns_without_labels(calibration, footage):
    points = operating_points(footage.assign(label=np.nan), calibration, ASKED)
    assert points[list(FIGURES)].isna().all(axis=None)
    assert (points["alarms"] > 0).all()
