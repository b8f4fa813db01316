"""Verdicts on alarms by the labels, and missed events."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from vadcore.evaluation.events import Event, detection_metrics, match_events
from vadcore.report.judged import judge, missed, verdict

NAN = float("nan")


def clip(labels, scores=None):
    """One clip of ten frames a second."""
    scores = np.zeros(len(labels)) if scores is None else scores
    table = {"clip": "a", "frame": np.arange(len(labels)), "label": labels, "score": scores, "fps": 10.0}
    return pd.DataFrame(table)


def alarms(*frames):
    """Alarms from a first to a last frame."""
    rows = [(start, end, start, 1.0) for start, end in frames]
    return pd.DataFrame(rows, columns=["start_frame", "end_frame", "peak_frame", "peak_score"])


def words(labels, *frames):
    judged = judge(clip(labels), alarms(*frames))
    return [verdict(judged, number) for number, _ in enumerate(frames)]


def test_verdict_is_true_false_or_unlabelled():
    labels = [0] * 30 + [1] * 10 + [0] * 10 + [NAN] * 10
    said = words(labels, (2, 5), (25, 35), (45, 48), (50, 55))
    assert said == ["false alarm", "true alarm", "false alarm", "no labels there"]


def test_early_alarm_is_false():
    frames, events = clip([0] * 30 + [1] * 10), alarms((2, 39))
    judged = judge(frames, events)
    assert verdict(judged, 0) == "false alarm"
    (run,) = missed([judged], [SimpleNamespace(model="m")], ["s0"], 10.0)["runs"]
    assert (run["model"], run["start"], run["when"]) == ("m", 30, "3.0–4.0 s")


def test_no_verdict_without_labels():
    judged = judge(clip([NAN] * 10), alarms((2, 5)))
    assert judged is None
    assert verdict(judged, 0) is None
    assert missed([judged], [SimpleNamespace(model="m")], ["s0"], 10.0) is None


def test_unscored_events_are_not_missed():
    labels, scores = [0, 1, 1, 0, 1, 1], [0, NAN, NAN, 0, 0, NAN]
    found = missed([judge(clip(labels, scores), alarms())], [SimpleNamespace(model="m")], ["s0"], 10.0)
    assert [run["start"] for run in found["runs"]] == [4]


def test_order_of_missed_events():
    judged = [judge(clip([1, 0, 0, 1]), alarms(*found)) for found in ([(0, 0)], [(3, 3)], [])]
    group = [SimpleNamespace(model=name) for name in "abc"]
    found = missed(judged, group, ["s0", "s1", "s2"], 10.0)
    assert [(run["model"], run["start"]) for run in found["runs"]] == [("b", 0), ("c", 0), ("a", 3), ("c", 3)]
    assert found["all"] == 4


def test_verdicts_add_up_to_the_metrics():
    random = np.random.default_rng(0)
    for _ in range(50):
        labels = np.repeat(random.choice([0.0, 1.0, NAN], 40, p=[0.6, 0.3, 0.1]), 8)
        scores = np.repeat(random.random(80), 4)
        scores[random.random(len(scores)) < 0.02] = NAN
        table = clip(labels, scores)
        figures = detection_metrics(table, 0.7, 10.0)
        events = [Event(*found) for found in _crossings(scores, 0.7)]
        judged = match_events(events, scores, labels, 10.0)
        said = [verdict(judged, number) for number in range(len(events))]
        assert (len(said), said.count("false alarm")) == (figures["alarms"], figures["false_alarms"])
        unnoticed = missed([judged], [SimpleNamespace(model="m")], ["s0"], 10.0)
        assert (unnoticed["all"] if unnoticed else 0) == figures["events_true"] - figures["detected"]


def _crossings(scores, threshold):
    """Runs of frames at or above the threshold, frame by frame."""
    found, start = [], None
    for frame, score in enumerate([*scores, NAN]):
        if score >= threshold:
            start = frame if start is None else start
        elif start is not None:
            found.append((start, frame - 1, start, float(scores[start])))
            start = None
    return found
