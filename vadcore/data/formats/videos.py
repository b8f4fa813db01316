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
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from pydantic import PositiveFloat

from vadcore.data.delivery import Layout, check_delivered, deliver, left_out_said
from vadcore.data.formats.base import Clip, StoredConfig, register_format
from vadcore.data.formats.clip_files import clip_name, footage_clip, natural_key, videos_in
from vadcore.data.video import VIDEO_ENDINGS, VideoReader
from vadcore.utils.errors import VadError
from vadcore.utils.files import decode_text
from vadcore.utils.times import PAUSE


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
        return path.suffix.lower() in VIDEO_ENDINGS and any(part.lower() in TRAIN + TEST for part in path.parts[:-1])

    def depth(path: PurePosixPath) -> int:
        return next((n for n, part in enumerate(path.parts) if part.lower() in TRAIN + TEST), 0)

    return Layout(belongs, _EXPECTED, endings=VIDEO_ENDINGS, depth=depth)


def prepare(config: VideosConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Copy or unpack the videos of ``train/`` and ``test/`` and the labels into ``raw``."""
    deliver(config, raw, _layout(config), say)
    if config.labels:
        root = _root(raw)
        test = _split_folder(raw, root, TEST)
        marked = _by_clip(root / config.labels, test, _named(test))
        say(f"{root / config.labels}: {sum(map(len, marked.values()))} intervals in {len(marked)} clips")
        for line in _overlaps(marked, root / config.labels):
            say(line)
    else:
        say(f"{raw}: dataset.*.labels names no CSV, the test clips are unlabelled: they are scored, but not evaluated")


def clips(config: VideosConfig, raw: Path) -> list[Clip]:
    """List the clips. Names are the paths below ``train/`` and ``test/`` without extension, with ``-`` for ``/``.

    Raises :class:`VadError` if a folder is missing, the labels name an unknown clip or the labels cannot be read.
    """
    check_delivered(raw)
    root = _root(raw)
    train, test = _split_folder(raw, root, TRAIN), _split_folder(raw, root, TEST)
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
    :class:`VadError` if an interval exceeds the clip otherwise, or lies in a pause of the recording.

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
            inside = (ends > start + slack) & (starts < end - slack)
            if not inside.any():
                raise VadError(
                    f"{table}, line {line}: {start:g} to {end:g} s has no frame, clip {name} pauses there; remove the line"
                )
            labels[inside] = 1
        else:
            labels[int(start) : int(end) + 1] = 1
    return labels


def read_intervals(table: Path) -> list[tuple[str, Interval]]:
    """Read the CSV lines as (clip as written, interval). Raises :class:`VadError` with the number of a bad line.

    Tables as spreadsheets and pandas write them are read: with semicolons or tabs, decimal commas between them, an index
    column, whole numbers such as ``31.0``, UTF-16 or cp1252.
    """
    try:
        text = decode_text(table.read_bytes())
    except FileNotFoundError:
        raise VadError(f"{table}: missing; correct dataset.*.labels or put the file there") from None
    except IsADirectoryError:
        raise VadError(f"{table}: a folder; name a CSV file in dataset.*.labels") from None
    if "\0" in text:
        raise VadError(f"{table}: not a CSV file; save it as one")
    lines = text.splitlines()
    skipped = 1 if lines and lines[0].strip().lower().startswith("sep=") else 0  # Excel names the separator so
    lines = lines[skipped:]
    separator = max(";\t,", key=lines[0].count) if lines else ","
    try:
        rows = list(csv.reader(lines, delimiter=separator))
    except csv.Error as error:
        raise VadError(f"{table}: not a CSV file ({error}); save it as one") from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    index = header and not header[0] and set(header[1:]) >= {"clip"}  # pandas writes its index as a column without name
    names = [name for name in header[1 if index else 0 :] if name]
    columns = next((kind for kind in (TIMES, FRAMES) if sorted(names) == sorted(kind)), None)
    if columns is None:
        raise VadError(
            f"{table}, line {1 + skipped}: columns {','.join(names) or 'none'}; expected {','.join(TIMES)} or "
            f"{','.join(FRAMES)}"
        )
    found = []
    for number, cells in enumerate(rows[1:], 2 + skipped):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header) and any(cell.strip() for cell in cells[len(header) :]):
            raise VadError(f"{table}, line {number}: {len(cells)} values; expected {separator.join(columns)}")
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        if not all(row.get(name) for name in columns):
            raise VadError(f"{table}, line {number}: a value is missing; expected {separator.join(columns)}")
        clip, start, end = (row[name] for name in columns)
        if separator != ",":
            start, end = start.replace(",", "."), end.replace(",", ".")
        read = _seconds if columns == TIMES else _frame
        interval = Interval(number, read(start, table, number), read(end, table, number), columns == TIMES)
        if interval.end < interval.start or (interval.in_seconds and interval.end == interval.start):
            raise VadError(f"{table}, line {number}: {start} to {end} is no interval; the end comes after the start")
        found.append((clip, interval))
    return found


def _seconds(text: str, table: Path, line: int) -> float:
    match = _CLOCK.match(text)
    if not match:
        raise VadError(f"{table}, line {line}: {text!r} is no time; write seconds (12.5) or hh:mm:ss (00:00:12.5)")
    hours, minutes, seconds = match.groups()
    if (minutes and float(seconds) >= 60) or (hours and int(minutes) >= 60):
        raise VadError(f"{table}, line {line}: {text!r} is no time; minutes and seconds in hh:mm:ss are below 60")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


def _frame(text: str, table: Path, line: int) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.0{0,2})?", text):  # 31.0 as pandas writes it; 1.000 could mean one thousand
        raise VadError(f"{table}, line {line}: {text!r} is no frame number; frames count from 0")
    return int(text.partition(".")[0])


def _by_clip(table: Path, test: Path, tested: list[tuple[Path, str]]) -> dict[str, list[Interval]]:
    """Group the intervals by clip name. The CSV may give the clip name, or the path with or without extension.

    If no clip has exactly that name, one whose name differs only in case, leading zeros or the form of accents is taken.
    Raises :class:`VadError` if a name fits no clip or several.
    """
    spelled: list[dict[str, set[str]]] = [{}, {}, {}]  # exactly, in NFC, without regard to case and zeros
    shown = {name: video.relative_to(test).as_posix() for video, name in tested}
    for video, name in tested:
        relative = video.relative_to(test)
        for spelling in {relative.as_posix(), relative.with_suffix("").as_posix(), name}:
            for level, key in enumerate(_spellings(spelling)):
                spelled[level].setdefault(key, set()).add(name)
    marked: dict[str, list[Interval]] = {}
    for clip, interval in read_intervals(table):
        written = re.sub(r"^(\./)?((?:test|testing)/)?", "", clip.replace("\\", "/"), flags=re.IGNORECASE)
        fitting = next(
            (known[key] for text in (clip, written) for known, key in zip(spelled, _spellings(text), strict=True)
             if key in known), set()
        )  # fmt: skip
        if len(fitting) != 1:
            there = ", ".join(list(shown.values())[:5]) + (", ..." if len(tested) > 5 else "")
            why = (
                f"{clip!r} is one of several: {', '.join(sorted(shown[name] for name in fitting))}"
                if fitting
                else f"no test clip {clip!r}; there are: {there}"
            )
            raise VadError(f"{table}, line {interval.line}: {' '.join(why.splitlines())}")
        marked.setdefault(next(iter(fitting)), []).append(interval)
    return marked


def _spellings(text: str) -> tuple[str, ...]:
    return text, unicodedata.normalize("NFC", text), repr(natural_key(text)[0])


def _overlaps(marked: dict[str, list[Interval]], table: Path) -> Iterator[str]:
    """Yield a line for every two intervals of a clip that overlap."""
    for name, intervals in marked.items():
        ordered = sorted(intervals, key=lambda interval: (interval.start, interval.end))
        for before, after in pairwise(ordered):
            if after.start < before.end or (not after.in_seconds and after.start == before.end):
                yield f"{table}: lines {before.line} and {after.line} overlap in clip {name}; both are used"


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
        found = [path for path in sorted(candidates) if path.is_dir() and (_has(path, TRAIN) or _has(path, TEST))]
        if len(found) == 1:
            return found[0]
    raise VadError(f"{raw}: no folders train and test; expected {_EXPECTED}{left_out_said(raw)}")


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return bool(_folders(folder, names))


def _folders(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in names)


def _split_folder(raw: Path, root: Path, names: tuple[str, ...]) -> Path:
    found = _folders(root, names)
    if not found:
        raise VadError(
            f"{raw}: no videos in {names[0]} (or {names[1]}) that can be read; expected {_EXPECTED}{left_out_said(raw)}"
        )
    if len(found) > 1:
        raise VadError(f"{root}: two folders {found[0].name} and {found[1].name}; put their videos into one of them")
    return found[0]
