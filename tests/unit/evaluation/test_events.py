"""Events and detection metrics, and smoothing of scores."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vadcore.evaluation.events import Event, detection_metrics, find_events, smooth

NAN = np.nan
tenths = st.one_of(st.just(NAN), st.integers(0, 10).map(lambda n: n / 10))
clips = st.lists(tenths, max_size=60).map(np.array)
seconds = st.sampled_from([0.0, 0.1, 0.2, 0.29, 0.5, 1.0, 3.0])
rates = st.sampled_from([1.0, 10.0, 25.0, 100.0])


def spans(*args):
    return [(event.start_frame, event.end_frame) for event in find_events(*args)]


def test_alarm_starts_at_the_threshold():
    assert find_events(np.array([0, 1, 2, 3, 2, 0.9, 1]), 1.0, 1.0) == [Event(1, 4, 3, 3.0), Event(6, 6, 6, 1.0)]


def test_peak_is_the_first_maximum():
    assert find_events(np.array([1, 5, 5, 2]), 1, 1.0) == [Event(0, 3, 1, 5.0)]


def test_alarms_are_merged_within_merge_gap():
    # two frames at 10 fps lie between the alarms: 0.2 s
    scores = np.array([1, 0, 0, 1])
    assert spans(scores, 1, 10.0, 0.19) == [(0, 0), (3, 3)]
    assert spans(scores, 1, 10.0, 0.2) == [(0, 3)]


def test_min_event_applies_after_merging():
    scores = np.array([1, 0, 1, 0, 0, 0, 1])
    assert spans(scores, 1, 10.0, 0.0, 0.1) == [(0, 0), (2, 2), (6, 6)]
    assert spans(scores, 1, 10.0, 0.1, 0.3) == [(0, 2)]
    assert spans(scores, 1, 10.0, 0.1, 0.31) == []


def test_rounded_seconds_count_whole_frames():
    # 0.29 * 100 is 28.999999999999996, 0.1 * 3 * 10 is 3.0000000000000004
    assert spans(np.array([1] + [0] * 29 + [1]), 1, 100.0, 0.29) == [(0, 30)]
    assert spans(np.ones(3), 1, 10.0, 0.0, 0.1 * 3) == [(0, 2)]


def test_nan_frame_ends_an_event():
    assert spans(np.array([1, NAN, 1, 0, NAN, 0, 1]), 1, 1.0, 9.0) == [(0, 0), (2, 2), (6, 6)]


def test_no_events_without_scores():
    assert find_events(np.array([]), 1, 10.0) == find_events(np.array([NAN, NAN]), 1, 10.0) == []


@settings(max_examples=200)
@given(clips, st.integers(0, 11).map(lambda n: n / 10), rates, seconds, seconds)
def test_properties_of_events(scores, threshold, fps, merge, shortest):
    events = find_events(scores, threshold, fps, merge, shortest)
    inside = np.zeros(len(scores), int)
    for event in events:
        assert 0 <= event.start_frame <= event.peak_frame <= event.end_frame < len(scores)
        part = scores[event.start_frame : event.end_frame + 1]
        assert event.peak_score == part.max() == scores[event.peak_frame]  # not NaN
        assert part[0] >= threshold
        assert part[-1] >= threshold
        assert len(part) / fps >= shortest - 1e-6
        inside[event.start_frame : event.end_frame + 1] += 1
    assert (inside <= 1).all()
    assert [event.start_frame for event in events] == sorted(event.start_frame for event in events)
    for earlier, later in pairwise(events):
        between = scores[earlier.end_frame + 1 : later.start_frame]
        assert np.isnan(between).any() or len(between) / fps > merge - 1e-6
    if shortest == 0:
        assert (inside[scores >= threshold] == 1).all()


@settings(max_examples=200)
@given(clips, st.integers(0, 11).map(lambda n: n / 10), rates, seconds, seconds)
def test_events_match_a_frame_by_frame_search(scores, threshold, fps, merge, shortest):
    expected, start, last = [], None, None
    for frame, score in enumerate([*scores, NAN]):
        too_long = (frame - last) / fps > merge + 1e-6 if start is not None else False
        if start is not None and (np.isnan(score) or (too_long and score < threshold)):
            expected.append((start, last))
            start = None
        if score >= threshold:
            start, last = frame if start is None else start, frame
    expected = [(first, end) for first, end in expected if (end - first + 1) / fps >= shortest - 1e-6]
    assert spans(scores, threshold, fps, merge, shortest) == expected


def test_gap_and_length_count_by_time():
    scores = np.array([0, 1, 0, 1, 1, 0])
    assert spans(scores, 1, 10.0, 0.1, 0.2) == [(1, 4)]
    seconds = np.array([0.0, 0.2, 0.4, 0.6, 0.7, 0.8])  # 5, then 10 frames a second: the gap lasts 0.2 s
    assert spans(scores, 1, 10.0, 0.1, 0.2, seconds) == [(1, 1), (3, 4)]
    assert spans(scores, 1, 10.0, 0.2, 0.2, seconds) == [(1, 4)]
    assert spans(np.ones(4), 1, 10.0, 0.5, 0.0, np.array([0, 0.1, 9, 9.1])) == [(0, 1), (2, 3)]  # a pause


@given(clips, st.integers(0, 11).map(lambda n: n / 10), rates, seconds, seconds)
def test_times_of_a_constant_rate_change_nothing(scores, threshold, fps, merge, shortest):
    rule = (scores, threshold, fps, merge, shortest)
    assert find_events(*rule, seconds=5 + np.arange(len(scores)) / fps) == find_events(*rule)


def table(labels, scores, clip="a"):
    made = {"clip": clip, "frame": range(len(scores)), "label": labels, "score": scores}
    return pd.DataFrame(made).astype({"label": float, "score": float})


def test_detection_metrics_by_hand():
    #           0  1  2  3  4  5  6  7  8  9 10 11
    labels = [0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0]
    scores = [0, 0, 0, 0, 9, 9, 0, 0, 0, 0, 9, 0]
    # first interval found at its third frame (2 frames late at 2 fps: 1 s), second missed; frame 10 is a false alarm;
    # 7 normal frames at 2 fps are 3.5 s of normal footage
    assert detection_metrics(table(labels, scores), 5, 2.0) == {
        "events_true": 2,
        "alarms": 2,
        "alarms_per_hour": pytest.approx(2 * 3600 / 6),
        "detected": 1,
        "detection_rate": 0.5,
        "detection_delay_seconds": 1.0,
        "alarm_precision": 0.5,
        "false_alarms": 1,
        "false_alarms_per_hour": pytest.approx(3600 / 3.5),
        "normal_hours": pytest.approx(3.5 / 3600),
        "normal_alarmed": pytest.approx(2 / 7),
    }


def test_alarm_already_on_has_no_delay():
    assert detection_metrics(table([0, 1, 1], [9, 9, 0]), 5, 10.0)["detection_delay_seconds"] == 0
    # frame 1 is below the threshold, but inside the merged event 0 to 2
    assert detection_metrics(table([0, 1, 1], [9, 0, 9]), 5, 10.0, 0.1)["detection_delay_seconds"] == 0


@pytest.mark.parametrize(("before", "right"), [(0, True), (10, True), (11, False), (50, False)])
def test_alarm_may_begin_a_second_early(before, right):
    found = detection_metrics(table([0] * before + [1] * 20 + [0] * 5, [9] * (before + 20) + [0] * 5), 5, 10.0)
    assert (found["detected"], found["false_alarms"]) == ((1, 0) if right else (0, 1))


def test_unlabelled_frames_before_an_alarm():
    found = detection_metrics(table([NAN] * 30 + [1] * 5, [9] * 35), 5, 10.0)
    assert (found["detected"], found["false_alarms"]) == (1, 0)


def test_permanent_alarm_detects_nothing():
    labels = [0] * 30 + [1] * 20 + [0] * 30 + [1] * 20
    found = detection_metrics(table(labels, [1.0] * 100), 1, 10.0)
    assert (found["detected"], found["alarm_precision"], found["false_alarms"]) == (0, 0, 1)
    assert found["normal_alarmed"] == 1


def test_long_alarm_detects_only_first_event():
    labels = [1] * 5 + [0] * 15 + [1] * 5 + [0] * 5 + [1] * 5
    found = detection_metrics(table(labels, [9] * 35), 5, 10.0)
    assert (found["events_true"], found["detected"], found["alarms"], found["false_alarms"]) == (3, 1, 1, 0)
    twice = [9] * 10 + [0] * 5 + [9] * 20  # ends, and starts again half a second before the second event
    found = detection_metrics(table(labels, twice), 5, 10.0)
    assert (found["detected"], found["alarms"], found["alarm_precision"]) == (2, 2, 1.0)


def test_one_alarm_can_detect_two_events():
    found = detection_metrics(table([1, 0, 0, 1], [9, 9, 9, 9]), 5, 10.0)
    assert (found["detected"], found["alarms"], found["false_alarms"]) == (2, 1, 0)


def test_events_end_with_their_clip():
    both = pd.concat([table([0, 1], [0, 9], "a"), table([1, 1, 0, 0], [0, 9, 0, 9], "b")], ignore_index=True)
    found = detection_metrics(both, 5, {"a": 1.0, "b": 4.0})
    assert (found["events_true"], found["detected"], found["false_alarms"]) == (2, 2, 1)
    assert found["detection_delay_seconds"] == pytest.approx((0 + 1 / 4) / 2)
    assert found["normal_hours"] == pytest.approx((1 / 1 + 2 / 4) / 3600)


def test_frames_are_ordered_by_number():
    made = table([0, 0, 1, 1, 0, 0], [0, 0, 9, 9, 0, 0])
    whole = detection_metrics(made, 5, 10.0)
    assert detection_metrics(made.iloc[::-1], 5, 10.0) == whole
    assert detection_metrics(made.iloc[1:], 5, 10.0)["normal_hours"] == pytest.approx(whole["normal_hours"] * 3 / 4)


def test_nan_scores_and_labels_are_ignored():
    # the first interval has no score; the event at 4 lies on unlabelled frames; unjudged normal footage does not count
    found = detection_metrics(table([1, 1, 0, NAN, NAN, 0], [NAN, NAN, NAN, 0, 9, NAN]), 5, 10.0)
    assert (found["events_true"], found["alarms"], found["false_alarms"]) == (0, 1, 0)
    assert found["detection_rate"] is found["detection_delay_seconds"] is found["false_alarms_per_hour"] is None
    assert found["alarm_precision"] is None
    json.dumps(found, allow_nan=False)


def test_smoothing_with_sigma_0_changes_nothing():
    scores = np.array([1.0, NAN, 3.5])
    np.testing.assert_array_equal(smooth(scores, 0), scores)


def test_smoothing_is_gaussian():
    scores = np.zeros(101)
    scores[50] = 1.0
    steps = np.arange(-8, 9)  # 4 sigma
    kernel = np.exp(-(steps**2) / (2 * 2.0**2))
    np.testing.assert_allclose(smooth(scores, 2.0)[42:59], kernel / kernel.sum(), atol=1e-12)


@given(clips, st.sampled_from([0.3, 1.0, 5.0]))
def test_smoothing_averages_judged_frames(scores, sigma):
    smoothed = smooth(scores, sigma)
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(scores))
    judged = ~np.isnan(scores)
    if judged.any():
        assert smoothed[judged].min() >= scores[judged].min() - 1e-9
        assert smoothed[judged].max() <= scores[judged].max() + 1e-9
    np.testing.assert_allclose(smooth(np.where(judged, 7.0, NAN), sigma)[judged], 7.0, rtol=1e-12)


def test_smoothing_skips_nan_frames():
    # sigma 1: frames 0 and 2 weigh 1 and exp(-2) for each other, the unjudged frame between adds nothing
    weight = np.exp(-2.0)
    np.testing.assert_allclose(
        smooth(np.array([0.0, NAN, 1.0]), 1.0), [weight / (1 + weight), NAN, 1 / (1 + weight)], rtol=1e-12
    )


def test_smoothing_by_time():
    """A slow stretch counts like the same footage with every frame repeated."""
    seconds = np.concatenate((np.arange(50) / 5, 10 + np.arange(250) / 25))
    scores = np.concatenate((np.zeros(50), np.ones(250)))
    repeated = smooth(np.repeat(scores, [5] * 50 + [1] * 250), 10.0)
    smoothed = smooth(scores, 10.0, 25.0, seconds)
    np.testing.assert_allclose(smoothed[50:], repeated[250:], atol=0.08)
    assert smoothed[48] == pytest.approx(repeated[240], abs=0.08)
    np.testing.assert_allclose(smooth(scores, 3.0, 25.0, np.arange(300) / 25), smooth(scores, 3.0), atol=1e-4)


def test_hours_count_by_time_without_pauses():
    seconds = np.concatenate((np.arange(50) / 5, 10 + np.arange(100) / 25, 3600 + np.arange(25) / 25))
    made = table([0] * 140 + [1] * 10 + [0] * 25, [0] * 145 + [9] * 5 + [0] * 25).assign(seconds=seconds, fps=25.0)
    found = detection_metrics(made, 5, 25.0)
    assert found["normal_hours"] * 3600 == pytest.approx(10 + 3.6 + 1)
    assert found["detection_delay_seconds"] == pytest.approx(0.2)
