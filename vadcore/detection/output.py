"""Results folder of a video: complete or absent, made by one process at a time, never in place of another video's.

=================== ===================================================================================================
``events.json``     the video, the detector, the threshold, remarks, and the events
``events.csv``      one row per event
``scores.csv``      one row per sampled frame: score, p-value, raw measures, number of its event
``timeline.png``    the score over time with threshold and events
``annotated.webm``  the video with heat map, time and events (optional)
=================== ===================================================================================================

While results are made, a partial folder lies beside them::

    out/.<key>.partial/lock      held by the process that makes the results
    out/.<key>.partial/made/     unfinished results; renamed to out/<key> when complete
    out/.<key>.partial/before/   earlier results of the same video; removed together with the partial folder

Leftovers of a killed process are recognised by a lock that no process holds.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vadcore.data.video import MAX_MISSING
from vadcore.detection import alerts
from vadcore.detection.detector import Detector
from vadcore.detection.film import write_film, write_timeline
from vadcore.detection.naming import printable, result_key
from vadcore.detection.source import check_there
from vadcore.detection.stream import BOX, Scanned, scan
from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files, write_json

EVENTS, TABLE, SCORES = "events.json", "events.csv", "scores.csv"
TIMELINE, FILM = "timeline.png", "annotated.webm"
LOCK, MADE, BEFORE = "lock", "made", "before"
PATIENCE = 1.0  # seconds to wait for the lock; removing the leftovers of a killed process takes less


class Taken(VadError):
    """The results folder belongs to another video, or another process is making it."""


@dataclass(frozen=True)
class Detection:
    """The results of one video.

    folder: results folder. about: content of ``events.json``. seconds: total processing time, including the annotated
    video. scan_seconds: the part of it until the events were known.
    """

    folder: Path
    about: dict
    seconds: float
    scan_seconds: float

    @property
    def events(self) -> list[dict]:
        return self.about["events"]


def detect(
    detector: Detector,
    video: Path | str,
    out: Path | str,
    key: str | None = None,
    name: str | None = None,
    fps: float | None = None,
    film: bool = True,
    alert: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
    max_missing: float = MAX_MISSING,
) -> Detection:
    """Score ``video`` and create its results folder ``out/<key>``. Earlier results of the same video are replaced.

    Parameters
    ----------
    detector: the detector that scores it.
    video: path of the video.
    out: parent folder of the results folder.
    key: name of the results folder; by default derived from the file name. A key that is too long is shortened.
    name: name of the video in the results; by default the file name.
    fps: frames per second of the video, if its header is wrong.
    film: whether to write the annotated video.
    alert: whether to prepare alerts, one per event (:mod:`vadcore.detection.alerts`).
    progress: called with the number of frames of the video that have been read.
    max_missing: share of the video's frames that may be missing.

    Raises :class:`~vadcore.detection.source.UnreadableVideo` if the video cannot be read, and :class:`Taken` if the folder
    belongs to another video or another process is making it.
    """
    video, out = Path(video), Path(out)
    started = time.monotonic()
    check_there(video)
    key = result_key(key or video.stem)
    folder = out / key
    with making(folder, video) as made:
        scanned = scan(detector, video, made / "maps", fps, progress, max_missing)
        try:
            about = _about(detector, scanned, printable(name or video.name))
            _write(made, scanned, about, film)
        finally:
            scanned.maps.close()
        if alert:
            alerts.write_ready(made, key, about, folder)
    return Detection(folder, about, time.monotonic() - started, scanned.seconds)


def _about(detector: Detector, scanned: Scanned, name: str) -> dict:
    recipe, calibration, sampling = detector.recipe, detector.calibration, scanned.sampling
    return {
        "video": name,
        "sha256": sha256_files([scanned.video]),
        "fps": sampling.video_fps,
        "frames": scanned.length,
        "seconds": round(scanned.duration, 3),
        "width": scanned.size[1],
        "height": scanned.size[0],
        "detector": {"dataset": recipe.dataset, "model": recipe.name, "digest": detector.digest},
        "scored_fps": sampling.fps,
        "scored_frames": int(scanned.frames["score"].notna().sum()),
        "threshold": calibration.threshold,
        "target_far_per_hour": calibration.target_far_per_hour,
        "threshold_extrapolated": calibration.extrapolated,
        "remarks": scanned.remarks,
        "events": [_event(row) for row in scanned.events.to_dict("records")],
    }


def _event(row: dict) -> dict:
    known = {key: value for key, value in row.items() if key not in BOX}
    return {**known, "box": None if pd.isna(row["x"]) else {side: int(row[side]) for side in BOX}}


def _write(folder: Path, scanned: Scanned, about: dict, film: bool) -> None:
    write_json(folder / EVENTS, about)
    scanned.events.assign(video=about["video"]).to_csv(folder / TABLE, index=False)
    scanned.frames.to_csv(folder / SCORES, index=False)
    detector = f"{about['detector']['dataset']}/{about['detector']['model']}"
    title = f"{about['video']}: {len(about['events'])} events ({detector})"
    write_timeline(folder / TIMELINE, scanned.frames, scanned.events, about["threshold"], title)
    if film:
        write_film(folder / FILM, scanned)


@contextmanager
def making(folder: Path, video: Path) -> Iterator[Path]:
    """Context manager: yields a temporary folder, which becomes ``folder`` when the block ends without an exception.

    folder: results folder. video: the video whose results are made. Raises :class:`Taken`, before the block, if
    ``folder`` belongs to another video or another process is making it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    lock = _begin(partial)
    try:
        sweep(folder.parent)
        _restore(partial, folder)
        if folder.exists() and not made_from(folder, video):
            raise Taken(f"{folder}: there already, of another video; move it away, or choose another folder: --out")
        _empty(partial)  # leftovers of a killed process
        made = partial / MADE
        made.mkdir()
        yield made
        if folder.exists():
            folder.rename(partial / BEFORE)
        made.rename(folder)
    finally:
        _clear(partial, folder, lock)


def made_from(folder: Path, video: Path) -> bool:
    """Whether ``folder`` contains the results of a video with the same content (SHA-256) as the file ``video``."""
    try:
        about = json.loads((folder / EVENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("sha256") == sha256_files([video])


def sweep(out: Path) -> None:
    """Remove the leftovers of killed processes in ``out``."""
    for stray in out.glob(".*.partial"):
        if not (stray / LOCK).exists():
            with suppress(OSError):  # without a lock it is ours only if it is empty
                stray.rmdir()
        elif (lock := hold(stray)) is not None:
            _clear(stray, stray.with_name(stray.name[1 : -len(".partial")]), lock)


def hold(folder: Path) -> int | None:
    """Lock ``folder`` and return a file descriptor. Closing it, or the end of the process, releases the lock.

    Returns None if another process holds the lock or has removed or renamed the folder in the meantime; filelock's locks do
    not notice a renamed folder.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), (folder / LOCK).stat()):
            return file
    os.close(file)
    return None


def _begin(partial: Path) -> int:
    end = time.monotonic() + PATIENCE
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        if (lock := hold(partial)) is not None:
            return lock
        if time.monotonic() > end:
            raise Taken(f"{partial}: another process is making these results; wait for it, or choose another --out")
        time.sleep(0.01)


def _restore(partial: Path, folder: Path) -> None:
    """Finish the second rename if a process was killed between the two: the new results were complete."""
    if (partial / BEFORE).exists() and (partial / MADE).exists() and not folder.exists():
        (partial / MADE).rename(folder)


def _clear(partial: Path, folder: Path, lock: int) -> None:
    """Remove the partial folder and release its lock.

    The folder is renamed first, so that its name is free at once and no process uses a half-removed folder.
    """
    _restore(partial, folder)
    gone = partial.with_name(f".{uuid.uuid4().hex}.partial")
    partial.rename(gone)
    _empty(gone)
    (gone / LOCK).unlink()
    gone.rmdir()
    os.close(lock)


def _empty(folder: Path) -> None:
    """Remove everything in ``folder`` except the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
