"""The sentences at the head of a data set: which system one should look at, and what its alarms are worth."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vadcore.calibrate import calibrate
from vadcore.report.words import calibrated, summary


def system(model, auc, found, false, trained=True):
    """A labelled one with 7 true events and a minute of normal footage, asked for 60 false alarms an hour."""
    row = {
        "auc_micro": auc,
        "trained": trained,
        "events_true": 7,
        "detected": found,
        "detection_rate": found / 7,
        "detection_delay_seconds": 0.4 if found else None,
        "false_alarms": false,
        "false_alarms_per_hour": 60.0 * false,
        "false_alarms_per_hour_asked": 60.0,
        "normal_hours": 1 / 60,
    }
    return SimpleNamespace(model=model, row=row, labelled=True)


def test_who_ranks_best_and_what_its_alarms_find():
    assert summary([system("conv_ae", 0.765, 1, 0), system("frame_diff", 0.632, 1, 0, trained=False)]) == (
        "conv_ae ranks the frames best of the trained systems: raw micro AUC 76.5 %, 13.3 points above the untrained "
        "frame_diff. At its threshold, set on normal footage alone, it finds 1 of 7 events, 0.4 s after they begin, "
        "with 0 false alarms in 60 s of normal footage (60 an hour asked for)."
    )


def test_a_system_whose_alarms_find_more_is_named_also_where_it_learns_nothing():
    text = summary([system("conv_ae", 0.765, 1, 0), system("flow_magnitude", 0.644, 5, 1, trained=False)])
    assert text.endswith(
        "Of those that keep to the false alarms asked for, the untrained flow_magnitude finds most: it finds 5 of 7 "
        "events, 0.4 s after they begin, with 1 false alarm in 60 s of normal footage."
    )


def test_one_that_finds_more_with_more_false_alarms_than_asked_for_does_not_count():
    assert "gru_ae" not in summary([system("conv_ae", 0.765, 1, 0), system("gru_ae", 0.7, 7, 2)])


def test_where_nobody_keeps_to_what_was_asked_for_that_is_said():
    text = summary([system("conv_ae", 0.765, 1, 4), system("gru_ae", 0.7, 7, 2)])
    assert text.endswith("No system keeps to the false alarms asked for.")


def test_a_system_that_finds_nothing_has_no_delay():
    assert "it finds 0 of 7 events, with 0 false alarms" in summary([system("conv_ae", 0.765, 0, 0)])


def unlabelled(model, clips):
    """One that raised an alarm in each of ``clips``, of four."""
    frames, events = pd.DataFrame({"clip": list("abcd")}), pd.DataFrame({"clip": clips})
    return SimpleNamespace(model=model, row={}, labelled=False, frames=frames, events=events)


@pytest.mark.parametrize(
    ("clips", "text"),
    [
        (["a", "a", "c"], "gru_ae raises 3 alarms in 2 of 4 clips. "),
        (["b"], "gru_ae raises 1 alarm in 1 of 4 clips. "),
        ([], "gru_ae raises no alarms. "),
    ],
)
def test_without_labels_the_alarms_are_counted(clips, text):
    assert summary([unlabelled("gru_ae", clips)]).startswith(text)


@pytest.mark.parametrize(
    ("clips", "agree", "text"),
    [
        ([["a", "a", "c"], []], 1, "2 systems raise 0 to 3 alarms each, in 2 of 4 clips. No two are in alarm at once."),
        (
            [["b"], ["b"]],
            2,
            "2 systems raise 1 alarm each, in 1 of 4 clips. They agree best on clip b, 1.0–2.5 s: 2 of 2 ",
        ),
    ],
)
def test_of_several_systems_it_is_said_where_they_agree(clips, agree, text):
    group = [unlabelled(model, raised) for model, raised in zip(("gru_ae", "background"), clips, strict=True)]
    assert summary(group, {"name": "b", "when": "1.0–2.5 s", "agree": agree}).startswith(text)


def test_several_systems_may_find_nothing():
    assert summary([unlabelled("gru_ae", []), unlabelled("background", [])]).startswith("No system raises an alarm. ")


def test_one_alarm_is_allowed_where_the_rate_asked_for_is_less_than_one_in_the_footage():
    quiet = system("conv_ae", 0.765, 3, 1)
    quiet.row["false_alarms_per_hour_asked"] = 12.0  # a fifth of an alarm in its minute
    assert "No system keeps" not in summary([quiet])
    quiet.row["false_alarms"] = 2
    assert summary([quiet]).endswith("No system keeps to the false alarms asked for.")


def test_normal_footage_alone_is_told_its_alarms():
    normal = system("conv_ae", None, 0, 2)
    normal.frames, normal.events = (pd.DataFrame({"clip": clips}) for clips in (["a", "b"], ["a", "a"]))
    assert summary([normal]) == (
        "The labels hold only one class, so frames cannot be ranked against them. conv_ae raises 2 alarms in 1 of 2 clips."
    )


def test_it_is_said_how_a_threshold_came_about():
    scores = np.random.default_rng(1).gamma(2.0, size=600)
    made = calibrate({"a": scores}, 10.0, 600, merge_seconds=1.0, min_seconds=0.2)
    assert calibrated(made.model_dump()) == (
        f"The threshold {made.threshold:.3g} is set for 600 false alarms an hour, on 60 s of normal footage that training "
        "did not see, 1 clip. Alarms at most 1 s apart are one; one shorter than 0.2 s is none."
    )
    made = calibrate({"a": scores[:300], "b": scores[300:]}, 10.0, 12, merge_seconds=1.0, min_seconds=0.2)
    assert (
        "2 clips. A single alarm in it would be 60 an hour, so the threshold is extrapolated from the highest scores, those "
        f"of {made.tail_events} alarms. Alarms"
    ) in calibrated(made.model_dump())
