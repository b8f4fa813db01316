"""Calibration: p-values and thresholds from normal footage alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from vadcore.evaluation.calibration import BEYOND, SCORES_KEPT, Calibration, alarm_levels, calibrate
from vadcore.evaluation.events import find_events
from vadcore.utils.errors import VadError

NAN = np.nan
AN_HOUR = 36_000  # frames at 10 fps


def noise(frames, seed, phi=0.9):
    """Normal footage: AR(1), mean 0, standard deviation 1."""
    white = np.random.default_rng(seed).standard_normal(frames)
    return lfilter([np.sqrt(1 - phi**2)], [1, -phi], white)


def events_in(scores, threshold, *rule):
    return sum(len(find_events(of_clip, threshold, *rule)) for of_clip in scores.values())


# p-values


def test_p_values_with_ties():
    found = calibrate({"a": np.array([1, 2, 2]), "b": np.array([NAN, 3])}, 10.0, 60)
    # (1 + held-out >= s) / (4 + 1)
    np.testing.assert_allclose(
        found.p_value(np.array([0, 1, 1.5, 2, 2.5, 3, 4, NAN])), np.array([5, 5, 4, 4, 2, 2, 1, NAN]) / 5, rtol=1e-15
    )


def test_p_values_fall_with_scores():
    found = calibrate({"a": noise(500, 1)}, 10.0, 60)
    fresh = np.sort(noise(120, 2))
    assert (np.diff(found.p_value(fresh)) <= 0).all()
    np.testing.assert_array_equal(found.p_value(fresh.reshape(4, 30)).ravel(), found.p_value(fresh))


@pytest.mark.parametrize("decimals", [2, 4, 12])  # many ties, some, none
def test_p_values_in_the_tail(decimals):
    val, fresh = np.round(noise(60_000, 3), decimals), np.round(noise(5_000, 4), decimals)
    found = calibrate({"a": val}, 10.0, 60)
    exact = (1 + (val[None] >= fresh[::25, None]).sum(axis=1)) / (1 + len(val))
    over = found.p_value(fresh[::25]) - exact
    assert len(found.scores) <= SCORES_KEPT + 2
    assert over.min() >= -1e-15
    assert over.max() <= 1 / 2048
    assert np.abs(over[exact < 2048 / 60_000]).max() < 1e-15


def test_fresh_p_values_are_uniform():
    found = calibrate({"a": noise(200_000, 5, phi=0)}, 10.0, 60)
    p = found.p_value(noise(100_000, 6, phi=0))
    for level in (0.001, 0.01, 0.1, 0.5):
        # binomial: five standard deviations of both samples together
        assert np.mean(p <= level) == pytest.approx(level, abs=5 * math.sqrt(level * (1 / 100_000 + 1 / 200_000)))


# alarm levels


@settings(max_examples=200)
@given(
    st.lists(
        st.lists(st.one_of(st.just(NAN), st.integers(0, 6).map(float)), max_size=25).map(np.array),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([1.0, 10.0]),
    st.sampled_from([0.0, 0.1, 0.3, 1.0, 3.0, 9.0]),
    st.sampled_from([0.0, 0.2, 0.5, 2.0, 4.0]),
)
def test_alarm_levels_match_find_events(clips, fps, merge, shortest):
    scores = {str(number): of_clip for number, of_clip in enumerate(clips)}
    expected, most = [], 0
    for threshold in sorted({s for of_clip in clips for s in of_clip if s == s}, reverse=True):
        count = events_in(scores, threshold, fps, merge, shortest)
        expected += [threshold] * (count - most)
        most = max(most, count)
    assert alarm_levels(scores, fps, merge, shortest).tolist() == expected


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.one_of(st.just(NAN), st.integers(0, 6).map(float)), st.sampled_from([1, 2, 5, 40]))),
    st.sampled_from([0.0, 0.1, 0.3, 1.0, 5.0]),
    st.sampled_from([0.0, 0.2, 0.5, 2.0]),
)
def test_alarm_levels_match_find_events_at_varying_rates(frames, merge, shortest):
    scores, steps = np.array([score for score, _ in frames]), [step for _, step in frames]
    times = np.cumsum([0, *steps])[: len(frames)] / 10
    expected, most = [], 0
    for threshold in sorted({score for score in scores if score == score}, reverse=True):
        count = len(find_events(scores, threshold, 10.0, merge, shortest, times))
        expected += [threshold] * (count - most)
        most = max(most, count)
    assert alarm_levels({"a": scores}, 10.0, merge, shortest, {"a": times}).tolist() == expected


def test_hours_of_a_varying_rate():
    times = np.concatenate((np.arange(1000) / 5, 9000 + np.arange(1000) / 25))
    found = calibrate({"a": noise(2000, 1)}, 25.0, 60, seconds={"a": times})
    assert found.footage_hours * 3600 == pytest.approx(999 / 5 + 1 / 25 + 1000 / 25)


# thresholds


def test_smallest_threshold_that_keeps_the_rate():
    # one hour at 1 fps with single-frame alarms of heights 1 to 9: for 3 an hour the threshold is the third highest, 7
    scores = np.zeros(3600)
    scores[100:1000:100] = np.arange(1, 10)
    found = calibrate({"a": scores}, 1.0, 3)
    assert found.threshold == 7
    assert not found.extrapolated
    assert (found.footage_hours, found.resolvable_rate) == (1, 1)
    assert [len(find_events(scores, found.threshold_at(rate), 1.0)) for rate in (1, 2, 5, 8.9)] == [1, 2, 5, 8]


def test_tied_scores_keep_the_rate():
    scores = np.zeros(3600)  # one hour with alarms of height 3, and many that are clipped at 2
    scores[10], scores[20:3600:4] = 3, 2
    found = calibrate({"a": scores}, 1.0, 6)
    assert len(find_events(scores, found.threshold, 1.0)) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [2, 12, 60, 300])
def test_held_out_footage_keeps_the_rate(seed, rate):
    rule = (10.0, 1.0, 0.2)
    scores = {"a": noise(AN_HOUR, seed), "b": noise(AN_HOUR // 2, seed + 10)}
    threshold = calibrate(scores, 10.0, rate, 1.0, 0.2).threshold
    assert events_in(scores, threshold, *rule) <= rate * 1.5
    # at no lower score is the rate that high, and no more: the next lower score gives at least as many events
    assert events_in(scores, threshold, *rule) == math.floor(rate * 1.5)


def test_merged_events_do_not_lower_threshold():
    # at the lowest score the whole hour is one event, fewer than the 3 allowed; between there are hundreds
    scores = noise(AN_HOUR, 1)
    low = scores.min()
    assert len(find_events(scores, low, 10.0, 1.0)) == 1
    assert calibrate({"a": scores}, 10.0, 3, 1.0).threshold > 2


@pytest.mark.parametrize("phi", [0.5, 0.9, 0.98])
def test_false_alarm_rate_on_fresh_footage(phi):
    val = {"a": noise(10 * AN_HOUR, 1, phi), "b": noise(10 * AN_HOUR, 2, phi)}
    found, fresh = calibrate(val, 10.0, 12, 1.0, 0.2), noise(50 * AN_HOUR, 3, phi)
    for rate in (6, 12, 60):
        observed = len(find_events(fresh, found.threshold_at(rate), 10.0, 1.0, 0.2)) / 50
        assert rate / 1.5 <= observed <= rate * 1.5


def test_rate_counts_seconds_not_frames():
    slow, fast = noise(3_000, 1), noise(12_000, 2)
    found = calibrate({"a": slow, "b": fast}, {"a": 5.0, "b": 20.0}, 60)
    assert found.footage_hours == pytest.approx(2 * 600 / 3600)


def test_nan_frames_are_not_counted():
    scores = noise(3_600, 1)
    scores[:600] = NAN
    found = calibrate({"a": scores, "b": np.full(50, NAN)}, 1.0, 12)
    assert (found.frames, found.clips) == (3_000, 1)
    assert found.footage_hours == pytest.approx(3_000 / 3_600)


@pytest.mark.parametrize("rate", [1, 12, 100])
@pytest.mark.parametrize("seed", range(5))
def test_three_hundred_frames_are_enough(seed, rate):
    scores = {"a": noise(150, seed), "b": noise(150, seed + 50)}
    found = calibrate(scores, 10.0, rate, 1.0, 0.2)
    assert found.extrapolated
    assert found.resolvable_rate == pytest.approx(120)  # 30 s of footage
    assert found.supported_rate == pytest.approx(max(rate, 120 / BEYOND))
    # above all scores seen, but not far: scores are standard normal
    assert found.threshold < 6
    assert events_in(scores, found.threshold, 10.0, 1.0, 0.2) == 0


def test_tail_of_exponential_peaks():
    # Peaks every 10 s, exponential with scale 2, one hour: 360 an hour reach 0, so r an hour reach 2 ln(360 / r), down to
    # the lowest rate that an hour supports.
    # The tail has 36 peaks, its scale a standard error of 1/6: a quarter is allowed.
    scores = np.zeros(3_600)
    scores[5::10] = np.random.default_rng(0).exponential(2, 360)
    found = calibrate({"a": scores}, 1.0, 0.1)
    assert found.extrapolated
    assert found.threshold == pytest.approx(2 * math.log(360 * BEYOND), rel=0.25)


def test_tail_of_a_single_event():
    # both frames merge into one event of height 2; the standard deviation of 0 and 2 is 1. One event in 0.2 s reaches 2,
    # so half of that rate is reached ln 2 higher.
    found = calibrate({"a": np.array([0.0, 2.0])}, 10.0, 3600 / 0.2 / 2, 1.0)
    assert found.threshold == pytest.approx(2 + math.log(2), abs=1e-12)


def test_heavy_tail_of_many_peaks():
    # Pareto peaks with shape 1/3, 10 000 of them: P(peak > x) = x^-3, so one in n peaks reaches n^(1/3).
    scores = np.zeros(100_000)
    scores[5::10] = np.random.default_rng(1).pareto(3, 10_000) + 1
    found = calibrate({"a": scores}, 1.0, 0.005)
    assert found.normal.tail_shape == pytest.approx(1 / 3, abs=0.1)
    assert found.threshold == pytest.approx((10_000 * BEYOND) ** (1 / 3), rel=0.5)


def test_extrapolated_rate_is_not_exceeded():
    # 1 h of footage cannot show 0.4 an hour, 200 h of fresh footage can. An exponential tail gives too few alarms.
    observed = []
    for seed in range(4):
        threshold = calibrate({"a": noise(AN_HOUR, seed)}, 10.0, 0.4, 1.0, 0.2).threshold
        observed.append(len(find_events(noise(50 * AN_HOUR, seed + 20), threshold, 10.0, 1.0, 0.2)) / 50)
    assert np.mean(observed) <= 0.4 * 1.5


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40).map(np.array), min_size=1, max_size=3),
    st.lists(st.floats(1e-4, 1e5), min_size=2, max_size=6).map(sorted),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_higher_rate_lowers_the_threshold(clips, rates, merge, shortest):
    found = calibrate(dict(enumerate(clips)), 10.0, rates[0], merge, shortest)
    thresholds = [found.threshold_at(rate) for rate in rates]
    assert all(map(math.isfinite, thresholds))
    assert thresholds == sorted(thresholds, reverse=True)
    assert found.threshold == thresholds[0]


@pytest.mark.parametrize("rate", [0.01, 12, 1e6])
def test_threshold_of_constant_scores(rate):
    found = calibrate({"a": np.full(100, 0.25), "b": np.full(100, 0.25)}, 10.0, rate, 1.0, 0.2)
    assert found.threshold in (0.25, math.nextafter(0.25, math.inf))  # both clips are one event each: 720 an hour
    np.testing.assert_allclose(found.p_value(np.array([0.25, 0.3])), [1, 1 / 201])


def test_footage_shorter_than_an_event():
    found = calibrate({"a": np.array([1.0, 3.0]), "b": np.array([2.0])}, 10.0, 12, 1.0, 1.0)
    assert found.extrapolated
    assert found.threshold > 3


@pytest.mark.parametrize("scores", [{}, {"a": np.array([])}, {"a": np.array([NAN, NAN])}])
def test_missing_scores_are_an_error(scores):
    with pytest.raises(VadError, match=r"train\.val"):
        calibrate(scores, 10.0, 12)


def test_infinite_score_is_an_error():
    with pytest.raises(VadError, match=r"clip a: frame 1 .*-inf"):
        calibrate({"a": np.array([0, -np.inf])}, 10.0, 12)


@pytest.mark.parametrize("rate", [0, -1, NAN, math.inf])
def test_invalid_rate_is_an_error(rate):
    with pytest.raises(VadError, match="target_far_per_hour"):
        calibrate({"a": np.array([0.0, 1.0])}, 10.0, rate)


# clips that the system was trained on


def test_seen_clips_only_raise_the_threshold():
    new, old = noise(AN_HOUR, 1), noise(AN_HOUR, 2)
    alone = calibrate({"new": new}, 10.0, 12, 1.0, 0.2)
    easier = calibrate({"new": new, "old": old - 3}, 10.0, 12, 1.0, 0.2, seen={"old"})
    harder = calibrate({"new": new, "old": old + 3}, 10.0, 12, 1.0, 0.2, seen={"old"})
    assert easier.threshold == alone.threshold
    assert harder.threshold > alone.threshold + 2
    assert (harder.footage_hours, harder.seen_hours) == (1, 1)
    fresh = noise(500, 3)
    np.testing.assert_array_equal(harder.p_value(fresh), alone.p_value(fresh))  # p-values are those of unseen clips


def test_seen_clips_make_lower_rates_resolvable():
    # 45 s of unseen footage resolve 80 events an hour, 4 minutes and more of all footage 15
    clips = {str(n): noise(90, n) for n in range(24)}
    found = calibrate(clips, 10.0, 30, 1.0, 0.2, seen={str(n) for n in range(5, 24)})
    assert not found.extrapolated
    assert found.threshold in np.concatenate(list(clips.values()))


# drift


@pytest.mark.parametrize(("shift", "expected"), [(0, None), (3, "higher"), (-3, "lower")])
def test_drift_of_the_whole_footage(shift, expected):
    found = calibrate({"a": noise(5_000, 1), "b": noise(5_000, 2)}, 10.0, 12)
    assert found.drift(noise(3_000, 3) + shift) == expected


def test_anomalies_are_no_drift():
    found = calibrate({"a": noise(5_000, 1), "b": noise(5_000, 2)}, 10.0, 12)
    fresh = noise(3_000, 3)
    fresh[:2_000] += 20
    assert found.drift(fresh) is None


def test_drift_allows_for_differing_clips():
    found = calibrate({"quiet": noise(5_000, 1) - 3, "busy": noise(5_000, 2) + 3}, 10.0, 12)
    assert found.drift(noise(3_000, 3) + 3) is None
    assert found.drift(noise(3_000, 3) + 6) == "higher"
    assert found.drift(np.full(10, NAN)) is None


# the file


def test_json_round_trip():
    made = calibrate({"a": noise(20_000, 1), "b": noise(20_000, 2)}, 12.5, 7, 1.0, 0.2)
    read = Calibration.from_json(made.to_json())
    assert read == made
    fresh = noise(1000, 3)
    np.testing.assert_array_equal(read.p_value(fresh), made.p_value(fresh))
    assert read.threshold_at(0.3) == made.threshold_at(0.3)


def test_thinned_levels_keep_the_rate():
    scores = noise(10 * AN_HOUR, 1, phi=0.5)
    found = calibrate({"a": scores}, 10.0, 300, 0.5)
    assert len(found.normal.levels) < 800
    events = len(find_events(scores, found.threshold, 10.0, 0.5))
    assert 0.98 * 3000 - 1 <= events <= 3000


def test_error_for_invalid_file():
    with pytest.raises(VadError, match=r"scores/x/calibration\.json.*threshold.*score stage"):
        Calibration.from_json("{}", "scores/x/calibration.json")
    with pytest.raises(VadError, match=r"calibration\.json"):
        Calibration.from_json("{")
