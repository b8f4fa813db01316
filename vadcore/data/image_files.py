"""Read image files to uint8 pictures, with a one-line error message for every problem."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from vadcore.utils.errors import VadError

if "OPENCV_LOG_LEVEL" not in os.environ:  # its log messages would hide our error message
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_ENDINGS = frozenset([".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"])
GREY_SAMPLES = 8  # number of pictures tested to decide whether a clip is grey
FLAT = 1 / 8  # share of the 16-bit range; pictures that use less of it are reported
_NUMBER = re.compile(r"(\d+)\D*$")
_JPEG, _PNG, _BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


class ImageReader:
    """Iterable over image files as pictures in order, uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` RGB.

    Grey clips are often stored with three equal channels. Eight pictures spread evenly over the clip, including the first
    and the last, are tested. If all their pixels are grey, the whole clip is read as grey, which is faster and leaves
    grey pixels unchanged. Transparency is dropped; palettes and CMYK are converted.

    Parameters
    ----------
    paths: the files.
    pixel_range: see :func:`read_image`.

    Attributes
    ----------
    remarks: sentences about the pictures. Complete after the last picture.
    pixels: type of the pixels in the files, such as ``uint16``. None before the first picture.

    Raises :class:`VadError` if there are no files, or a file is missing, unreadable, truncated or of another size.
    """

    def __init__(self, paths: Sequence[Path], pixel_range: tuple[float, float] | None = None):
        if not paths:
            raise VadError("no image files to read; the clip's folder is empty: delete it or put its frames there")
        self.paths, self.pixel_range = [Path(path) for path in paths], pixel_range
        self.remarks: list[str] = []
        self.pixels: str | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        mode = cv2.IMREAD_GRAYSCALE if self._is_grey() else cv2.IMREAD_ANYCOLOR
        first, low, high = None, 65535, 0
        if self.paths[0].suffix.lower() in (".tif", ".tiff") and (count := cv2.imcount(str(self.paths[0]))) > 1:
            self.remarks.append(
                f"{self.paths[0].name}: holds {count} pictures; only the first one in each file is read"
            )
        for path in self.paths:
            picture = _decode(path, mode)
            first, self.pixels = (picture if first is None else first), str(picture.dtype)
            if picture.shape[:2] != first.shape[:2]:
                raise VadError(
                    f"{path}: {_size(picture.shape)} pixels where the clip's first frame, {self.paths[0].name}, has "
                    f"{_size(first.shape)}; one clip has one picture size: split the clip or replace the frame"
                )
            if picture.dtype != first.dtype:
                raise VadError(
                    f"{path}: {picture.dtype} pixels where the clip's first frame, {self.paths[0].name}, has {first.dtype}; "
                    "one clip has one type of pixel: split the clip or replace the frame"
                )
            if picture.dtype == np.uint16 and self.pixel_range is None:
                low, high = min(low, int(picture.min())), max(high, int(picture.max()))
            yield scale_pixels(picture, self.pixel_range, path)
        if 0 <= high - low < FLAT * 65535:
            self.remarks.append(
                f"{self.paths[0].parent.name}: 16-bit pictures with values from {low} to {high} only, so almost without "
                f"contrast in 8 bits; set dataset.*.pixel_range: [{low}, {high}] (for all clips alike)"
            )

    def _is_grey(self) -> bool:
        for index in np.unique(np.linspace(0, len(self.paths) - 1, GREY_SAMPLES).astype(int)):
            picture = _decode(self.paths[index], cv2.IMREAD_ANYCOLOR)
            if picture.ndim == 3:
                grey = _decode(self.paths[index], cv2.IMREAD_GRAYSCALE)
                if not (picture == grey[..., None]).all():
                    return False
        return True


def read_images(paths: Sequence[Path], pixel_range: tuple[float, float] | None = None) -> Iterator[np.ndarray]:
    """Yield the pictures of :class:`ImageReader`."""
    yield from ImageReader(paths, pixel_range)


def read_image(path: Path, pixel_range: tuple[float, float] | None = None) -> np.ndarray:
    """Read an image file, uint8 ``[H, W]`` or ``[H, W, 3]`` RGB.

    pixel_range: values that become 0 and 255 in pictures with more than 8 bits. None: 0 and 65535 for 16-bit pictures;
    pictures with floating-point or 32-bit pixels are refused.

    Raises :class:`VadError` if it is missing, unreadable or truncated.
    """
    return scale_pixels(_decode(Path(path), cv2.IMREAD_ANYCOLOR), pixel_range, path)


def scale_pixels(picture: np.ndarray, pixel_range: tuple[float, float] | None, path: Path) -> np.ndarray:
    """Convert the pixels of a picture to uint8. 8-bit pictures are returned as they are. See :func:`read_image`."""
    if picture.dtype == np.uint8:
        return picture
    if pixel_range is None and picture.dtype == np.uint16:
        return (picture >> 8).astype(np.uint8)
    if pixel_range is None:
        raise VadError(
            f"{path}: {picture.dtype} pixels from {np.nanmin(picture):g} to {np.nanmax(picture):g}; set "
            "dataset.*.pixel_range to the values that are black and white in all clips, or convert to 8 or 16 bits"
        )
    low, high = pixel_range
    if np.isnan(picture).any():
        raise VadError(f"{path}: {int(np.isnan(picture).sum())} pixels are NaN; replace the frame")
    scaled = (picture.astype(np.float32) - low) * (255 / (high - low))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def _decode(path: Path, mode: int) -> np.ndarray:
    """Read an image file with all its bits, ``[H, W]`` or ``[H, W, 3]`` RGB. mode: IMREAD_ANYCOLOR or IMREAD_GRAYSCALE."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise VadError(f"{path}: missing; bring the clip's files again (prepare stage)") from None
    if not data:
        raise VadError(f"{path}: empty (0 bytes); replace it by a whole copy")
    if image_is_cut(data):
        raise VadError(f"{path}: cut short after {len(data)} bytes; replace it by a whole copy")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), mode | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        picture = None
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


def read_numbered(paths: Sequence[Path], pixel_range: tuple[float, float] | None = None) -> ImageReader:
    """Read the numbered frames of one clip with :class:`ImageReader`.

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
    return ImageReader(paths, pixel_range)


def image_is_cut(data: bytes) -> bool:
    """Whether a JPEG, PNG or BMP file is truncated. Always False for other formats.

    The compressed data of a JPEG cannot contain the bytes of a marker. So a complete JPEG has an end marker after the
    last start-of-scan marker. An earlier end marker belongs to a thumbnail.
    """
    if data.startswith(_JPEG):
        if data.endswith(_END_OF_IMAGE):
            return False
        return data.rfind(_END_OF_IMAGE) < data.rfind(_START_OF_SCAN) or _START_OF_SCAN not in data
    if data.startswith(_PNG):
        return b"IEND" not in data[-1024:]
    if data.startswith(_BMP) and len(data) >= 6:
        return struct.unpack_from("<I", data, 2)[0] > len(data)
    return False


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
