"""Folders of videos: ``train/`` with normal footage and ``test/`` with the test clips.

The folder names ``training`` and ``testing`` also work. Labels are optional: a CSV file with the abnormal intervals of
the test clips, in one of two forms::

    clip,start,end                  clip,first_frame,last_frame
    gate-07,12.5,19                 gate-07,312,475
    gate-07,00:01:40,00:02:10.5     gate-08.mp4,0,99

Times are relative to the start of the clip, in seconds or ``hh:mm:ss``. Frames count from 0 and the last frame is
included. The first column is the clip name or the path below ``test/``. Test clips that are not listed are normal.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from pydantic import PositiveFloat

from vadcore.data.delivery import Layout, check_delivered, deliver
from vadcore.data.formats.base import Clip, StoredConfig, register_format
from vadcore.data.formats.clip_files import clip_name, footage_clip, videos_in
from vadcore.data.video import PAUSE, VIDEO_ENDINGS, VideoReader
from vadcore.utils.errors import VadError


@register_format
class VideosConfig(StoredConfig):
    """A folder of videos: ``train/`` (only normal footage) and ``test/``; labels are optional."""

    format: Literal["videos"]
    # CSV file next to train/ and test/: clip,start,end (seconds or hh:mm:ss) or clip,first_frame,last_frame (from 0,
    # inclusive)
    labels: str | None = None
    frames_per_second: PositiveFloat | None = None  # frame rate; null: the rate in each video's header

    @property
    def truth(self) -> str:
        return "intervals (CSV)"


TRAIN, TEST = ("train", "training"), ("test", "testing")
TIMES, FRAMES = ["clip", "start", "end"], ["clip", "first_frame", "last_frame"]
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)$")
_EXPECTED = "train/ (normal footage only) and test/ with video files in them"


class Interval(NamedTuple):
    """An abnormal interval from a line of the CSV: in seconds, or in frames counted from 0 (last frame included)."""

    line: int
    start: float
    end: float
    in_seconds: bool


def _layout(config: VideosConfig) -> Layout:
    def belongs(path: PurePosixPath) -> bool:
        if config.labels and path == PurePosixPath(config.labels):
            return True
        return path.suffix.lower() in VIDEO_ENDINGS and any(part in TRAIN + TEST for part in path.parts[:-1])

    return Layout(belongs, _EXPECTED)


def prepare(config: VideosConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Copy or unpack the videos of ``train/`` and ``test/`` and the labels into ``raw``."""
    deliver(config, raw, _layout(config), say)
    if not config.labels:
        say(f"{raw}: dataset.*.labels names no CSV, the test clips are unlabelled: they are scored, but not evaluated")


def clips(config: VideosConfig, raw: Path) -> list[Clip]:
    """List the clips. Names are the paths below ``train/`` and ``test/`` without extension, with ``-`` for ``/``.

    Raises :class:`VadError` if a folder is missing, the labels name an unknown clip or the labels cannot be read.
    """
    check_delivered(raw)
    root = _root(raw)
    train, test = _split_folder(root, TRAIN), _split_folder(root, TEST)
    rate = config.frames_per_second
    found = [footage_clip("train", video, name, fps=rate) for video, name in _named(train)]
    tested = _named(test)
    table = root / config.labels if config.labels else None
    marked = _by_clip(table, test, tested) if table else {}
    for video, name in tested:
        labels = partial(read_labels, table, tuple(marked.get(name, ())), video, name, rate) if table else None
        found.append(footage_clip("test", video, name, labels, fps=rate))
    return found


def read_labels(
    table: Path, intervals: tuple[Interval, ...], video: Path, name: str, fps: float | None = None
) -> np.ndarray:
    """Convert the intervals of one clip to frame labels, uint8 ``[T]``, 1 = abnormal.

    A frame covers the time until the next one, but at most ``PAUSE`` seconds. A frame that overlaps an interval is abnormal.
    An interval in seconds may end up to one second after the clip, because times are often written in whole seconds. Raises
    :class:`VadError` if an interval exceeds the clip otherwise.

    fps: frame rate, if the times in the video are wrong.
    """
    reader = VideoReader(video, fps)
    starts, length = reader.times, reader.length
    ends = np.minimum(np.append(starts[1:], starts[-1] + 1 / reader.fps), starts + max(PAUSE, 1 / reader.fps))
    slack = 1e-6 / reader.fps  # of rounding: a time written as frame / fps is the edge of that frame
    labels = np.zeros(length, np.uint8)
    for line, start, end, in_seconds in intervals:
        beyond = start >= ends[-1] - slack or end > ends[-1] + 1 if in_seconds else end >= length
        if beyond:
            unit = f"{end:g} s" if in_seconds else f"frame {end:g}"
            raise VadError(
                f"{table}, line {line}: ends at {unit} but clip {name} has {length} frames "
                f"({ends[-1]:.2f} s); correct the line"
            )
        if in_seconds:
            labels[(ends > start + slack) & (starts < end - slack)] = 1
        else:
            labels[int(start) : int(end) + 1] = 1
    return labels


def read_intervals(table: Path) -> list[tuple[str, Interval]]:
    """Read the CSV lines as (clip as written, interval). Raises :class:`VadError` with the number of a bad line."""
    try:
        lines = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    except FileNotFoundError:
        raise VadError(f"{table}: missing; correct dataset.*.labels or put the file there") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise VadError(f"{table}: not a CSV file in UTF-8 ({error}); save it as one") from None
    header = [cell.strip() for cell in lines[0]] if lines else []
    if header not in (TIMES, FRAMES):
        raise VadError(
            f"{table}, line 1: columns {','.join(header) or 'none'}; expected {','.join(TIMES)} or {','.join(FRAMES)}"
        )
    found = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != 3:
            raise VadError(f"{table}, line {number}: {len(cells)} values; expected {','.join(header)}")
        clip, start, end = (cell.strip() for cell in cells)
        read = _seconds if header == TIMES else _frame
        interval = Interval(number, read(start, table, number), read(end, table, number), header == TIMES)
        if interval.end < interval.start or (interval.in_seconds and interval.end == interval.start):
            raise VadError(f"{table}, line {number}: {start} to {end} is no interval; the end comes after the start")
        found.append((clip, interval))
    return found


def _seconds(text: str, table: Path, line: int) -> float:
    match = _CLOCK.match(text)
    if not match:
        raise VadError(f"{table}, line {line}: {text!r} is no time; write seconds (12.5) or hh:mm:ss (00:00:12.5)")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


def _frame(text: str, table: Path, line: int) -> float:
    if not text.isdecimal():
        raise VadError(f"{table}, line {line}: {text!r} is no frame number; frames count from 0")
    return int(text)


def _by_clip(table: Path, test: Path, tested: list[tuple[Path, str]]) -> dict[str, list[Interval]]:
    """Group the intervals by clip name. The CSV may give the clip name, or the path with or without extension."""
    spelled: dict[str, str] = {}
    for video, name in tested:
        relative = video.relative_to(test)
        for spelling in (relative.as_posix(), relative.with_suffix("").as_posix(), name):
            spelled[spelling] = name
    marked: dict[str, list[Interval]] = {}
    for clip, interval in read_intervals(table):
        if clip not in spelled:
            there = ", ".join(name for _, name in tested[:5]) + (", ..." if len(tested) > 5 else "")
            raise VadError(f"{table}, line {interval.line}: no test clip {clip!r}; there are: {there}")
        marked.setdefault(spelled[clip], []).append(interval)
    return marked


def _named(folder: Path) -> list[tuple[Path, str]]:
    """List the videos below ``folder`` with their clip names. Equal names get a digest of the path appended."""
    found = [(video, video.relative_to(folder)) for video in videos_in(folder)]
    plain = [clip_name("-".join(relative.with_suffix("").parts)) for _, relative in found]
    often = Counter(plain)
    return [
        (video, name if often[name] == 1 else f"{name}-{hashlib.sha256(relative.as_posix().encode()).hexdigest()[:8]}")
        for (video, relative), name in zip(found, plain, strict=True)
    ]


def _root(raw: Path) -> Path:
    """Return the folder with ``train`` and ``test``: ``raw`` or a subfolder up to two levels below."""
    for candidates in ([raw], raw.glob("*"), raw.glob("*/*")):
        found = [path for path in sorted(candidates) if _has(path, TRAIN) or _has(path, TEST)]
        if len(found) == 1:
            return found[0]
    raise VadError(f"{raw}: no folders train and test; expected {_EXPECTED}")


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_dir() for name in names)


def _split_folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise VadError(f"{root}: no folder {names[0]} (or {names[1]}); expected {_EXPECTED}")
