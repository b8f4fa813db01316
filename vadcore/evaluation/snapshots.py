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

from vadcore.utils.files import complete
from vadcore.utils.images import reduced
from vadcore.utils.render import encode, heat, outlined

WIDTHS = {"frame": 240, "reconstruction": 192, "error": 96}  # maximum width of a thumbnail, pixels
QUALITY = {"frame": 55, "reconstruction": 50, "error": 60}  # WebP quality, 0..100


def snapshot_frames(lengths: dict[str, int], count: int) -> dict[str, np.ndarray]:
    """Choose every k-th frame of each clip, with the smallest k that gives at most ``count`` frames in total.

    lengths: clip -> number of frames. Returns clip -> frame numbers, ascending.
    """
    for step in range(1, max(lengths.values(), default=1) + 1):
        chosen = {clip: np.arange(step // 2, length, step) for clip, length in lengths.items()}
        if sum(map(len, chosen.values())) <= count:
            return chosen
    return {clip: np.arange(0) for clip in lengths}


@dataclass
class Snapshot:
    """One frame of a clip.

    frame: uint8 ``[H, W]`` or ``[H, W, 3]``. reconstruction: the system's reconstruction or prediction, uint8
    ``[h, w, C]``, or None. error: error map, float ``[h', w']``, NaN if not scored. mask: 0/1 ``[H, W]``, ground truth of
    the anomaly, or None.
    """

    frame: np.ndarray
    reconstruction: np.ndarray | None
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
    for snapshot in snapshots:
        thickness = max(1, snapshot.frame.shape[1] // WIDTHS["frame"])  # about one pixel of the thumbnail
        small["frame"].append(reduced(outlined(snapshot.frame, snapshot.mask, thickness), WIDTHS["frame"]))
        rebuilt = snapshot.reconstruction
        small["reconstruction"].append(None if rebuilt is None else reduced(_rgb(rebuilt), WIDTHS["reconstruction"]))
        small["error"].append(reduced(heat(snapshot.error.astype(np.float32), *scale), WIDTHS["error"]))
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


def _sheet(pictures: list[np.ndarray | None], size: tuple[int, int], columns: int) -> np.ndarray:
    """Arrange RGB pictures of equal ``size`` (height, width) in rows of ``columns``; None becomes black."""
    height, width = size
    sheet = np.zeros((-(-len(pictures) // columns) * height, columns * width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        if picture is not None:
            row, column = divmod(number, columns)
            sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return sheet


def _rgb(picture: np.ndarray) -> np.ndarray:
    """Convert uint8 ``[H, W, C]``, grey or RGB, to RGB ``[H, W, 3]``."""
    return picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture
