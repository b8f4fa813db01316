"""Facts of the footage, as phrases."""

import pytest

from vadcore.report import facts


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
    assert facts.phrases({"lens_cap": value}) == [("lens cap", text)]


def test_footage_facts():
    clips = {"train_clips": 6, "train_frames": 900, "test_clips": 8, "test_frames": 1200}
    labelled = {"test_frames_abnormal": 446, "test_clips_labelled": 8}
    pictures = {"format": "street", "height": 128, "width": 192, "color": "grey", "fps": 12.5}
    known = {"label_set": "generated truth", "frames": 2100, "hours": 0.0467, "digest": "f641", "left_out": []}
    assert facts.phrases({**clips, **labelled, **pictures, **known}) == [
        ("footage", "street, 192 × 128, grey, 12.5 frames a second"),
        ("for training", "6 clips, 900 frames"),
        ("for testing", "8 clips, 1,200 frames, 446 of them abnormal"),
        ("in all", "2.8 min, 2,100 frames"),
        ("labels", "generated truth"),
        ("content digest", "f641"),
    ]
    said = dict(
        facts.phrases(
            {**clips, **labelled, "test_clips_labelled": 3, "left_out": [{"clip": "test/09", "why": "no video"}]}
        )
    )
    assert said["for testing"] == "8 clips, 1,200 frames, 446 of them abnormal in the 3 clips that are labelled"
    assert said["left out"] == "test/09 (no video)"
    said = dict(facts.phrases({**clips, **labelled, "test_clips": 1, "test_clips_labelled": 0}))
    assert said["for testing"] == "1 clip, 1,200 frames, not labelled"
