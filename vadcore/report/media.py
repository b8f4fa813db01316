"""Pictures and animations of the stages: embedded in the page, and copied into one folder."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import cv2
import numpy as np

from vadcore.report.load import System
from vadcore.utils.errors import VadError
from vadcore.utils.images import reduced
from vadcore.utils.render import FRAMES_PER_SECOND, SEPARATOR, encode, encode_animation, join
from vadcore.utils.spaced import spaced

FILM_WIDTH, FILM_QUALITY = 520, 72  # maximum width in pixels; WebP quality, 0..100
PICTURE_WIDTH, PICTURE_QUALITY = 1200, 80


def picture(path: Path) -> dict:
    """Return a picture file as a WebP data URI with its size. Raises :class:`VadError` if it cannot be read."""
    return embedded(reduced(read_picture(path), PICTURE_WIDTH), PICTURE_QUALITY)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture file as uint8 RGB ``[H, W, 3]``. Raises :class:`VadError` if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise VadError(f"{path}: not a readable picture; run the stage that writes it again with `dvc repro --force`")
    return image


def film(path: Path) -> dict | None:
    """Return the animation at ``path`` as ``moving`` and its first frame as ``still``: data URIs with their size.

    None if the file does not exist. Raises :class:`VadError` if it cannot be read.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        pictures = decode_animation(data)
    except ValueError as error:
        raise VadError(f"{path}: {error}; run the stage that writes it again with `dvc repro --force`") from error
    if pictures[0].shape[1] > FILM_WIDTH:
        pictures = [reduced(picture, FILM_WIDTH) for picture in pictures]
        data = encode_animation(pictures)
    still = embedded(pictures[0])
    return {"moving": still | {"uri": _uri(data)}, "still": still}


def embedded(image: np.ndarray, quality: int = FILM_QUALITY) -> dict:
    """Return a picture, uint8 RGB ``[H, W, 3]``, as a WebP data URI with its size."""
    height, width = image.shape[:2]
    return {"uri": _uri(encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)), "width": width, "height": height}


def _uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}"


def decode_animation(data: bytes) -> list[np.ndarray]:
    """Decode the pictures of an animation, uint8 RGB. Raises ValueError if ``data`` is not an animation.

    The encoder merges consecutive equal pictures into one with a longer duration. They are repeated here. If all pictures
    are equal, the encoder stores no duration, and the number of pictures is lost.
    """
    try:
        done, animation = cv2.imdecodeanimation(np.frombuffer(data, np.uint8))
    except cv2.error as error:  # raised for an empty buffer
        raise ValueError("not an animation that OpenCV can read") from error
    if not done:
        raise ValueError("not an animation that OpenCV can read")
    pictures = [
        cv2.cvtColor(frame, cv2.COLOR_BGRA2RGB if frame.shape[2] == 4 else cv2.COLOR_BGR2RGB)
        for frame in animation.frames
    ]
    times = np.maximum(1, np.rint(np.asarray(animation.durations) * FRAMES_PER_SECOND / 1000).astype(int))
    return [picture for picture, count in zip(pictures, times, strict=True) for _ in range(count)]


def excerpt(picture: np.ndarray, size: tuple[int, int], count: int) -> np.ndarray:
    """Crop a column of :func:`~vadcore.utils.render.strip` pictures to the first strip and at most ``count`` frames of it.

    The frames are evenly spread and include the first and the last. ``size``: height and width of a frame. A picture that
    is not such a column is returned unchanged.
    """
    height, width = 3 * size[0] + 2 * SEPARATOR, size[1] + SEPARATOR
    frames, rest = divmod(picture.shape[1] + SEPARATOR, width)
    if rest or picture.shape[0] % height:
        return picture
    starts = spaced(frames, count) * width
    return join([picture[:height, start : start + size[1]] for start in starts], axis=1)


def snapshots(clip_id: str, clip: str, group: list[System]) -> dict | None:
    """Return the pictures shown while the pointer moves along a clip's timeline, or None if no system kept any.

    Returns ``frames`` (numbers of the frames that have pictures), ``sheets`` and, for each system, the keys of its sheets
    by kind. A sheet holds the small pictures of all these frames in rows. The frame numbers are those of the first system
    with pictures; systems with other frame numbers show none.
    """
    known = [system.snapshots.get(clip) for system in group]
    first = next((entry for entry in known if entry is not None), None)
    if first is None or "frame" not in first["sheets"]:
        return None
    sheets = [_sheet(f"{clip_id}-frame", first, "frame")]
    own: list[dict[str, str]] = [{} for _ in group]
    for system, entry in enumerate(known):
        if entry is None or entry["frames"] != first["frames"]:
            continue
        for kind in ("reconstruction", "error"):
            if kind in entry["sheets"]:
                own[system][kind] = f"{clip_id}-{kind}-{system}"
                sheets.append(_sheet(own[system][kind], entry, kind))
    return {"frames": first["frames"], "sheets": sheets, "systems": own}


def _sheet(key: str, entry: dict, kind: str) -> dict:
    sheet = entry["sheets"][kind]
    try:
        data = base64.b64encode(sheet["file"].read_bytes()).decode("ascii")
    except OSError as error:
        raise VadError(f"{sheet['file']}: cannot be read ({error.strerror}); run the score stage again") from error
    return sheet | {"key": key, "data": data, "rows": -(-len(entry["frames"]) // sheet["columns"])}


def first_and_last(samples: list[Path]) -> list[Path]:
    """Return the first and last sample of every training phase."""
    phases: dict[str, list[Path]] = {}
    for path in samples:
        phases.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return [path for of_phase in phases.values() for path in dict.fromkeys((of_phase[0], of_phase[-1]))]


def write_strips(folder: Path, systems: list[System]) -> None:
    """Copy the strips of every system into ``folder``, for tools that show folders of pictures (``dvc plots show``).

    The previous content of ``folder`` is removed. Names: ``<dataset>-<model>-check-point-<phase>-<iteration>.png`` and
    ``<dataset>-<model>-rollout-<clip>-<frame>.png``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for system in systems:
        strips = {"check-point": first_and_last(system.samples), "rollout": system.rollout_folder.glob("*.png")}
        for kind, paths in strips.items():
            for path in paths:
                shutil.copy(path, folder / f"{system.dataset}-{system.model}-{kind}-{path.name}")
