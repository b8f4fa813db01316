"""Read from the container of a video, without decoding, when each of its frames is shown."""

from __future__ import annotations

import math
import re
import shlex
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vadcore.utils.errors import VadError
from vadcore.utils.times import PAUSE

if TYPE_CHECKING:  # PyAV is imported where a video is read: stored frames need no decoder
    import av

HIGHEST_RATE = 1000.0  # frames per second; a higher value in a header is the clock rate, not the frame rate
SAME_RATE = 0.02  # relative tolerance of frame rates: 29.97 and 30 fps count as equal
_CLOCK_ERROR = 1e-3  # seconds; many recorders write times in whole milliseconds
_CLOCK_RESET = (
    0.5  # seconds that the clock has to go back to count as reset; half a frame where decoding times are stored
)
_SPIKE = 8  # frames in a row that may have wrong times before these count as a clock of their own
_PROBED = 48  # frames that are decoded where their order is in doubt
_APART = 16  # frames around wrong times that have to be right
_SPAN = 8  # frames over which a rate is measured where single steps vary
_FLV_ERROR = 0.15  # seconds that the duration in an FLV file may be too long
_SAME = 0.5  # share of equal times in a row from which times are not used
_SOUND_ERROR = 0.25  # seconds that the sound may end before the stated duration
MOST_ERRORS = 16  # errors of the demuxer in a row before the rest of the file is given up
_FEW_UNTIMED = 0.1  # share of the frames that may lack a time as by damage
_PICTURES = {"image2", "gif", "webp", "apng", "ico"}
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # identifier of the File Properties Object
_UNKNOWN_CODEC = re.compile(r"Video: none \((\w+)")
_RAW_STREAMS = {"h264", "hevc", "mjpeg", "m4v", "h263", "mpegvideo"}  # formats without times
_ENDLESS = {"mpegts", "mpeg", "mpegvideo", "m4v", "mjpeg", "h264", "hevc", "dv"}  # containers that state no length
END_UNKNOWN = "its end may be missing; how much cannot be known"
_LISTS = {"concat", "hls", "dash", "sdp"}


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video file according to its container.

    Attributes
    ----------
    codec: name of the codec.
    fps: frame rate while frames are recorded, frames per second: the rate in the header if the times agree with it, else
        the rate of the times. 0: the file has neither.
    times: time of every frame in seconds from the first one, float64 ``[T]``, in order.
    stamps: timestamp of every frame in ticks, int64 ``[T]``, in order: of presentation, or of decoding if ``by_decoding``.
        None if timestamps do not identify the frames; then the k-th frame has the k-th time.
    by_decoding: whether frames are identified by the times of decoding, as in AVI, which has no others.
    moved: timestamp in the file -> right timestamp, where they differ.
    tick: unit of the timestamps, seconds.
    cut_off: number of frames that are missing at the end of the file, as far as the container states its length.
    endless: whether the container states no length, so that a missing end cannot be counted.
    remarks: sentences about unusual properties other than times. time_remarks: sentences about unusual times.
    """

    codec: str
    fps: float
    times: np.ndarray
    stamps: np.ndarray | None
    by_decoding: bool
    moved: Mapping[int, int]
    tick: float
    cut_off: int
    endless: bool
    remarks: tuple[str, ...]
    time_remarks: tuple[str, ...]


def video_index(path: Path) -> VideoIndex:
    """Read the :class:`VideoIndex` of a video without decoding it. The result is cached while the file is unchanged.

    Raises :class:`VadError` if the file is missing, empty or not a video.
    """
    path = Path(path)
    if not path.is_file():
        raise VadError(f"{path}: missing; bring the clip's file again (prepare stage)")
    status = path.stat()
    if not status.st_size:
        raise VadError(f"{path}: empty (0 bytes); replace it by a whole copy")
    return _index(path, (status.st_size, status.st_mtime_ns))


def count_frames(path: Path) -> int:
    """Return the number of frames in a video. Raises the same errors as :func:`video_index`."""
    return len(video_index(path).times)


def video_fps(path: Path) -> float:
    """Return the frame rate of a video, frames per second. Raises the same errors as :func:`video_index`."""
    return video_index(path).fps


@lru_cache(maxsize=4096)
def _index(path: Path, _identity) -> VideoIndex:
    with opened_video(path) as (container, stream):
        kind = container.format.name.split(",")[0]
        tick = float(stream.time_base)
        read = _read_packets(container, stream, kind)
        stamps, moved = read.stamps, read.moved
        codec = stream.codec_context.name.removeprefix("lib")
        if not stamps:
            raise VadError(f"{path}: holds no picture ({codec}); copy it again, or delete it")
        remarks, time_remarks = _deep_grey(stream), []
        if len(shown_streams(container)) > 1:
            remarks.append(
                f"it holds {len(shown_streams(container))} video streams; only stream {stream.index} is read"
            )
        own = stream.codec_context.framerate if kind in _RAW_STREAMS else None
        stated = [
            float(rate) for rate in (own, stream.average_rate, stream.guessed_rate) if rate and rate <= HIGHEST_RATE
        ]
        # AVI stores no presentation times, and FFmpeg's guess is wrong for frames that are not stored in order.
        shown = [dts if kind == "avi" else pts for pts, dts in stamps]
        estimated = shown.count(None) > _FEW_UNTIMED * len(stamps)
        if estimated and all(dts is not None for _, dts in stamps):
            shown = [dts for _, dts in stamps]
        timed = [number for number, time in enumerate(shown) if time is not None]
        if len(timed) < _FEW_UNTIMED * len(stamps):
            fps = stated[0] if stated else 0.0
            return _without_times(codec, fps, len(stamps), tick, kind in _ENDLESS, remarks)
        if len(timed) < len(stamps):
            said = (
                "estimated from the others" if estimated else "not counted; their pictures are left out or fill a gap"
            )
            time_remarks.append(f"{len(stamps) - len(timed)} of its frames have no time; they are {said}")
        if estimated:
            presented = decoded = _filled(shown, timed)
        else:
            pairs = [(shown[number], stamps[number][1]) for number in timed]
            stored, decoded = np.array([(time, time if dts is None else dts) for time, dts in pairs]).T
            presented, decoded = (without_spikes(part, tick) for part in (stored, decoded))
            moved |= {int(a): int(b) for a, b in zip(stored, presented, strict=True) if a != b}
            if spikes := int((stored != presented).sum()):
                time_remarks.append(f"{spikes} of its frames have wrong times; they are estimated from the others")
        if len(presented) > 2 and np.mean(np.diff(presented) == 0) > _SAME:
            return _without_times(codec, stated[0] if stated else 0.0, len(stamps), tick, kind in _ENDLESS, remarks)
        if kind == "mjpeg":
            time_remarks.append(f"it has no times; {stated[0] if stated else 0:g} frames a second are assumed")
        order, resets = continuous(presented, decoded, tick, kind == "mpegts" and not estimated)
        if getattr(stream.codec_context, "field_order", 0) > 1:
            order = merge_fields(order, tick, stated)
        seconds = (order - order[0]) * tick
        fps = _rate(seconds, stated)
        times = _on_grid(seconds, fps, tick)
        unknown = _states_no_length(kind, container, stream, read.samples, path)
        cut_off = _cut_off(kind, container, stream, read, order, fps, path)
        cut_off = 0 if unknown and kind == "avi" else cut_off
        time_remarks += _time_remarks(times, fps, resets, stated)
        if not cut_off and (read.torn or (kind == "mpegts" and _in_a_packet(path))):
            remarks.append(f"its last packet is cut off; {END_UNKNOWN}")
        if kind == "mpeg" and _ends_with_zeros(path):
            remarks.append(f"its last packet holds zeros, as a failing disk leaves them; {END_UNKNOWN}")
        if unknown:
            remarks.append("its length is not known; whether its end is missing cannot be known")
        unordered = stream.codec_context.has_b_frames and (
            kind == "avi" or (bool((np.diff(presented) > 0).all()) and _times_of_decoding(path))
        )
        identified = not (len(resets) or unordered or estimated) and len(np.unique(order)) == len(order)
        stamped = order if identified else None
        said_of = tuple(remarks), tuple(time_remarks)
        return VideoIndex(codec, fps, times, stamped, kind == "avi", moved, tick, cut_off, kind in _ENDLESS, *said_of)


@dataclass
class _Packets:
    """The packets of a video stream.

    stamps: times of presentation and of decoding of each frame, ticks. moved: as in :class:`VideoIndex`. samples: number of
    packets, with hidden ones. ticks: duration of the last one. torn: whether it is cut off. others_end: when the other
    streams end, seconds.
    """

    stamps: list[tuple[int | None, int | None]]
    moved: dict[int, int]
    samples: int = 0
    ticks: int = 0
    torn: bool = False
    others_end: float = 0.0


def _read_packets(container, stream, kind: str) -> _Packets:
    """Read all packets. In an AVI file, its index tells the place of each frame, also of frames that are not found."""
    places = {entry.pos + 8: entry.timestamp for entry in stream.index_entries if entry.size} if kind == "avi" else {}
    read, found = _Packets([], {}), set()
    for packet in packets(container):
        if packet.stream_index != stream.index:
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                read.others_end = max(read.others_end, end)
            continue
        read.samples += 1
        if packet.size and not packet.is_discard:
            place = places.get(packet.pos)
            if place is not None and packet.dts is not None:
                found.add(place)
                if place != packet.dts:
                    read.moved[packet.dts] = place
            read.stamps.append((packet.pts, packet.dts if place is None else place))
            read.ticks, read.torn = packet.duration or 0, packet.is_corrupt
    if found:
        read.stamps += [(None, place) for place in places.values() if place not in found]
        read.stamps.sort(key=lambda stamp: -1 if stamp[1] is None else stamp[1])
    return read


def _times_of_decoding(path: Path) -> bool:
    """Whether the presentation times are those of decoding, as some programs write them: decoded frames jump back."""
    import av

    shown: list[int] = []
    with opened_video(path) as (container, stream), suppress(av.FFmpegError):
        for frame in islice(container.decode(stream), _PROBED):
            shown += [] if frame.pts is None else [frame.pts]
    return bool((np.diff(shown) < 0).any())


def _without_times(codec: str, fps: float, count: int, tick: float, endless: bool, remarks: list[str]) -> VideoIndex:
    """Return the index of a video without usable times: frame k is at ``k / fps``."""
    said = (f"it has no times; {fps:g} frames a second are assumed",)
    return VideoIndex(
        codec, fps, np.arange(count) / (fps or 1), None, False, {}, tick, 0, endless, tuple(remarks), said
    )


def without_spikes(times: np.ndarray, tick: float) -> np.ndarray:
    """Replace wrong times: up to ``_SPIKE`` in a row that are far from both neighbours, which are close to each other.

    times: timestamps, int ``[T]``, in the order of the file. tick: their unit, seconds. A single time is put into the
    largest gap of those around it, several are spread evenly.
    """
    if len(times) < 4:
        return times
    steps = np.diff(times)
    step = float(np.median(np.abs(steps)))
    far = max(_CLOCK_RESET / tick, 4 * step)
    right, jumps = times.copy(), (np.flatnonzero(np.abs(steps) > far) + 1).tolist()
    for before, first, after, following in zip(
        [-math.inf, *jumps], jumps, jumps[1:], [*jumps[2:], math.inf], strict=False
    ):
        count = after - first
        # Around a pause, frames that are stored in another order than shown jump forth, back and forth again.
        alone = first - before > _APART and following - after > _APART
        if not alone or count > _SPIKE or abs(times[after] - times[first - 1]) > far / 2 + (count + 1) * step:
            continue
        if count == 1:
            near = np.sort(np.delete(right[max(0, first - _SPAN) : first + _SPAN + 1], min(first, _SPAN)))
            gap = int(np.argmax(np.diff(near)))
            right[first] = (near[gap] + near[gap + 1]) // 2
        else:
            right[first:after] = np.linspace(times[first - 1], times[after], count + 2)[1:-1].round()
    return right


def _deep_grey(stream) -> list[str]:
    """Return a sentence about grey pixels of more than 8 bits, or nothing."""
    form = stream.codec_context.format
    bits = max((component.bits for component in form.components), default=0) if form else 0
    if bits <= 8 or len(form.components) > 1:
        return []
    return [
        f"{bits}-bit grey ({form.name}): 0 to {2**bits - 1} become 0 to 255, so values in a small part of this range "
        "(thermal cameras) lose their contrast; save its frames as 16-bit pictures and set dataset.*.format: frames "
        "and pixel_range"
    ]


def _states_no_length(kind, container, stream, samples: int, path: Path) -> bool:
    """Whether a container that usually states its length or its end does not, as after a live or interrupted recording."""
    if kind in ("asf", "matroska", "flv"):
        return not _stated_seconds(kind, container, path)
    size = path.stat().st_size
    if kind == "avi":
        return not 0 < stream.frames < size // 8  # recorders write a huge number until they know it
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16)))
        tail = file.read()
    if kind == "mov" and stream.frames < samples:  # in fragments; an index of them may be the last box
        return tail[-12:-8] != b"mfro"
    if kind == "ogg":
        page = tail.rfind(b"OggS")
        header = tail[page : page + 27]
        if page < 0 or len(header) < 27:
            return page >= 0
        parts = tail[page + 27 : page + 27 + header[26]]
        whole = len(parts) == header[26] and len(tail) >= page + 27 + len(parts) + sum(parts)
        return not (whole and header[5] & 4)  # 4: end of stream
    return False


def _ends_with_zeros(path: Path) -> bool:
    """Whether the last video packet of a program stream holds zeros that MPEG video cannot hold."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        _, *packets_of_video = re.split(rb"\0\0\x01[\xe0-\xef]", file.read())
    if not packets_of_video:
        return False
    video = re.split(rb"\0\0\x01[\xb9-\xdf]", packets_of_video[-1])[0]  # up to the sound
    return re.search(rb"(?<!\0)\0{24,}[^\0\x01]", video) is not None  # zeros before 1 are padding


def _stated_seconds(kind: str, container, path: Path) -> float:
    """Return the duration in the header, seconds, or 0. FFmpeg ignores that of an ASF file which is cut off."""
    if container.duration or kind != "asf":
        return (container.duration or 0) / 1e6
    with path.open("rb") as file:
        _, found, properties = file.read(1 << 16).partition(_ASF_PROPERTIES)
    if not found or len(properties) < 76:
        return 0.0
    duration, preroll, flags = struct.unpack_from("<Q8xQI", properties, 48)  # 100 ns, ms
    return 0.0 if flags & 1 else max(0.0, duration / 1e7 - preroll / 1e3)  # 1: broadcast


def _in_a_packet(path: Path) -> bool:
    """Whether a transport stream ends within a packet of 188 bytes (192 with a time before each, 204 with a checksum)."""
    with path.open("rb") as file:
        head = file.read(5 * 204)
    for size, first in product((188, 192, 204), range(204)):
        if head[first : first + 4 * size + 1 : size] == b"GGGGG":  # 0x47 begins each packet
            return (path.stat().st_size - first + (4 if size == 192 else 0)) % size != 0
    return False


def continuous(
    shown: np.ndarray, decoded: np.ndarray, tick: float, stored: bool = False
) -> tuple[np.ndarray, list[float]]:
    """Sort timestamps; where the clock goes back, shift the rest to follow without a gap.

    shown: presentation times, int ``[T]``, in the order of the file. decoded: decoding times. tick: their unit, seconds.
    stored: whether the decoding times are those of the file, so that any step back is a reset.

    Returns the sorted timestamps and the seconds (from the first frame) at which the clock goes back.
    """
    reset = _CLOCK_RESET / tick
    if stored and len(decoded) > 1:
        reset = min(reset, float(np.median(np.abs(np.diff(decoded)))) / 2)
    back = np.maximum.accumulate(decoded) - decoded > reset
    starts = np.flatnonzero(back[1:] & ~back[:-1]) + 1
    parts = [np.sort(part) for part in np.split(shown, starts)]
    step = int(np.median(np.diff(parts[0]))) if len(parts[0]) > 1 else 1
    for number in range(1, len(parts)):
        parts[number] = parts[number] - parts[number][0] + parts[number - 1][-1] + step
    return np.concatenate(parts), [float((part[0] - parts[0][0]) * tick) for part in parts[1:]]


def _filled(times: list[int | None], timed: list[int]) -> np.ndarray:
    """Return times in ticks, int64 ``[T]``, with those that are None interpolated. timed: the indices of the others."""
    known = np.array([times[number] for number in timed])
    step = (known[-1] - known[0]) / max(1, timed[-1] - timed[0])
    every = np.arange(len(times))
    beyond = np.minimum(0, every - timed[0]) + np.maximum(0, every - timed[-1])
    return np.rint(np.interp(every, timed, known) + step * beyond).astype(np.int64)


def merge_fields(order: np.ndarray, tick: float, stated: list[float]) -> np.ndarray:
    """Remove every second timestamp if the packets are single fields, so half a frame apart. See :func:`continuous`."""
    if len(order) > 2 and stated and np.median(np.diff(order)) * tick * stated[0] < 0.6:
        return order[::2]
    return order


def _rate(seconds: np.ndarray, stated: list[float]) -> float:
    """Return the first stated rate that the times agree with, or else the rate of the times.

    Where frames come in bursts, a stated rate counts that agrees with the time over ``_SPAN`` frames.
    """
    step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    span = min(_SPAN, len(seconds) - 1)
    over = float(np.median(seconds[span:] - seconds[:-span])) / span if span > 0 else 0.0
    for each in (step, over):
        for rate in stated if each > 0 else ():
            if abs(each * rate - 1) <= SAME_RATE or abs(each - 1 / rate) <= _CLOCK_ERROR:
                return rate
    if step <= 0:
        return stated[0] if stated else 0.0
    rate = 1 / step
    return float(round(rate)) if abs(step - 1 / max(1, round(rate))) <= _CLOCK_ERROR else rate


def _on_grid(seconds: np.ndarray, fps: float, tick: float) -> np.ndarray:
    """Round times to multiples of ``1 / fps`` where they differ by no more than the resolution of the clock."""
    if not fps:
        return seconds
    number = np.rint(seconds * fps)
    close = np.abs(seconds - number / fps) <= min(max(tick, _CLOCK_ERROR) * 1.01, 0.25 / fps)
    return np.where(close, number / fps, seconds)


def _cut_off(kind, container, stream, read: _Packets, order, fps, path) -> int:
    """Return the number of frames missing at the end, for the containers that state their length."""
    if kind == "mov":
        return max(0, len(stream.index_entries) - read.samples)
    tick = float(stream.time_base)
    if kind == "avi":
        return max(0, int(stream.frames) - round((order[-1] + 1 - min(order[0], 0)) * tick * fps)) if fps else 0
    if kind not in ("matroska", "flv", "asf", "mxf") or not fps:
        return 0
    end = (order[-1] + (read.ticks or 1 / fps / tick)) * tick
    missing = _stated_seconds(kind, container, path) - max(end, read.others_end)
    if kind == "asf":
        missing -= order[0] * tick  # FFmpeg writes a duration that is too long by the time of the first frame
    if (read.others_end > end and missing < _SOUND_ERROR) or (kind == "flv" and missing < _FLV_ERROR):
        return 0
    return max(0, int(missing * fps + 0.5))


def _time_remarks(times: np.ndarray, fps: float, resets: list[float], stated: list[float]) -> list[str]:
    remarks = [f"its clock goes back at {second:.2f} s; what follows is joined on there" for second in resets[:3]]
    steps = np.diff(times)
    if not len(steps) or not fps:
        return remarks
    pauses = np.flatnonzero(steps >= max(PAUSE, 3 / fps))
    slow = np.flatnonzero((steps > 1.5 / fps) & (steps < max(PAUSE, 3 / fps)))
    if len(pauses):
        longest = pauses[np.argmax(steps[pauses])]
        remarks.append(
            f"no frames for {steps[pauses].sum():.1f} s in all; pauses: {len(pauses)}, the longest from "
            f"{times[longest]:.2f} to {times[longest + 1]:.2f} s"
        )
    if len(slow):
        longest = slow[np.argmax(steps[slow])]
        remarks.append(
            f"its frame rate varies, from {1 / steps[slow].max():.3g} to {fps:.3g} frames a second; the times in the file "
            f"are used; gaps: {len(slow)}, the longest from {times[longest]:.2f} to {times[longest + 1]:.2f} s"
        )
    if stated and abs(stated[0] / fps - 1) > SAME_RATE and not len(slow) and not len(pauses):
        remarks.append(f"its header says {stated[0]:g} frames a second, its times {fps:g}; the times are used")
    return remarks


@contextmanager
def opened_video(path: Path):
    """Open a video: yields (container, stream)."""
    import av

    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        said = _messages(path)
        why = "its index is missing: it was cut off" if "moov atom not found" in said else error.strerror
        raise VadError(f"{path}: not a readable video ({why}); copy it again or replace it") from error
    with container:
        kind = container.format.name.split(",")[0]
        if kind in _PICTURES or kind.endswith("_pipe"):
            raise VadError(f"{path}: a picture ({kind}), not a video; remove it or give it its right ending")
        if kind in _LISTS:
            raise VadError(f"{path}: a list of files ({kind}), not a video; bring the videos themselves")
        videos: list[Any] = shown_streams(container)
        if not videos:
            raise VadError(f"{path}: holds no video stream ({kind}); remove it")
        best = container.streams.best("video")  # as FFmpeg chooses: the default one, the largest picture, ...
        video: Any = best if best in videos else videos[0]
        if video.codec_context is None:  # its codec is unknown to FFmpeg
            name = _UNKNOWN_CODEC.search(_messages(path))
            raise VadError(
                f"{path}: its codec {name[1] + ' ' if name else ''}is unknown here; convert it with the recorder's own "
                f"software, or where FFmpeg knows it: ffmpeg -i {quoted(path)} -c:v libx264 NEW.mp4"
            )
        yield container, video


def shown_streams(container) -> list[Any]:
    """Return the video streams of a container, without attached pictures (covers)."""
    import av

    return [one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic]


def quoted(path: Path) -> str:
    """Return the name of a file as an argument of FFmpeg in a shell."""
    return shlex.quote(f"file:{path.name}" if ":" in path.name or path.name.startswith("-") else path.name)


def _messages(path: Path) -> str:
    """Return what FFmpeg logs when it opens a file."""
    import av

    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture(local=False) as messages, suppress(av.FFmpegError):
            av.open(f"file:{path}", metadata_errors="replace").close()
    finally:
        av.logging.set_level(level)
    return "".join(text for _, _, text in messages)


def packets(container, *streams) -> Iterator[av.Packet]:
    """Yield the packets, without the empty ones that PyAV adds at the end. Damaged places are passed over."""
    import av

    errors, demuxed = 0, container.demux(*streams)
    while errors < MOST_ERRORS:
        try:
            packet = next(demuxed)
        except StopIteration:
            return
        except (av.FFmpegError, IndexError, ValueError):  # IndexError: PyAV, of a stream that a damaged table adds
            errors += 1
            demuxed = container.demux(*streams)
            continue
        errors = 0
        if packet.size or packet.dts is not None:
            yield packet
