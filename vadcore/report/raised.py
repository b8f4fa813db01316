"""Lists of the raised alarms, with links to them and the number of systems that agree on each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vadcore.evaluation.events import EventMatches
from vadcore.report.columns import significant
from vadcore.report.judged import verdict
from vadcore.report.load import System

MOST_EVENTS = 200  # largest number listed per clip
FOREMOST = 30  # largest number listed over all clips


def alarms_of(clip: str, group: list[System], styles: list[str], judged: list[EventMatches | None]) -> list[dict]:
    """Return every system's alarms in one clip, sorted by start.

    ``agree``: number of systems, including this one, that are in alarm at the alarm's peak frame. ``verdict``: true or
    false alarm according to the labels. judged: for each system the result of
    :func:`vadcore.report.judged.judge` for this clip.
    """
    parts = [system.events[system.events["clip"] == clip] for system in group]
    found = []
    for number, (system, style, part, said) in enumerate(zip(group, styles, parts, judged, strict=True)):
        agree = _in_alarm(parts, part["peak_frame"].to_numpy(np.int64))
        found += [
            {
                "number": number,
                "style": style,
                "model": system.model,
                "start": float(event.start_seconds),
                "when": f"{event.start_seconds:.1f}–{event.end_seconds:.1f} s",
                "peak": int(event.peak_frame),
                "score": significant(float(event.peak_score)),
                "p": None if pd.isna(event.p_value) else float(event.p_value),
                "p_value": None if pd.isna(event.p_value) else significant(float(event.p_value), 2),
                "agree": int(systems),
                "verdict": verdict(said, position),
            }
            for position, (event, systems) in enumerate(zip(part.itertuples(), agree, strict=True))
        ]
    return sorted(found, key=_by_time)


def listed(alarms: list[dict]) -> list[dict]:
    """Return the alarms to list for one clip: the :data:`MOST_EVENTS` with the lowest p-values, sorted by start."""
    return sorted(_rarest(alarms)[:MOST_EVENTS], key=_by_time)


def foremost(clips: list[dict]) -> dict | None:
    """Return the alarms with the lowest p-values over all clips, and the number of all alarms. None without alarms.

    Ties go to the alarm on which more systems agree. ``most`` is the alarm on which most systems agree; ties go to the
    lower p-value.

    clips: from :func:`vadcore.report.sections.clips`, with all alarms, including those that a clip does not list.
    """
    rarest = _rarest([alarm | {"clip": clip["id"], "name": clip["name"]} for clip in clips for alarm in clip["alarms"]])
    if not rarest:
        return None
    return {
        "alarms": rarest[:FOREMOST],
        "most": max(rarest, key=lambda alarm: alarm["agree"]),
        "all": len(rarest),
        "clips": len({alarm["clip"] for alarm in rarest}),
        "cut": MOST_EVENTS if any(len(clip["alarms"]) > MOST_EVENTS for clip in clips) else None,  # per clip
    }


def _by_time(alarm: dict) -> tuple[float, int]:
    return alarm["start"], alarm["number"]


def _rarest(alarms: list[dict]) -> list[dict]:
    """Sort by p-value, then by the number of systems that agree (most first), then by the given order."""
    return sorted(alarms, key=lambda alarm: (1.0 if alarm["p"] is None else alarm["p"], -alarm["agree"]))


def _in_alarm(parts: list[pd.DataFrame], frames: np.ndarray) -> np.ndarray:
    """Count the systems that are in alarm at each of ``frames``. parts: the alarms of each system, not overlapping."""
    count = np.zeros(len(frames), np.int64)
    for part in parts:
        order = part.sort_values("start_frame")
        last = (
            np.searchsorted(order["start_frame"].to_numpy(np.int64), frames, side="right") - 1
        )  # index of the last alarm that has begun, or -1
        ends = np.append(
            order["end_frame"].to_numpy(np.int64), -1
        )  # index -1 (no alarm has begun) reads this end, which is before every frame
        count += frames <= ends[last]
    return count
