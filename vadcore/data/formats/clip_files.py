"""Helpers shared by several formats: clips of image files and video files, and their labels."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vadcore.data.formats.base import Clip, Split
from vadcore.data.image_files import numbered, read_numbered
from vadcore.data.video import VIDEO_ENDINGS, VideoReader
from vadcore.utils.errors import VadError

Intervals = tuple[tuple[int, int], ...]  # (first, last) abnormal frame, counted from 1, both included

_STATEMENT = re.compile(r"\{\s*(end\s*\+\s*1|\d+)\s*\}\s*\.\s*gt_frame\s*=\s*\[([^\]]*)\]")
_RANGE = re.compile(r"(\d+)(?::(\d+))?$")


def labels_of(intervals: Sequence[tuple[int, int]], length: int, source: Path, clip: str) -> np.ndarray:
    """Convert intervals (counted from 1, both ends included) to labels uint8 ``[length]``, 1 inside the intervals.

    Raises :class:`VadError` if an interval ends after the clip. ``source``: label file for the error message.
    """
    labels = np.zeros(length, np.uint8)
    for first, last in intervals:
        if last > length:
            raise VadError(
                f"{source}: clip {clip} is labelled up to frame {last} but has {length} frames; "
                "labels and footage must be of the same recording: correct one of them"
            )
        labels[first - 1 : last] = 1
    return labels


def load_mat(path: Path) -> dict[str, np.ndarray]:
    """Load the variables of a ``.mat`` file. Raises :class:`VadError` if it is missing or unreadable."""
    if not path.is_file():
        raise VadError(f"{path}: missing; correct dataset.*.labels or bring the file")
    import scipy.io  # local: the import takes a third of a second, in every stage of every data set

    try:
        return {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    except NotImplementedError:
        raise VadError(f"{path}: MATLAB 7.3 format; save it again with -v7") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes can raise any exception in SciPy
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise VadError(f"{path}: not a readable .mat file ({why}); replace it") from error


def read_mat(path: Path) -> list[Intervals]:
    """Read the intervals of each test clip from a ``.mat`` file: the cell array ``gt``, one entry per clip.

    An entry is an array ``[2, N]`` (starts in the first row, ends in the second), an array ``[N, 2]`` (one row per
    interval), or a cell array of such arrays. An empty entry means that the whole clip is normal. The shape ``[2, 2]``
    is ambiguous: it is read as starts and ends if this gives sorted intervals that do not touch, else row by row.
    """
    variables = load_mat(path)
    if "gt" not in variables and len(variables) != 1:
        raise VadError(f"{path}: no variable gt among {', '.join(sorted(variables)) or 'none'}; name the cell array gt")
    cells = variables.get("gt", next(iter(variables.values())))
    if cells.dtype != object:
        raise VadError(f"{path}: gt is not a cell array with an entry a test clip; save it as one")
    return [_entry(entry, f"{path}: entry {number}") for number, entry in enumerate(cells.ravel(), 1)]


def _entry(entry: np.ndarray, where: str) -> Intervals:
    entry = np.asarray(entry)
    if entry.dtype == object:
        return _checked(sorted(pair for part in entry.ravel() for pair in _entry(part, where)), where)
    if not entry.size:
        return ()
    if entry.ndim == 1 and entry.size == 2:
        entry = entry[:, None]
    if entry.ndim != 2 or 2 not in entry.shape or (entry != np.rint(entry)).any():
        raise VadError(f"{where}: shape {entry.shape} is not a list of [first, last] frames; correct it")
    entry = entry.astype(int)
    as_rows = entry.T if entry.shape[0] == 2 else entry  # [N, 2]
    if entry.shape == (2, 2) and not _in_order(as_rows):
        as_rows = entry
    return _checked([(int(first), int(last)) for first, last in as_rows], where)


def _in_order(rows: np.ndarray) -> bool:
    """Whether the intervals ``[N, 2]`` are sorted and do not touch."""
    return bool((rows[:, 0] <= rows[:, 1]).all() and (rows[1:, 0] > rows[:-1, 1]).all())


def _checked(pairs: Sequence[tuple[int, int]], where: str) -> Intervals:
    for first, last in pairs:
        if first < 1 or last < first:
            raise VadError(f"{where}: interval {first} to {last}; frames count from 1 and first <= last: correct it")
    return tuple(pairs)


def read_m_list(path: Path) -> list[Intervals]:
    """Read the intervals of each test clip from UCSD's ``.m`` list.

    A line of the list: ``TestVideoFile{end+1}.gt_frame = [5:90, 140:200];``.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise VadError(f"{path}: missing; it holds the labels: bring it from the official archive") from None
    text = re.sub(r"%.*", "", text)  # MATLAB comments
    found: list[Intervals] = []
    for index, ranges in _STATEMENT.findall(text):
        where = f"{path}: entry {len(found) + 1}"
        if index.isdigit() and int(index) != len(found) + 1:
            raise VadError(f"{where}: is written for clip {index}; list the clips in order")
        found.append(_checked([_range(part, where) for part in re.split(r"[,;\s]+", ranges.strip()) if part], where))
    if not found:
        raise VadError(f"{path}: no entry like TestVideoFile{{end+1}}.gt_frame = [61:180]; replace it")
    return found


def _range(text: str, where: str) -> tuple[int, int]:
    match = _RANGE.match(text)
    if not match:
        raise VadError(f"{where}: cannot read {text!r}; write frames as 61:180")
    return int(match[1]), int(match[2] or match[1])


def one_a_clip(entries: Sequence[Intervals], clips: Sequence[str], source: Path) -> list[Intervals]:
    """Return the entries of a list without names as a list: entry k belongs to clip k in natural order.

    Raises :class:`VadError` unless there is one entry per test clip and the order of the clips is beyond doubt: their names
    differ in one number only (``Test1``, ``Test2``, ``Test10``), or they have the same order as text and in natural order,
    and do not differ in the name of a month or in a date that does not begin with the year.

    clips: names of the test clips in natural order.
    """
    if len(entries) != len(clips):
        lacking = f" (no labels for {', '.join(clips[len(entries) :])})" if len(entries) < len(clips) else ""
        raise VadError(
            f"{source}: labels for {len(entries)} clips, but there are {len(clips)} test clips{lacking}; "
            "labels and footage must be of the same data set: correct one of them"
        )
    frames = {_DIGITS.sub("#", clip) for clip in clips}
    numbers = [tuple(map(int, _DIGITS.findall(clip))) for clip in clips]
    varying = [len(set(column)) > 1 for column in zip(*numbers, strict=False)]
    numbered_only = len(frames) == 1 and sum(varying) <= 1 and len(set(numbers)) == len(numbers)
    dated = len({tuple(_DATE.findall(clip.lower())) for clip in clips}) > 1
    if not numbered_only and (dated or list(clips) != sorted(clips)):
        raise VadError(
            f"{source}: its entries have no names, and the order of the test clips is in doubt "
            f"({', '.join(clips[:4])}, ...); name the clips 01, 02, ... in the order of the entries"
        )
    return list(entries)


def pairing(entries: Sequence[Intervals], clips: Sequence[str], source: Path) -> str:
    """Return a line that tells which entry of ``source`` belongs to which clip. See :func:`one_a_clip`."""
    pairs = [
        f"{clip}: {', '.join(f'{first}-{last}' for first, last in entry) or 'normal'}"
        for entry, clip in zip(one_a_clip(entries, clips, source), clips, strict=True)
    ]
    return f"{source}: entries in order of the clips, in frames from 1: {'; '.join(pairs)}"


_DIGITS = re.compile(r"\d+")
_MONTHS = "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
_DATE = re.compile(  # whose order is another one than that of its letters: 31-01-2024, 1_31_2024, Jan
    rf"(?<!\d)\d{{1,2}}[-_.]\d{{1,2}}[-_.](?:19|20)\d\d(?!\d)|(?<![a-z])(?:{_MONTHS}|nov(?:ember)?|dec(?:ember)?)(?![a-z])"
)
LONGEST = 180  # characters of a clip name
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def clip_name(text: str) -> str:
    """Convert ``text`` to a clip name: replace all but letters, digits and ``-_.`` by ``_``, remove leading dots.

    Accents and compatibility forms are composed first, so that names from macOS and other systems are equal. A long name is
    cut, and ends with a digest of the whole text.
    """
    text = unicodedata.normalize("NFC", text)
    name = _NOT_IN_NAMES.sub("_", text).lstrip(".") or "_"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]}"


def natural_key(text: str) -> tuple:
    """Sort key for natural order: ``clip2`` before ``clip10``, without regard to case."""
    parts = re.split(r"(\d+)", unicodedata.normalize("NFC", text).casefold())
    return tuple((part, 0) if index % 2 == 0 else ("", int(part)) for index, part in enumerate(parts)), text


def clip_folders(parent: Path, pattern: str = "*") -> list[Path]:
    """List the clip folders in ``parent``, in natural order. Raises :class:`VadError` if there are none."""
    found = [path for path in parent.glob(pattern) if path.is_dir() and not path.name.startswith(".")]
    found.sort(key=lambda path: natural_key(path.name))
    if not found:
        raise VadError(f"{parent}: holds no clip folders ({pattern}); bring the frames or correct dataset.*.source")
    return found


def framed_clip(
    split: Split,
    folder: Path,
    fps: float,
    labels: Callable[[int], np.ndarray] | None = None,
    masks: Callable[[int], np.ndarray] | None = None,
    pixel_range: tuple[float, float] | None = None,
) -> Clip:
    """Create the clip of the image files in ``folder``. ``labels`` and ``masks`` receive the number of frames."""
    files = numbered(folder)
    return Clip(
        split=split,
        name=clip_name(folder.name),
        source=folder,
        fps=fps,
        frames=partial(read_numbered, files, pixel_range),
        labels=labels and partial(labels, len(files)),
        masks=masks and partial(masks, len(files)),
        files=files,
    )


def interval_labels(intervals: Intervals, source: Path, clip: str, length: int) -> np.ndarray:
    """:func:`labels_of` with the length as the last argument, for :func:`framed_clip`."""
    return labels_of(intervals, length, source, clip)


def checked_masks(masks: np.ndarray, length: int, source: Path) -> np.ndarray:
    """Convert ``masks`` to uint8 0/1 ``[T, H, W]``. Raises :class:`VadError` unless there is one mask per frame."""
    if masks.ndim != 3 or len(masks) != length:
        raise VadError(
            f"{source}: masks of shape {list(masks.shape)} for {length} frames, expected [{length}, H, W]; "
            "masks and footage must be of the same recording: correct one of them"
        )
    return (masks != 0).astype(np.uint8)


def load_npy(path: Path) -> np.ndarray:
    """Load a ``.npy`` file without unpickling. Raises :class:`VadError` if it is missing or unreadable."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise VadError(f"{path}: missing; bring the label files of the data set") from None
    except (ValueError, EOFError, OSError) as error:
        raise VadError(f"{path}: not a readable .npy array ({error}); replace it") from error


def videos_in(folder: Path) -> list[Path]:
    """List the video files below ``folder`` at any depth, in natural order. Raises :class:`VadError` if there are none."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_ENDINGS and path.is_file() and not path.name.startswith(".")
    ]
    found.sort(key=lambda path: natural_key(path.relative_to(folder).as_posix()))
    if not found:
        raise VadError(f"{folder}: holds no videos ({', '.join(sorted(VIDEO_ENDINGS))}); bring the footage")
    return found


def footage_clip(
    split: Split,
    video: Path,
    name: str,
    labels: Callable[[], np.ndarray] | None = None,
    masks: Callable[[], np.ndarray] | None = None,
    fps: float | None = None,
) -> Clip:
    """Create the clip of the video file ``video``. ``fps`` overrides the times in the file."""
    return Clip(
        split=split,
        name=clip_name(name),
        source=video,
        fps=fps,
        frames=partial(VideoReader, video, fps),
        labels=labels,
        masks=masks,
        files=(video,),
    )
