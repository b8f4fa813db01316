"""The main figures of a data set above the results table."""

from types import SimpleNamespace

import pandas as pd
import pytest

from vadcore.report.table import evaluation_facts, highlights


def system(model, auc, found, false, trained=True):
    """A labelled system with 7 true events, a minute of normal footage and a requested rate of 60 false alarms an hour."""
    row = {
        "auc_micro": auc,
        "events_true": 7,
        "detected": found,
        "detection_rate": found / 7,
        "detection_delay_seconds": 0.4 if found else None,
        "false_alarms": false,
        "false_alarms_per_hour": 60.0 * false,
        "target_far_per_hour": 60.0,
        "normal_hours": 1 / 60,
    }
    return SimpleNamespace(model=model, row=row, trained=trained)


AT_THE_RATE = "most events found, with at most 60 false alarms an hour"


def test_best_systems_are_named():
    group = [system("conv_ae", 0.765, 1, 0), system("gru_ae", 0.7, 1, 0), system("frame_diff", 0.632, 0, 0, False)]
    assert highlights(group, None) == {
        "best micro AUC, trained": "conv_ae 76.5 %",
        "best micro AUC, untrained": "frame_diff 63.2 %",
        AT_THE_RATE: "conv_ae 1 of 7 after 0.4 s, 0 false alarms in 60 s",
    }


def test_untrained_system_may_find_most():
    group = [system("conv_ae", 0.765, 1, 0), system("flow_magnitude", 0.644, 5, 1, trained=False)]
    assert highlights(group, None)[AT_THE_RATE] == "flow_magnitude 5 of 7 after 0.4 s, 1 false alarm in 60 s"


def test_too_many_false_alarms():
    group = [system("conv_ae", 0.765, 1, 0), system("gru_ae", 0.7, 7, 2)]
    assert highlights(group, None)[AT_THE_RATE].startswith("conv_ae ")


def test_no_system_keeps_to_the_rate():
    group = [system("conv_ae", 0.765, 1, 4), system("gru_ae", 0.7, 7, 2)]
    assert highlights(group, None)[AT_THE_RATE] == "no system keeps to this rate"


def test_no_delay_without_found_events():
    found = highlights([system("conv_ae", 0.765, 0, 0)], None)
    assert found[AT_THE_RATE] == "conv_ae 0 of 7, 0 false alarms in 60 s"


def unlabelled(model, clips):
    """An unlabelled system that raised an alarm in each of ``clips``, of four."""
    frames, events = pd.DataFrame({"clip": list("abcd")}), pd.DataFrame({"clip": clips})
    return SimpleNamespace(model=model, row={}, frames=frames, events=events)


@pytest.mark.parametrize(
    ("clips", "figures"),
    [
        (["a", "a", "c"], {"alarms": "3", "clips with alarms": "2 of 4"}),
        ([], {"alarms": "none"}),
    ],
)
def test_unlabelled_alarms_are_counted(clips, figures):
    assert highlights([unlabelled("gru_ae", clips)], None) == figures


def test_unlabelled_systems_agree_on_a_clip():
    group = [unlabelled("gru_ae", ["b"]), unlabelled("background", ["b", "b"])]
    alarm = {"clip": "b", "start": 1.0, "end": 2.5, "agree": 2}
    assert highlights(group, alarm) == {
        "alarms": "1 to 2 from each of 2 systems",
        "clips with alarms": "1 of 4",
        "most systems in alarm": "2 of 2, clip b, 1.0–2.5 s",
    }
    assert "most systems in alarm" not in highlights(group, alarm | {"agree": 1})


def test_short_footage_allows_one_alarm():
    quiet = system("conv_ae", 0.765, 3, 1)
    quiet.row["target_far_per_hour"] = 12.0  # a fifth of an alarm in its minute
    (*_, found) = highlights([quiet], None).values()
    assert found.startswith("conv_ae 3 of 7")
    quiet.row["false_alarms"] = 2
    (*_, found) = highlights([quiet], None).values()
    assert found.startswith("no system")


def test_normal_footage_has_no_ranking():
    normal = system("conv_ae", None, 0, 2)
    normal.frames, normal.events = (pd.DataFrame({"clip": clips}) for clips in (["a", "b"], ["a", "a"]))
    assert highlights([normal], None) == {"alarms": "2", "clips with alarms": "1 of 2"}


def test_amounts_of_footage_may_differ():
    group = [system("conv_ae", 0.765, 3, 1), system("frame_diff", 0.7, 1, 0)]
    for one, hours, frames in zip(group, (0.02, 0.05), (464, 480), strict=True):
        one.labelled = False
        one.row |= {"footage_hours": hours, "frames_scored": frames}
    facts = evaluation_facts(group)
    assert facts["normal footage that training did not see"] == "72 s to 3.0 min"
    assert facts["test frames scored"] == "464 to 480"
