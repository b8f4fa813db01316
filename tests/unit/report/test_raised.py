"""Lists of alarms: agreement of systems, order and cuts."""

from types import SimpleNamespace

import pandas as pd
import pytest

from vadcore.report.raised import FOREMOST, MOST_EVENTS, alarms_of, foremost, listed

COLUMNS = ["clip", "start_frame", "end_frame", "peak_frame", "peak_score", "p_value", "start_seconds", "end_seconds"]


def system(model, *alarms):
    """A system with ``alarms``: (clip, first frame, last frame, frame of the peak, p), at ten frames a second."""
    rows = [(clip, first, last, peak, 1.5, p, first / 10, last / 10) for clip, first, last, peak, p in alarms]
    return SimpleNamespace(model=model, events=pd.DataFrame(rows, columns=COLUMNS))


def clips_of(*group, clips=("a",)):
    """Clips as the page has them, each with the alarms of ``group`` in it."""
    styles = [f"s{number}" for number, _ in enumerate(group)]
    return [
        {
            "id": f"d1c{clip}",
            "name": clip,
            "alarms": alarms_of(clip, group, styles, [None] * len(group)),
        }
        for clip in clips
    ]


def test_agreement_at_the_peak():
    group = (
        system("long", ("a", 0, 99, 50, 0.1)),
        system("early", ("a", 10, 19, 12, 0.1), ("a", 40, 49, 45, 0.1)),
        system("late", ("a", 49, 60, 50, 0.1), ("b", 12, 45, 12, 0.1)),  # another clip is another time
        system("silent"),
    )
    agree = {(alarm["model"], alarm["peak"]): alarm["agree"] for alarm in clips_of(*group)[0]["alarms"]}
    assert agree == {("long", 50): 2, ("early", 12): 2, ("early", 45): 2, ("late", 50): 2}


@pytest.mark.parametrize(("peak", "agree"), [(9, 1), (10, 2), (19, 2), (20, 1)])
def test_alarm_includes_first_and_last_frame(peak, agree):
    alarms = clips_of(system("a", ("a", 0, 30, peak, 0.1)), system("b", ("a", 10, 19, 15, 0.1)))[0]["alarms"]
    assert alarms[0]["agree"] == agree


def test_order_of_alarms():
    first, second = system("x", ("a", 20, 29, 20, 0.1)), system("y", ("a", 10, 12, 11, 0.1), ("a", 20, 25, 21, 0.1))
    assert [(alarm["model"], alarm["peak"]) for alarm in clips_of(first, second)[0]["alarms"]] == [
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
    assert [(alarm["name"], alarm["peak"]) for alarm in raised["alarms"]] == [
        ("b", 5),
        ("b", 25),
        ("a", 5),
        ("b", 26),
        ("b", 45),
    ]
    assert (raised["all"], raised["clips"]) == (5, 2)
    assert (raised["most"]["peak"], raised["most"]["agree"]) == (25, 2)


def test_long_list_keeps_the_rarest():
    common = [("a", 10 * n, 10 * n + 3, 10 * n, 0.5) for n in range(MOST_EVENTS + 50)]
    rare = [("a", 5000, 5003, 5001, 0.001), ("a", 5010, 5013, 5011, 0.002)]  # later than all that are common
    (clip,) = clips_of(system("x", *common, *rare))
    shown = [alarm["peak"] for alarm in listed(clip["alarms"])]
    assert shown == [*range(0, 10 * (MOST_EVENTS - 2), 10), 5001, 5011]


def test_rarest_are_chosen_from_all_alarms():
    common = [("a", 10 * n, 10 * n + 3, 10 * n, 0.5) for n in range(MOST_EVENTS + 50)]
    late, other = ("a", 5000, 5003, 5001, 0.001), ("a", 5000, 5009, 5005, 0.9)
    raised = foremost(clips_of(system("x", *common, late), system("y", other)))
    assert raised["alarms"][0]["peak"] == 5001
    assert (raised["most"]["peak"], raised["most"]["agree"]) == (5001, 2)
    assert (len(raised["alarms"]), raised["all"], raised["cut"]) == (FOREMOST, MOST_EVENTS + 52, MOST_EVENTS)


def test_no_list_without_alarms():
    assert foremost(clips_of(system("x"), system("y"))) is None
