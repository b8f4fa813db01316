"""The pictures that a clip's timeline shows while one moves along it, and the alarms that one can jump to."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vadcore.errors import VadError
from vadcore.report.columns import significant
from vadcore.report.load import System

KINDS = ("shown", "error")  # sheets that differ between systems
MOST_EVENTS = 200  # listed a clip
FOREMOST = 30  # listed of all clips together


@dataclass(frozen=True)
class Sheet:
    """One picture in which the small pictures of all moments stand in rows. key: names it within the page."""

    key: str
    data: str
    columns: int
    rows: int
    width: int
    height: int


def viewer(clip_id: str, clip: str, group: list[System]) -> dict | None:
    """Frame numbers and sheets of one clip; None where no system kept pictures of it.

    Systems that kept pictures of other frames than the first of them show none.
    """
    known = [system.moments.get(clip) for system in group]
    first = next((entry for entry in known if entry is not None), None)
    if first is None or "frame" not in first["sheets"]:
        return None
    sheets = [_sheet(f"{clip_id}-frame", first, "frame")]
    systems = []
    for number, (system, entry) in enumerate(zip(group, known, strict=True)):
        own: dict[str, str | None] = dict.fromkeys(KINDS)
        for kind in KINDS:
            if entry is not None and entry["frames"] == first["frames"] and kind in entry["sheets"]:
                sheets.append(_sheet(f"{clip_id}-{kind}-{number}", entry, kind))
                own[kind] = sheets[-1].key
        systems.append({"model": system.model, **own})
    return {"frames": first["frames"], "sheets": sheets, "systems": systems}


def _sheet(key: str, entry: dict, kind: str) -> Sheet:
    sheet = entry["sheets"][kind]
    path: Path = sheet["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VadError(f"{path}: cannot be read ({error.strerror}); run the score stage again") from error
    columns = sheet["columns"]
    rows = -(-len(entry["frames"]) // columns)
    return Sheet(key, base64.b64encode(data).decode("ascii"), columns, rows, sheet["width"], sheet["height"])


def alarms_of(clip: str, group: list[System], styles: list[str]) -> list[dict]:
    """Every system's alarms in one clip, in the order in which they begin; at most :data:`MOST_EVENTS`."""
    found = []
    for number, (system, style) in enumerate(zip(group, styles, strict=True)):
        part = system.events[system.events["clip"] == clip]
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
            }
            for event in part.itertuples()
        ]
    return sorted(found, key=lambda event: (event["start"], event["number"]))[:MOST_EVENTS]


def foremost(clips: list[dict]) -> dict | None:
    """The rarest alarms of all clips, lowest p first, and how many there are in all; None without any.

    clips: those of :func:`vadcore.report.sections.clips`; all of their alarms are counted, also those that they do not list.
    """
    found = [alarm | {"clip": clip["id"], "name": clip["name"]} for clip in clips for alarm in clip["alarms"]]
    if not found:
        return None
    rarest = sorted(found, key=lambda alarm: 1.0 if alarm["p"] is None else alarm["p"])  # keeps the order of clips
    every = sum(lane["alarms"] for clip in clips for lane in clip["lanes"])
    return {"alarms": rarest[:FOREMOST], "all": every, "clips": len({alarm["clip"] for alarm in found})}
