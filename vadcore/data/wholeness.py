"""Detect truncated image and video files from their headers and end markers.

This is needed because OpenCV gives no error: it fills the rest of a truncated JPEG with grey and ends a truncated video
early.
"""

from __future__ import annotations

import struct
from pathlib import Path

_JPEG, _PNG, _BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# possible first boxes of MP4 and QuickTime files
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


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


def missing_bytes(path: Path) -> int:
    """Return the number of bytes missing from a video file (AVI, MP4/QuickTime, Matroska/WebM).

    This is the size stated in the file minus its actual size. It is 0 for a complete file, for a file that states no size
    (a live recording), and for other formats.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start[:4] == b"RIFF":
            stated = _riff_end(file, length)
        elif start[4:8] in _MP4_STARTS:
            stated = _mp4_end(file, length)
        elif start[:4] == _EBML:
            stated = _matroska_end(start)
        else:
            return 0
    return max(0, stated - length)


def _riff_end(file, length: int) -> int:
    """Return the end of the last RIFF list. Files over 1 GB have several lists. Lists are padded to even lengths."""
    end = 0
    while end < length:
        file.seek(end)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        size = struct.unpack("<I", header[4:])[0]
        if size in (0, 0xFFFFFFFF):  # the recorder has not written the size
            return 0
        end += 8 + size + size % 2
    return end - 1 if end == length + 1 else end  # only the pad byte is missing


def _mp4_end(file, length: int) -> int:
    """Return the end of the last top-level box.

    ISO/IEC 14496-12, 4.2: a box has a 32-bit size, or 1 and then a 64-bit size, or 0 if it extends to the end of the file.
    """
    end = 0
    while end < length:
        file.seek(end)
        header = file.read(16)
        if len(header) < 8:
            break
        size = struct.unpack_from(">I", header)[0]
        if size == 1 and len(header) == 16:
            size = struct.unpack_from(">Q", header, 8)[0]
        if size < 8:  # box up to the end of the file, or not a box
            break
        end += size
    return end


def _matroska_end(start: bytes) -> int:
    """Return the end of the segment.

    RFC 8794: element sizes are variable-length integers; all bits one means unknown.
    """
    at = start.find(_SEGMENT)
    if at < 0 or at + 12 > len(start):
        return 0
    at += 4
    width = 9 - start[at].bit_length()  # bytes of the integer: its leading zero bits plus one
    value = int.from_bytes(start[at : at + width], "big") & ((1 << 7 * width) - 1)
    return 0 if value == (1 << 7 * width) - 1 else at + width + value
