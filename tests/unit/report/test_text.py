"""Numbers, labels and facts of the footage as text."""

import numpy as np
import pytest

from vadcore.report.text import decimal, footage_facts, intervals, write


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "none"),
        ([240, 360], "240 × 360"),
        (["a.avi", "b.avi"], "a.avi, b.avi"),
        ({"train": 3, "test": 2}, "train 3, test 2"),
    ],
)
def test_unknown_facts_are_shown_as_given(value, text):
    assert footage_facts({"lens_cap": value}) == {"lens cap": text}


def test_footage_facts():
    clips = {"train_clips": 6, "train_frames": 900, "test_clips": 8, "test_frames": 1200}
    labelled = {"test_frames_abnormal": 446, "test_clips_labelled": 8}
    pictures = {"format": "street", "height": 128, "width": 192, "color": "grey", "fps": 12.5}
    known = {"label_set": "generated truth", "frames": 2100, "hours": 0.0467, "digest": "f641", "left_out": []}
    assert footage_facts({**clips, **labelled, **pictures, **known}) == {
        "footage": "street, 192 × 128, grey, 12.5 frames a second",
        "for training": "6 clips, 900 frames",
        "for testing": "8 clips, 1,200 frames, 446 of them abnormal",
        "in all": "2.8 min, 2,100 frames",
        "labels": "generated truth",
        "content digest": "f641",
    }
    left_out = [{"clip": "test/09", "why": "no video"}]
    text = footage_facts({**clips, **labelled, "test_clips_labelled": 3, "left_out": left_out})
    assert text["for testing"] == "8 clips, 1,200 frames, 446 of them abnormal in the 3 labelled clips"
    assert text["left out"] == "test/09 (no video)"
    text = footage_facts({**clips, **labelled, "test_clips": 1, "test_clips_labelled": 0})
    assert text["for testing"] == "1 clip, 1,200 frames, not labelled"


@pytest.mark.parametrize(
    ("labels", "runs"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [(0, 2)]),
        ([1, 0, 1], [(0, 0), (2, 2)]),
        ([np.nan, 1, 1], [(1, 2)]),
    ],
)
def test_intervals_include_both_ends(labels, runs):
    assert intervals(np.arange(3), np.array(labels)) == runs


def test_missing_frame_ends_an_interval():
    assert intervals(np.array([3, 4, 6]), np.ones(3)) == [(3, 4), (6, 6)]


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
def test_column_values_as_text(value, kind, text):
    assert write(value, kind) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (100.0, "100"),
        (59.6817, "59.7"),
        (0.24, "0.24"),
        (0.001234, "0.00123"),
        (999.7, "1,000"),
        (10_000.0, "10,000"),
        (float("nan"), "none"),
    ],
)
def test_alarm_figures_have_no_exponent(value, text):
    assert decimal(value) == text
