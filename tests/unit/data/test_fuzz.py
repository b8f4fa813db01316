"""Damaged files from a fixed seed: an error of one line, or pictures and a remark on all that is missing."""

import time

import av
import cv2
import numpy as np
import pytest

from tests.helpers.encode import encode, walking_square
from vadcore.data.formats.videos import read_intervals
from vadcore.data.image_files import read_image
from vadcore.data.video import VideoReader
from vadcore.utils.errors import VadError

VIDEOS, PICTURES, TABLES = 425, 80, 201
FRAMES = 20
SECONDS = 10.0  # a file that takes longer counts as a hang
QUIET = {"x265-params": "log-level=none"}
KINDS = [
    ("a.mp4", "libx264", {"muxer": {"movflags": "faststart"}}),
    ("b.mp4", "mpeg4", {}),
    ("c.mkv", "libx264", {}),
    ("d.webm", "libvpx", {}),
    ("e.avi", "mjpeg", {"pixels": "yuvj420p"}),
    ("f.ts", "libx264", {}),
    ("g.flv", "flv", {}),
    ("h.mkv", "libx264", {"bf": "2"}),
    ("i.mp4", "libx264", {"bf": "2"}),
    ("j.ts", "libx264", {"bf": "2"}),
    ("k.mpg", "mpeg2video", {"bf": "2"}),
    ("l.wmv", "wmv2", {}),
    ("m.mkv", "ffv1", {}),
    ("n.mp4", "libx265", QUIET),
    ("o.webm", "libvpx-vp9", {}),
    ("p.ts", "libx265", QUIET),
    ("q.h264", "libx264", {}),
]
# Kinds of which a shortened file may be read without a remark. A cut between two frames of a stream that states no length
# cannot be known. A flipped bit can lower a count or length that the container states, or make FFmpeg drop a picture without
# an error: about one flipped file in a hundred of these kinds.
SILENT = {
    "cut": {"f.ts", "j.ts", "k.mpg", "p.ts", "q.h264"},
    "flip": {"a.mp4", "g.flv", "i.mp4", "l.wmv", "m.mkv", "n.mp4", "q.h264"},
}
TABLE = "clip,start,end\na,1.5,2\nb.mp4,00:00:01,00:00:02\n"


def mutate(data: bytes, rng: np.random.Generator, other: bytes) -> tuple[str, bytes]:
    """Damage ``data`` in one of several ways. Returns the way and the damaged bytes."""
    way = ("cut", "flip", "zero", "header", "insert")[rng.integers(5)]
    changed = bytearray(data)
    if way == "cut":
        del changed[int(rng.integers(1, len(data))) :]
    elif way == "flip":
        for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
            changed[at] ^= 1 << int(rng.integers(8))
    elif way == "zero":
        at, size = int(rng.integers(0, len(data))), int(rng.integers(1, 400))
        changed[at : at + size] = bytes(len(changed[at : at + size]))
    elif way == "header":
        size = int(rng.integers(4, 64))
        changed[:size] = other[:size]
    else:
        at = int(rng.integers(0, len(data)))
        changed[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return way, bytes(changed)


def survives(call):
    """Run ``call``: its result, or None after an error of one line. It must not take long."""
    started = time.monotonic()
    result, message = None, ""
    try:
        result = call()
    except VadError as error:
        message = str(error)
    assert "\n" not in message
    assert time.monotonic() - started < SECONDS
    return result


def read(path) -> tuple[VideoReader, int]:
    reader = VideoReader(path, max_missing=1)
    return reader, sum(1 for _ in reader)


def encoded(folder, count: int) -> list:
    """Videos of all kinds whose encoder PyAV has."""
    frames = walking_square(count, (48, 64))
    return [
        encode(folder / name, frames, codec, **options)
        for name, codec, options in KINDS
        if codec in av.codecs_available
    ]


def test_damaged_videos(tmp_path):
    rng = np.random.default_rng(1)
    whole = {path.name: path.read_bytes() for path in encoded(tmp_path, FRAMES)}
    remarks = {name: len(VideoReader(tmp_path / name).remarks) for name in whole}
    names = list(whole)
    read_at_all = 0
    for number in range(VIDEOS):
        name = names[number % len(names)]
        other = whole[names[int(rng.integers(len(names)))]]
        way, data = mutate(whole[name], rng, other)
        path = tmp_path / f"damaged-{number}-{way}{name[1:]}"
        path.write_bytes(data)
        found = survives(lambda path=path: read(path))
        if found is None:
            continue
        reader, count = found
        read_at_all += 1
        assert count == len(reader.numbers)
        assert reader.numbers == sorted(set(reader.numbers))
        if way in SILENT and name not in SILENT[way] and count < FRAMES:
            assert len(reader.remarks) > remarks[name], f"{path.name}: {count} frames without a remark"
        if count < reader.length:
            assert any("missing" in remark for remark in reader.remarks)
        path.unlink()
    assert read_at_all > VIDEOS / 4


def test_damaged_video_is_read_alike_every_time(tmp_path):
    path = encode(tmp_path / "clip.mkv", walking_square(40, (48, 64)), bf="2")
    rng = np.random.default_rng(2)
    data = bytearray(path.read_bytes())
    for at in rng.integers(len(data) // 4, len(data), 6):
        data[at] ^= 0xFF
    path.write_bytes(data)
    first, second = ([shown.tobytes() for shown in VideoReader(path, max_missing=1)] for _ in range(2))
    assert first == second


def test_renamed_videos(tmp_path):
    for path in encoded(tmp_path, 8):
        for ending in (".mp4", ".mkv", ".avi", ".ts", ".dav", ".h264"):
            renamed = path.with_name(f"renamed{ending}")
            renamed.write_bytes(path.read_bytes())
            found = survives(lambda renamed=renamed: read(renamed))
            assert found is None or found[1] == 8


def test_damaged_pictures(tmp_path):
    rng = np.random.default_rng(3)
    shown = walking_square(1, (48, 64))[0]
    endings = (".jpg", ".png", ".bmp", ".tif", ".ppm")
    whole = [cv2.imencode(ending, shown)[1].tobytes() for ending in endings]
    for number in range(PICTURES):
        kind = number % len(endings)
        _, data = mutate(whole[kind], rng, whole[int(rng.integers(len(endings)))])
        path = tmp_path / f"{number}{endings[kind]}"
        path.write_bytes(data)
        picture = survives(lambda path=path: read_image(path))
        assert picture is None or picture.dtype == np.uint8


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_damaged_tables(tmp_path, encoding):
    rng = np.random.default_rng(4)
    data = TABLE.encode(encoding)
    for number in range(TABLES // 3):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(mutate(data, rng, b'\xff\xfe;;;"""\r\n\0')[1])
        found = survives(lambda path=path: read_intervals(path))
        for _, interval in found or ():
            assert 0 <= interval.start < interval.end
