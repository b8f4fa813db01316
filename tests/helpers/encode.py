"""Videos of every container and codec, with chosen frame times, written by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CLOCK = 12800  # ticks a second of the frame times


def walking_square(count: int, size: tuple[int, int] = (96, 128), still: range = range(0)) -> np.ndarray:
    """A bright square on a textured background that walks 2 px a frame, and waits in the frames ``still``.

    uint8 RGB ``[T, H, W, 3]``. The top is green and the left edge red, to tell the orientation.
    """
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(60, 140, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    ground[:8] = (0, 255, 0)
    ground[8:, :8] = (255, 0, 0)
    frames = np.repeat(ground[None], count, axis=0)
    at = 0
    for number in range(count):
        at += 0 if number in still else 2
        x = 10 + at % (size[1] - 30)
        frames[number, 40:56, x : x + 16] = 250
    return frames


def encode(
    path: Path,
    frames: np.ndarray | int = 50,
    codec: str = "libx264",
    fps: float | Fraction = 25,
    times: np.ndarray | None = None,
    pixels: str = "yuv420p",
    rotation: int = 0,
    muxer: dict | None = None,
    container: str | None = None,
    **options: str,
) -> Path:
    """Write a video.

    frames: pictures uint8 RGB ``[T, H, W, 3]``, or their number. times: seconds of each frame; default: ``k / fps``.
    pixels: FFmpeg's pixel format. rotation: degrees, in the header. muxer, options: options of the container and the codec.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = walking_square(frames) if isinstance(frames, int) else frames
    with av.open(str(path), "w", format=container, options=muxer or {}) as file:
        stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        stream.options = options
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * CLOCK), Fraction(1, CLOCK)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Position and size in bytes of every packet of a video, in the order of decoding."""
    with av.open(str(path)) as file:
        return [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]


def zero_packet(path: Path, number: int) -> Path:
    """Overwrite the bytes of one packet with zeros. Not for containers that split packets (TS, PS)."""
    data = bytearray(path.read_bytes())
    position, size = packets_of(path)[number]
    start = data.find(_bytes_of(path, number), max(0, position))
    assert start >= 0
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    return path


def _bytes_of(path: Path, number: int) -> bytes:
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        return bytes(packets[number])
