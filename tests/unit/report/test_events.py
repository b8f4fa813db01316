"""Alarms: verdicts by the labels, missed events, agreement of systems, order and cuts of the lists."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vadcore.evaluation.events import Event, detection_metrics, match_events
from vadcore.report.events import FOREMOST, MOST_LISTED, alarms_of, foremost, listed, match_labels, missed, verdict

NAN = float("nan")
COLUMNS = ["clip", "start_frame", "end_frame", "peak_frame", "peak_score", "p_value", "start_seconds", "end_seconds"]


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
    matches = match_labels(clip(labels), alarms(*frames))
    return [verdict(matches, number) for number, _ in enumerate(frames)]


def test_verdict_is_true_false_or_unlabelled():
    labels = [0] * 30 + [1] * 10 + [0] * 10 + [NAN] * 10
    said = words(labels, (2, 5), (25, 35), (45, 48), (50, 55))
    assert said == ["false alarm", "true alarm", "false alarm", "no labels there"]


def test_early_alarm_is_false():
    frames, events = clip([0] * 30 + [1] * 10), alarms((2, 39))
    matches = match_labels(frames, events)
    assert verdict(matches, 0) == "false alarm"
    (event,) = missed([system("m")], [matches], frames)
    assert (event["system"].model, event["frame"], event["start"], event["end"]) == ("m", 30, 3.0, 4.0)


def test_missed_event_of_a_varying_rate():
    frames = clip([0, 0, 1, 1, 0]).assign(seconds=[0.0, 0.2, 0.4, 0.5, 7.0])  # a pause follows the event
    (event,) = missed([system("m")], [match_labels(frames, alarms())], frames)
    assert (event["frame"], event["start"], event["end"]) == (2, 0.4, pytest.approx(0.6))


def test_no_verdict_without_labels():
    frames = clip([NAN] * 10)
    matches = match_labels(frames, alarms((2, 5)))
    assert matches is None
    assert verdict(matches, 0) is None
    assert missed([system("m")], [matches], frames) == []


def test_unscored_events_are_not_missed():
    labels, scores = [0, 1, 1, 0, 1, 1], [0, NAN, NAN, 0, 0, NAN]
    frames = clip(labels, scores)
    found = missed([system("m")], [match_labels(frames, alarms())], frames)
    assert [event["frame"] for event in found] == [4]


def test_order_of_missed_events():
    frames = clip([1, 0, 0, 1])
    matches = [match_labels(frames, alarms(*found)) for found in ([(0, 0)], [(3, 3)], [])]
    found = missed([system(name, number=number) for number, name in enumerate("abc")], matches, frames)
    assert [(event["system"].model, event["frame"]) for event in found] == [("b", 0), ("c", 0), ("a", 3), ("c", 3)]


def test_verdicts_add_up_to_the_metrics():
    random = np.random.default_rng(0)
    for _ in range(50):
        labels = np.repeat(random.choice([0.0, 1.0, NAN], 40, p=[0.6, 0.3, 0.1]), 8)
        scores = np.repeat(random.random(80), 4)
        scores[random.random(len(scores)) < 0.02] = NAN
        table = clip(labels, scores)
        figures = detection_metrics(table, 0.7, 10.0)
        events = [Event(*found) for found in _crossings(scores, 0.7)]
        matches = match_events(events, scores, labels, 10.0)
        said = [verdict(matches, number) for number in range(len(events))]
        assert (len(said), said.count("false alarm")) == (figures["alarms"], figures["false_alarms"])
        assert len(missed([system("m")], [matches], table)) == figures["events_true"] - figures["detected"]


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


def system(model, *alarms, number=0):
    """A system with ``alarms``: (clip, first frame, last frame, frame of the peak, p), at ten frames a second."""
    rows = [(clip, first, last, peak, 1.5, p, first / 10, last / 10) for clip, first, last, peak, p in alarms]
    return SimpleNamespace(model=model, number=number, events=pd.DataFrame(rows, columns=COLUMNS))


def clips_of(*group, clips=("a",)):
    """Clips as the page has them, each with the alarms of ``group`` in it."""
    for number, one in enumerate(group):
        one.number = number
    parts = {name: [one.events[one.events["clip"] == name] for one in group] for name in clips}
    return [
        {"id": f"d1c{name}", "name": name, "alarms": alarms_of(list(group), parts[name], [None] * len(group))}
        for name in clips
    ]


def test_agreement_at_the_peak():
    group = (
        system("long", ("a", 0, 99, 50, 0.1)),
        system("early", ("a", 10, 19, 12, 0.1), ("a", 40, 49, 45, 0.1)),
        system("late", ("a", 49, 60, 50, 0.1), ("b", 12, 45, 12, 0.1)),  # another clip is another time
        system("silent"),
    )
    agree = {(alarm["system"].model, alarm["peak_frame"]): alarm["agree"] for alarm in clips_of(*group)[0]["alarms"]}
    assert agree == {("long", 50): 2, ("early", 12): 2, ("early", 45): 2, ("late", 50): 2}


@pytest.mark.parametrize(("peak", "agree"), [(9, 1), (10, 2), (19, 2), (20, 1)])
def test_alarm_includes_first_and_last_frame(peak, agree):
    alarms = clips_of(system("a", ("a", 0, 30, peak, 0.1)), system("b", ("a", 10, 19, 15, 0.1)))[0]["alarms"]
    assert alarms[0]["agree"] == agree


def test_order_of_alarms():
    first, second = system("x", ("a", 20, 29, 20, 0.1)), system("y", ("a", 10, 12, 11, 0.1), ("a", 20, 25, 21, 0.1))
    assert [(alarm["system"].model, alarm["peak_frame"]) for alarm in clips_of(first, second)[0]["alarms"]] == [
        ("y", 11),
        ("x", 20),
        ("y", 21),
    ]


def test_rarest_first_then_most_agreement():
    one = system(
        "x", ("a", 0, 9, 5, 0.02), ("b", 0, 9, 5, 0.01), ("b", 20, 29, 25, 0.02), ("b", 40, 49, 45, float("nan"))
    )
    other = system("y", ("b", 22, 29, 26, 0.03))
    raised = foremost(clips_of(one, other, clips=("a", "b")))
    assert [(alarm["clip"], alarm["peak_frame"]) for alarm in raised["alarms"]] == [
        ("b", 5),
        ("b", 25),
        ("a", 5),
        ("b", 26),
        ("b", 45),
    ]
    assert (raised["total"], raised["clips"]) == (5, 2)
    assert (raised["agreed"]["peak_frame"], raised["agreed"]["agree"]) == (25, 2)


def test_long_list_keeps_the_rarest():
    common = [("a", 10 * n, 10 * n + 3, 10 * n, 0.5) for n in range(MOST_LISTED + 50)]
    rare = [("a", 5000, 5003, 5001, 0.001), ("a", 5010, 5013, 5011, 0.002)]  # later than all that are common
    (clip,) = clips_of(system("x", *common, *rare))
    shown = [alarm["peak_frame"] for alarm in listed(clip["alarms"])]
    assert shown == [*range(0, 10 * (MOST_LISTED - 2), 10), 5001, 5011]


def test_rarest_are_chosen_from_all_alarms():
    common = [("a", 10 * n, 10 * n + 3, 10 * n, 0.5) for n in range(MOST_LISTED + 50)]
    late, other = ("a", 5000, 5003, 5001, 0.001), ("a", 5000, 5009, 5005, 0.9)
    raised = foremost(clips_of(system("x", *common, late), system("y", other)))
    assert raised["alarms"][0]["peak_frame"] == 5001
    assert (raised["agreed"]["peak_frame"], raised["agreed"]["agree"]) == (5001, 2)
    assert (len(raised["alarms"]), raised["total"], raised["cut"]) == (FOREMOST, MOST_LISTED + 52, True)


def test_no_list_without_alarms():
    assert foremost(clips_of(system("x"), system("y"))) is None
