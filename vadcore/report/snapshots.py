"""Pictures shown while the pointer moves along a clip's timeline."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from vadcore.report.load import System
from vadcore.utils.errors import VadError

KINDS = ("shown", "error")  # sheets that differ between systems


@dataclass(frozen=True)
class Sheet:
    """One picture that holds the small pictures of all snapshots in rows. key: its name within the page."""

    key: str
    data: str
    columns: int
    rows: int
    width: int
    height: int


def viewer(clip_id: str, clip: str, group: list[System]) -> dict | None:
    """Return the frame numbers and sheets of one clip, or None if no system kept pictures of it.

    The frame numbers are those of the first system with pictures. Systems with other frame numbers show no pictures.
    """
    known = [system.snapshots.get(clip) for system in group]
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
