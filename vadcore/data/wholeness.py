"""Tells files that were cut short, from what they say about themselves.

Decoders hide such damage: OpenCV fills the rest of a cut JPEG with grey and ends a cut video without an error.
"""

from __future__ import annotations

import struct
from pathlib import Path

_JPEG, _PNG, _BMP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM"
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# the first box of every MP4 or QuickTime file in circulation
_MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def image_is_cut(data: bytes) -> bool:
    """Whether the bytes of a JPEG, PNG or BMP file end before the picture does. Other formats: False.

    A JPEG's compressed data never holds the bytes of a marker, so a whole picture has its end marker after the last
    start of a scan (an earlier end marker is that of a thumbnail).
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
    """How many bytes a video file (AVI, MP4/QuickTime, Matroska/WebM) lacks of the length that it states.

    0 for a whole file, for one that states no length (a live recording), and for every other format.
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
    """Where the last RIFF list ends (files over 1 GB hold several); lists are padded to even lengths."""
    end = 0
    while end < length:
        file.seek(end)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        size = struct.unpack("<I", header[4:])[0]
        if size in (0, 0xFFFFFFFF):  # the recorder never came back to write it
            return 0
        end += 8 + size + size % 2
    return end - 1 if end == length + 1 else end  # a missing pad byte is no loss


def _mp4_end(file, length: int) -> int:
    """Where the last top-level box ends (ISO/IEC 14496-12, 4.2: 32-bit size, or 1 and a 64-bit size; 0: to the end)."""
    end = 0
    while end < length:
        file.seek(end)
        header = file.read(16)
        if len(header) < 8:
            break
        size = struct.unpack_from(">I", header)[0]
        if size == 1 and len(header) == 16:
            size = struct.unpack_from(">Q", header, 8)[0]
        if size < 8:  # to the end of the file, or bytes that are no box
            break
        end += size
    return end


def _matroska_end(start: bytes) -> int:
    """Where the segment ends (RFC 8794: element sizes are variable-length integers; all ones: unknown)."""
    at = start.find(_SEGMENT)
    if at < 0 or at + 12 > len(start):
        return 0
    at += 4
    width = 9 - start[at].bit_length()  # bytes of the integer: one more than its leading zero bits
    value = int.from_bytes(start[at : at + width], "big") & ((1 << 7 * width) - 1)
    return 0 if value == (1 << 7 * width) - 1 else at + width + value
