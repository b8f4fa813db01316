"""Match alarms to the labels of a clip, by the same rule as the figures of the results table; list missed events."""

from __future__ import annotations

import pandas as pd

from vadcore.evaluation.events import Event, EventMatches, by_frame, match_events
from vadcore.report.load import System

MOST_MISSED = 200  # largest number listed per clip


def judge(frames: pd.DataFrame, events: pd.DataFrame) -> EventMatches | None:
    """Match one system's alarms in one clip to its labels. None if the clip has no labels.

    frames, events: rows of frames.parquet and events.csv for this clip.
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
    """Return the verdict on alarm ``number``. None in a clip without labels."""
    if judged is None:
        return None
    return "true alarm" if number in judged.right else "false alarm" if number in judged.false else "no labels there"


def missed(judged: list[EventMatches | None], group: list[System], styles: list[str], fps: float) -> dict | None:
    """Return the missed events of one clip, sorted by start: their number and the first :data:`MOST_MISSED`.

    An event is missed by a system if none of its alarms detects it. None if no event was missed.
    """
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
