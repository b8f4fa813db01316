"""Decode video files and image files to uint8 pictures, with a one-line error message for every problem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

# OpenCV reads this when it first opens a video. The decoder's log messages would hide our error message.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from vadcore.data.wholeness import image_is_cut, missing_bytes
from vadcore.utils.errors import VadError

if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

VIDEO_ENDINGS = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mjpeg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
IMAGE_ENDINGS = frozenset([".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"])
COUNT_TOLERANCE = 0.1  # share of the frames stated in the header that may be missing
GREY_SAMPLES = 8  # number of pictures tested to decide whether a clip is grey
_NUMBER = re.compile(r"(\d+)\D*$")


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video in order, uint8 ``[H, W, 3]`` RGB.

    Raises :class:`VadError` if the file is missing, empty, not a video or truncated, or if its picture size changes.

    *Truncated files*: before decoding, the file size is compared with the size stated in AVI, MP4 and Matroska files.
    (MPEG streams and FLV do not state a size and are read to the end.) After decoding, the number of frames is compared
    with the number in the header. That number can be wrong: FFmpeg estimates it if the container does not store it, and
    AVI counts dropped frames. So it is checked only for AVI and MP4, and only more than 10 % missing frames are an error.

    *Picture size*: FFmpeg in OpenCV silently scales later frames to the size of the first. Motion JPEG stores the size in
    every frame and is checked. A size change in other codecs is not detected.
    """
    path = Path(path)
    with _opened(path) as capture:
        if capture.fourcc == "MJPG":
            _check_jpeg_sizes(path)
        count, read = 0, True
        while True:
            read, picture = capture.read()
            if not read:
                break
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
            count += 1
            yield picture
        _check_count(path, count, capture.promised)


def video_fps(path: Path) -> float:
    """Return the frame rate in a video's header, frames per second. Raises :class:`VadError` if it cannot be opened."""
    with _opened(Path(path)) as capture:
        return capture.fps


def count_frames(path: Path) -> int:
    """Count the frames of a video by decoding it. The result is cached while the file is unchanged.

    Raises the same errors as :func:`read_video`.
    """
    path = Path(path)
    known = path.stat() if path.exists() else None
    return _count_frames(path, known and (known.st_size, known.st_mtime_ns))


@lru_cache(maxsize=4096)
def _count_frames(path: Path, _identity) -> int:
    with _opened(path) as capture:
        count = 0
        while capture.grab():
            count += 1
        _check_count(path, count, capture.promised)
    return count


def read_images(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield image files as pictures in order, uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` RGB.

    Grey clips are often stored with three equal channels. Eight pictures spread evenly over the clip, including the first
    and the last, are tested. If all their pixels are grey, the whole clip is read as grey, which is faster and leaves
    grey pixels unchanged. Images with more than 8 bits are converted to 8 bits. Transparency is dropped.

    Raises :class:`VadError` if there are no files, or a file is missing, unreadable, truncated or of another size.
    """
    if not paths:
        raise VadError("no image files to read; the clip's folder is empty: delete it or put its frames there")
    mode = cv2.IMREAD_GRAYSCALE if _is_grey(paths) else cv2.IMREAD_ANYCOLOR
    size = None
    for path in paths:
        picture = read_image(path, mode)
        size = size or picture.shape[:2]
        if picture.shape[:2] != size:
            raise VadError(
                f"{path}: {_size(picture.shape)} pixels where the clip's first frame, {Path(paths[0]).name}, has "
                f"{_size(size)}; one clip has one picture size: split the clip or replace the frame"
            )
        yield picture


def read_image(path: Path, mode: int = cv2.IMREAD_ANYCOLOR) -> np.ndarray:
    """Read an image file, uint8 ``[H, W]`` or ``[H, W, 3]`` RGB.

    Raises :class:`VadError` if it is missing, unreadable or truncated.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise VadError(f"{path}: missing; bring the clip's files again (prepare stage)") from None
    if not data:
        raise VadError(f"{path}: empty (0 bytes); replace it by a whole copy")
    if image_is_cut(data):
        raise VadError(f"{path}: cut short after {len(data)} bytes; replace it by a whole copy")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if picture is None:
        raise VadError(f"{path}: not a readable image ({len(data)} bytes); replace it by a whole copy")
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def frame_number(path: Path) -> int:
    """Return the number in a frame's file name: the last run of digits (``frame012.bmp`` is 12)."""
    found = _NUMBER.search(path.stem)
    if not found:
        raise VadError(f"{path}: no frame number in its name; name frames 000.jpg, 001.jpg, ...")
    return int(found[1])


def numbered(folder: Path, endings: frozenset[str] = IMAGE_ENDINGS) -> tuple[Path, ...]:
    """List the image files of ``folder`` sorted by frame number, without hidden files.

    Raises :class:`VadError` if there are none or a name has no number.
    """
    files = [path for path in folder.iterdir() if path.suffix.lower() in endings and not path.name.startswith(".")]
    if not files:
        raise VadError(f"{folder}: holds no frames ({', '.join(sorted(endings))}); fill it or delete it")
    return tuple(sorted(files, key=lambda path: (frame_number(path), path.name)))


def read_numbered(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Read the numbered frames of one clip with :func:`read_images`.

    Numbers start at 0 or 1. Raises :class:`VadError` for a missing or duplicate number, because all later labels would
    belong to the wrong frames.
    """
    numbers = [frame_number(Path(path)) for path in paths]
    if numbers and numbers[0] > 1:
        raise VadError(f"{paths[0]}: the first frame has number {numbers[0]}, not 0 or 1; bring the frames before it")
    for path, before, number in zip(paths[1:], numbers, numbers[1:], strict=False):
        if number == before:
            raise VadError(f"{path}: a second frame with number {number}; keep one of them")
        if number > before + 1:
            raise VadError(
                f"{path}: follows frame {before}, so frame {before + 1} is missing "
                f"({number - before - 1} in a row); bring the whole clip, labels count frames"
            )
    return read_images(paths)


class _opened:
    """Context manager for an open video, with the frame rate, frame count and codec from its header."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> _opened:
        path = self.path
        if not path.is_file():
            raise VadError(f"{path}: missing; bring the clip's file again (prepare stage)")
        if not path.stat().st_size:
            raise VadError(f"{path}: empty (0 bytes); replace it by a whole copy")
        lacking = missing_bytes(path)
        if lacking:
            raise _cut(path, f"{lacking} of the {lacking + path.stat().st_size} bytes it states are missing")
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise VadError(
                f"{path}: not a readable video; replace it, or convert it with: ffmpeg -i {path.name} NEW.mp4"
            )
        self._capture = capture
        self.read, self.grab = capture.read, capture.grab
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))
        self.promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1").upper()
        return self

    def __exit__(self, *exception) -> None:
        self._capture.release()


def _check_count(path: Path, count: int, promised: int) -> None:
    if not count:
        raise VadError(f"{path}: holds no picture; replace it or delete it")
    with path.open("rb") as file:
        start = file.read(8)
    held_to_it = start[:4] == b"RIFF" or start[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    if held_to_it and count < (1 - COUNT_TOLERANCE) * promised - 1:
        raise _cut(path, f"{count} of {promised} frames can be decoded")


def _cut(path: Path, how: str) -> VadError:
    keep = f"ffmpeg -i {path.name} -c copy NEW{path.suffix}"
    return VadError(f"{path}: cut short, {how}; copy it again, or keep what can be read with: {keep}")


def _check_jpeg_sizes(path: Path) -> None:
    """Check that all frames of a Motion JPEG video have the same size, without decoding them."""
    packets = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])  # -1: raw packets
    first, number = None, 0
    try:
        while True:
            read, packet = packets.read()
            if not read:
                return
            size = _jpeg_size(packet.tobytes())
            first = first or size
            if size and size != first:
                raise VadError(
                    f"{path}: frame {number} has {_size(size)} pixels where the first has {_size(first)}; "
                    "one clip has one picture size: split the video there"
                )
            number += 1
    finally:
        packets.release()


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) from the frame header of a JPEG (ITU-T T.81, B.2.2), or None if there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + length
    return None


def _is_grey(paths: Sequence[Path]) -> bool:
    for index in np.unique(np.linspace(0, len(paths) - 1, GREY_SAMPLES).astype(int)):
        picture = read_image(paths[index])
        if picture.ndim == 3:
            grey = read_image(paths[index], cv2.IMREAD_GRAYSCALE)
            if not (picture == grey[..., None]).all():
                return False
    return True


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
