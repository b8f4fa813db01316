"""What the labels of a clip say of its alarms, and what no alarm noticed: by the rule that the table's figures count by."""

from __future__ import annotations

import pandas as pd

from vadcore.evaluation.events import Event, EventMatches, by_frame, match_events
from vadcore.report.load import System

MOST_MISSED = 200  # listed a clip


def judge(frames: pd.DataFrame, events: pd.DataFrame) -> EventMatches | None:
    """Hold one system's alarms in one clip against its labels; None where it has none.

    frames, events: that clip's lines of frames.parquet and events.csv.
    """
    if frames["label"].isna().all():
        return None
    scores, labels = by_frame(frames)
    alarms = [
        Event(int(event.start_frame), int(event.end_frame), int(event.peak_frame), float(event.peak_score))
        for event in events.itertuples()
    ]
    return match_events(alarms, scores, labels, float(frames["fps"].iloc[0]))


def verdict(judged: EventMatches | None, number: int) -> str | None:
    """A word for an alarm; None in a clip without labels."""
    if judged is None:
        return None
    return "true alarm" if number in judged.right else "false alarm" if number in judged.false else "no labels there"


def missed(judged: list[EventMatches | None], group: list[System], styles: list[str], fps: float) -> dict | None:
    """The runs of abnormal frames of one clip that a system's alarms did not notice, as they begin: how many, and the first
    :data:`MOST_MISSED` of them. None where there are none."""
    found = [
        {
            "number": number,
            "style": style,
            "model": system.model,
            "start": start,
            "when": f"{start / fps:.1f}–{(end + 1) / fps:.1f} s",
        }
        for number, (one, system, style) in enumerate(zip(judged, group, styles, strict=True))
        if one is not None
        for start, end, first in one.runs
        if first is None
    ]
    found.sort(key=lambda run: (run["start"], run["number"]))
    return {"all": len(found), "runs": found[:MOST_MISSED]} if found else None
