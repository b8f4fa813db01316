"""The report's sentences: the summary of a data set, and how a threshold was set."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vadcore.evaluation.calibration import calibrate
from vadcore.report.text import calibrated, protocol, summary


def system(model, auc, found, false, trained=True):
    """A labelled system with 7 true events, a minute of normal footage and a requested rate of 60 false alarms an hour."""
    row = {
        "auc_micro": auc,
        "trained": trained,
        "events_true": 7,
        "detected": found,
        "detection_rate": found / 7,
        "detection_delay_seconds": 0.4 if found else None,
        "false_alarms": false,
        "false_alarms_per_hour": 60.0 * false,
        "target_far_per_hour": 60.0,
        "normal_hours": 1 / 60,
    }
    return SimpleNamespace(model=model, row=row, labelled=True)


def test_summary_of_the_best_system():
    text = summary([system("conv_ae", 0.765, 1, 0), system("frame_diff", 0.632, 1, 0, trained=False)])
    assert re.match(r"conv_ae .* AUC 76\.5 %, 13\.3 points above .*frame_diff\. ", text)
    assert re.search(r"1 of 7 events, 0\.4 s .* 0 false alarms in 60 s .*60 an hour asked", text)


def test_better_untrained_system_is_named():
    text = summary([system("conv_ae", 0.765, 1, 0), system("flow_magnitude", 0.644, 5, 1, trained=False)])
    assert re.search(r"untrained flow_magnitude .*5 of 7 events, 0\.4 s .* 1 false alarm in 60 s", text)


def test_too_many_false_alarms():
    assert "gru_ae" not in summary([system("conv_ae", 0.765, 1, 0), system("gru_ae", 0.7, 7, 2)])


def test_no_system_keeps_to_the_rate():
    assert "No system keeps" in summary([system("conv_ae", 0.765, 1, 4), system("gru_ae", 0.7, 7, 2)])


def test_no_delay_without_found_events():
    assert "0 of 7 events, with 0 false alarms" in summary([system("conv_ae", 0.765, 0, 0)])


def unlabelled(model, clips):
    """An unlabelled system that raised an alarm in each of ``clips``, of four."""
    frames, events = pd.DataFrame({"clip": list("abcd")}), pd.DataFrame({"clip": clips})
    return SimpleNamespace(model=model, row={}, labelled=False, frames=frames, events=events)


@pytest.mark.parametrize(
    ("clips", "text"),
    [
        (["a", "a", "c"], "3 alarms in 2 of 4 clips"),
        (["b"], "1 alarm in 1 of 4 clips"),
        ([], "no alarms"),
    ],
)
def test_unlabelled_alarms_are_counted(clips, text):
    assert re.match(rf"gru_ae .*{text}\.", summary([unlabelled("gru_ae", clips)]))


@pytest.mark.parametrize(
    ("clips", "agree", "text"),
    [
        ([["a", "a", "c"], []], 1, "2 systems .*0 to 3 alarms .*2 of 4 clips. No two"),
        (
            [["b"], ["b"]],
            2,
            "2 systems .*1 alarm .*1 of 4 clips.*clip b, 1.0–2.5 s: 2 of 2",
        ),
    ],
)
def test_unlabelled_systems_agree_on_a_clip(clips, agree, text):
    group = [unlabelled(model, raised) for model, raised in zip(("gru_ae", "background"), clips, strict=True)]
    assert re.match(text, summary(group, {"name": "b", "when": "1.0–2.5 s", "agree": agree}))


def test_unlabelled_systems_without_alarms():
    assert summary([unlabelled("gru_ae", []), unlabelled("background", [])]).startswith("No system raises an alarm")


def test_short_footage_allows_one_alarm():
    quiet = system("conv_ae", 0.765, 3, 1)
    quiet.row["target_far_per_hour"] = 12.0  # a fifth of an alarm in its minute
    assert "No system keeps" not in summary([quiet])
    quiet.row["false_alarms"] = 2
    assert "No system keeps" in summary([quiet])


def test_normal_footage_has_no_ranking():
    normal = system("conv_ae", None, 0, 2)
    normal.frames, normal.events = (pd.DataFrame({"clip": clips}) for clips in (["a", "b"], ["a", "a"]))
    assert re.search(r"one class.*conv_ae .*2 alarms in 1 of 2 clips", summary([normal]))


@pytest.mark.parametrize(("drift", "said"), [(None, False), ("higher", True)])
def test_drift_is_reported(drift, said):
    drifted = system("conv_ae", 0.765, 3, 1)
    drifted.labelled, drifted.row = True, {"model": "conv_ae", "calibration_drift": drift}
    lines = [line for line in protocol([drifted]) if line.startswith("Drift: most test frames score higher")]
    assert bool(lines) == said


def test_threshold_calibration_in_words():
    scores = np.random.default_rng(1).gamma(2.0, size=600)
    made = calibrate({"a": scores}, 10.0, 600, merge_gap_s=1.0, min_event_s=0.2)
    text = calibrated(made.model_dump())
    assert re.match(
        rf"The threshold {made.threshold:.3g} .*600 false alarms an hour.* 60 s .*1 clip\. .* 1 s .* 0\.2 s", text
    )
    assert "extrapolated" not in text
    halves = {"a": scores[:300], "b": scores[300:]}
    made = calibrate(halves, 10.0, 30, merge_gap_s=1.0, min_event_s=0.2)
    assert re.search(
        rf"2 clips\. .*60 an hour.* extrapolated .* {made.normal.tail_events} alarms\.", calibrated(made.model_dump())
    )
    made = calibrate(halves, 10.0, 12, merge_gap_s=1.0, min_event_s=0.2, seen={"b"})
    assert re.search(
        r"1 clip, and on 30 s of training footage\. .*no rate below 20 an hour", calibrated(made.model_dump())
    )
