"""Snapshots of evenly spread test frames: the frame, the system's reconstruction or prediction of it, and its error map.

They are stored as sprite sheets, one picture per clip and kind, with the thumbnails of all snapshots in rows. The report
page shows one thumbnail at a time while the user moves along a clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from vadcore.data.loader import ClipLoader
from vadcore.evaluation.inference import FRAMES_AT_ONCE
from vadcore.models.base import Model
from vadcore.utils.device import autocast
from vadcore.utils.files import complete, write_json
from vadcore.utils.render import encode, heat, outlined

WIDTHS = {"frame": 240, "shown": 192, "error": 96}  # maximum width of a thumbnail, pixels
QUALITY = {"frame": 55, "shown": 50, "error": 60}  # WebP quality, 0..100


def snapshot_frames(lengths: dict[str, int], count: int) -> dict[str, np.ndarray]:
    """Choose every k-th frame of each clip, with the smallest k that gives at most ``count`` frames in total.

    lengths: clip -> number of frames. Returns clip -> frame numbers, ascending.
    """
    for step in range(1, max(lengths.values(), default=1) + 1):
        chosen = {clip: np.arange(step // 2, length, step) for clip, length in lengths.items()}
        if sum(map(len, chosen.values())) <= count:
            return chosen
    return {clip: np.arange(0) for clip in lengths}


@torch.inference_mode()
def shown_frames(
    model: Model, footage: ClipLoader, number: int, wanted: np.ndarray, dtype: torch.dtype = torch.float32
) -> dict[int, np.ndarray]:
    """Reconstructions or predictions of the frames ``wanted`` of segment ``number``: frame -> float32 ``[C, H, W]`` in 0..1.

    Only the few windows from :func:`covering` are run; each picture comes from the first of them that scores the frame.
    Frames that no window scores are left out. Empty for a system that produces no pictures of the scored frames.
    """
    windows = model.windows
    starts = covering(footage.lengths[number], windows.length, windows.judged, wanted)
    size = max(1, FRAMES_AT_ONCE[footage.device.type] // windows.length)
    groups = [starts[first : first + size] for first in range(0, len(starts), size)]
    plan = [np.stack([np.full_like(group, number), group, np.ones_like(group)], axis=1) for group in groups]
    found: dict[int, np.ndarray] = {}
    wanted = set(wanted.tolist())
    model.eval()
    for group, batch in zip(groups, footage.batches(plan, windows.length), strict=True):
        with autocast(footage.device, dtype):
            judged = model.predict_step(batch)
            if judged.shown is None or judged.shown_of is not None:
                return {}
            shown = judged.shown()
        for start, pictures in zip(group, shown.float().cpu().numpy(), strict=True):
            for position, picture in zip(windows.judged, pictures, strict=True):
                if start + position in wanted:
                    found.setdefault(int(start + position), picture)
    return found


def covering(length: int, window: int, judged: tuple[int, ...], wanted: np.ndarray) -> np.ndarray:
    """Starts of few windows that score all frames ``wanted`` (except those that no window can score): int64 ``[n]``.

    length: frames in the segment. window: frames in a window. judged: positions in a window that are scored. wanted:
    frame numbers, ascending.
    """
    starts: list[int] = []
    covered: set[int] = set()
    last = length - window
    for frame in wanted.tolist():
        if frame in covered:
            continue
        # the latest window that scores this frame also scores the most of the following frames
        start = next((frame - position for position in judged if 0 <= frame - position <= last), None)
        if start is not None:
            starts.append(start)
            covered.update(start + position for position in judged)
    return np.array(starts, np.int64)


@dataclass
class Snapshot:
    """One frame of a clip.

    frame: uint8 ``[H, W]`` or ``[H, W, 3]``. shown: the system's reconstruction or prediction, float ``[C, h, w]`` in
    0..1, or None. error: error map, float ``[h', w']``, NaN if not scored. mask: 0/1 ``[H, W]``, ground truth of the
    anomaly, or None.
    """

    frame: np.ndarray
    shown: np.ndarray | None
    error: np.ndarray
    mask: np.ndarray | None


def write_sheets(
    folder: Path, clip: str, numbers: np.ndarray, snapshots: Iterable[Snapshot], scale: tuple[float, float]
) -> dict:
    """Write the sprite sheets of one clip to ``folder`` and return their description for the report page.

    numbers: frame numbers of the snapshots. scale: the errors drawn darkest and brightest. Returns ``frames`` (the
    numbers) and ``sheets``: for each kind ``file``, ``columns``, and ``width`` and ``height`` of a thumbnail. A kind
    without any picture has no sheet.
    """
    small: dict[str, list[np.ndarray | None]] = {kind: [] for kind in WIDTHS}
    for moment in snapshots:
        thickness = max(1, moment.frame.shape[1] // WIDTHS["frame"])  # about one pixel of the thumbnail
        small["frame"].append(_small(outlined(moment.frame, moment.mask, thickness), "frame"))
        small["shown"].append(None if moment.shown is None else _small(_picture(moment.shown), "shown"))
        small["error"].append(_small(heat(moment.error.astype(np.float32), *scale), "error"))
    with ThreadPoolExecutor() as pool:  # compression releases the GIL
        sheets = dict(
            zip(small, pool.map(lambda kind: _write_sheet(folder, clip, kind, small[kind]), small), strict=True)
        )
    return {"frames": numbers.tolist(), "sheets": {kind: sheet for kind, sheet in sheets.items() if sheet}}


def _write_sheet(folder: Path, clip: str, kind: str, pictures: list[np.ndarray | None]) -> dict | None:
    there = next((picture for picture in pictures if picture is not None), None)
    if there is None:
        return None
    height, width = there.shape[:2]
    columns = math.ceil(math.sqrt(len(pictures) * height / width))  # about square
    file = f"{clip}.{kind}.webp"
    with complete(folder / file) as temporary:
        sheet = _sheet(pictures, (height, width), columns)
        temporary.write_bytes(encode(sheet, ".webp", cv2.IMWRITE_WEBP_QUALITY, QUALITY[kind]))
    return {"file": file, "columns": columns, "width": width, "height": height}


def write_index(folder: Path, clips: dict[str, dict]) -> None:
    """Write ``snapshots.json``. clips: clip -> result of :func:`write_sheets`."""
    write_json(folder / "snapshots.json", clips)


def _small(picture: np.ndarray, kind: str) -> np.ndarray:
    """Reduce an RGB picture ``[H, W, 3]`` to the maximum width of its kind."""
    height, width = picture.shape[:2]
    if width <= WIDTHS[kind]:
        return picture
    size = WIDTHS[kind], max(1, round(height * WIDTHS[kind] / width))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _sheet(pictures: list[np.ndarray | None], size: tuple[int, int], columns: int) -> np.ndarray:
    """Arrange RGB pictures of equal ``size`` (height, width) in rows of ``columns``; None becomes black."""
    height, width = size
    sheet = np.zeros((-(-len(pictures) // columns) * height, columns * width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        if picture is not None:
            row, column = divmod(number, columns)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return sheet


def _picture(shown: np.ndarray) -> np.ndarray:
    """Convert float ``[C, H, W]`` in 0..1 to uint8 RGB ``[H, W, 3]``."""
    levels = np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return levels.repeat(3, axis=2) if levels.shape[2] == 1 else levels
