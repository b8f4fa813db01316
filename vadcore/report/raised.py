"""The alarms that were raised, as lists from which one can jump to them, and how many systems agree on each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vadcore.evaluation.events import EventMatches
from vadcore.report.columns import significant
from vadcore.report.judged import verdict
from vadcore.report.load import System

MOST_EVENTS = 200  # listed a clip
FOREMOST = 30  # listed of all clips together


def alarms_of(clip: str, group: list[System], styles: list[str], judged: list[EventMatches | None]) -> list[dict]:
    """Every system's alarms in one clip, in the order in which they begin.

    ``agree`` is the number of systems, itself included, that are in alarm at the frame where an alarm peaks; ``verdict``
    what the labels say of it. judged: of each system, what :func:`vadcore.report.judged.judge` says of the clip.
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
    """What the list of one clip shows of its ``alarms``: the :data:`MOST_EVENTS` rarest, as they begin."""
    return sorted(_rarest(alarms)[:MOST_EVENTS], key=_by_time)


def foremost(clips: list[dict]) -> dict | None:
    """The rarest alarms of all clips, lowest p first, of equals those that most systems agree on, and how many there are
    in all; ``most`` is the one with the most systems, of equals the rarest. None without any.

    clips: those of :func:`vadcore.report.sections.clips`, with all of their alarms, also those that a clip does not list.
    """
    rarest = _rarest([alarm | {"clip": clip["id"], "name": clip["name"]} for clip in clips for alarm in clip["alarms"]])
    if not rarest:
        return None
    return {
        "alarms": rarest[:FOREMOST],
        "most": max(rarest, key=lambda alarm: alarm["agree"]),
        "all": len(rarest),
        "clips": len({alarm["clip"] for alarm in rarest}),
        "cut": MOST_EVENTS if any(len(clip["alarms"]) > MOST_EVENTS for clip in clips) else None,  # the list of a clip
    }


def _by_time(alarm: dict) -> tuple[float, int]:
    return alarm["start"], alarm["number"]


def _rarest(alarms: list[dict]) -> list[dict]:
    """Lowest p first, of equals those that most systems agree on, of these the order in which they were given."""
    return sorted(alarms, key=lambda alarm: (1.0 if alarm["p"] is None else alarm["p"], -alarm["agree"]))


def _in_alarm(parts: list[pd.DataFrame], frames: np.ndarray) -> np.ndarray:
    """How many systems are in alarm at each of ``frames``; parts: the alarms of each, which do not overlap."""
    count = np.zeros(len(frames), np.int64)
    for part in parts:
        order = part.sort_values("start_frame")
        last = (
            np.searchsorted(order["start_frame"].to_numpy(np.int64), frames, side="right") - 1
        )  # that has begun, or -1
        ends = np.append(
            order["end_frame"].to_numpy(np.int64), -1
        )  # -1, taken where none has begun, is before every frame
        count += frames <= ends[last]
    return count
