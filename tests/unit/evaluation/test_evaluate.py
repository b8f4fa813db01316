"""Score and event tables of clips with constant and varying frame rates."""

import numpy as np
import pytest

from vadcore.config import Calibrate
from vadcore.evaluation.calibration import calibrate
from vadcore.evaluation.evaluate import event_table, score_table

FPS = 10.0
SETTINGS = Calibrate(merge_gap_s=0.3, min_event_s=0.2)


@pytest.fixture(scope="module")
def calibration():
    normal = {"n": np.random.default_rng(0).random(400)}
    return calibrate(normal, FPS, 60, SETTINGS.merge_gap_s, SETTINGS.min_event_s)


def events(calibration, times):
    raw = np.zeros(60, np.float32)
    raw[40:50] = 9
    table = score_table({"a": {"mse": raw}, "b": {"mse": raw}}, "mse", {"a": FPS, "b": FPS}, 0, calibration, times)
    found = event_table(table, calibration, SETTINGS)
    return table, found[["clip", "start_seconds", "end_seconds"]].to_numpy().tolist()


def test_events_of_a_constant_rate(calibration):
    table, found = events(calibration, None)
    assert "seconds" not in table
    assert found == [["a", 4.0, 5.0], ["b", 4.0, 5.0]]


def test_events_of_a_varying_rate(calibration):
    seconds = np.arange(60) / FPS + 8  # 8 s later than the frame numbers say
    seconds[50:] += 30  # a pause, which is no part of the event before it
    _, found = events(calibration, {"a": seconds})
    assert found == [["a", 12.0, 13.0], ["b", 4.0, 5.0]]
