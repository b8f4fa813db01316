"""The folder of a video's results: complete, or not there.

=================== ===================================================================================================
``events.json``     the video, the detector, the threshold, remarks, and the events
``events.csv``      the events, a row each
``scores.csv``      a row a frame that was looked at: score, p-value, raw measures, the event it belongs to
``timeline.png``    the score over time with threshold and events
``annotated.webm``  the video with heat map, time, and events (unless it was left out)
=================== ===================================================================================================
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vadcore.detection import alerts
from vadcore.detection.detector import Detector
from vadcore.detection.film import write_film
from vadcore.detection.making import EVENTS, Taken, making
from vadcore.detection.naming import result_key, shown
from vadcore.detection.reading import check_there
from vadcore.detection.scan import Scanned, scan
from vadcore.detection.timeline import write_timeline
from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files, write_json

TABLE, SCORES, TIMELINE, FILM = "events.csv", "scores.csv", "timeline.png", "annotated.webm"


@dataclass(frozen=True)
class Detection:
    """The results of one video. about: what ``events.json`` holds. seconds: that it took, film and all; scan_seconds: of
    them, until the events were known."""

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
    replace: bool = True,
    progress: Callable[[int], None] = lambda frames: None,
) -> Detection:
    """Score ``video`` and make the folder ``out/<key>`` of its results.

    key: by default made from the file's name; one that is too long for a folder's name is shortened. name: what the results
    call the video; by default the file's name. fps: the video's rate, where its header is wrong. film: make the annotated
    video. alert: prepare alerts, one an event (:mod:`vadcore.detection.alerts`). replace: results of the same video that are
    there give way; else they are refused as those of another video always are. progress: told how many frames of the video
    have been read.

    Raises :class:`~vadcore.detection.reading.UnreadableVideo` where the video cannot be read, and
    :class:`~vadcore.detection.making.Taken` where the folder is another video's or another process is making it.
    """
    video, out = Path(video), Path(out)
    started = time.monotonic()
    check_there(video)
    key = result_key(key or video.stem)
    folder = out / key
    if folder.exists() and not replace:
        raise Taken(f"{folder}: there already; move it away, or choose another folder: --out")
    with making(folder, video) as beside:
        scanned = scan(detector, video, beside / "maps", fps, progress)
        try:
            about = _about(detector, scanned, shown(name or video.name))
            _write(beside, scanned, about, film)
        finally:
            scanned.maps.close()
        if alert:
            alerts.lay_ready(beside, key, about, folder)
    return Detection(folder, about, time.monotonic() - started, scanned.seconds)


def _about(detector: Detector, scanned: Scanned, name: str) -> dict:
    recipe, calibration, sampling = detector.recipe, detector.calibration, scanned.sampling
    return {
        "video": name,
        "sha256": sha256_files([scanned.video]),
        "fps": sampling.video_fps,
        "frames": scanned.length,
        "seconds": round(scanned.length / sampling.video_fps, 3),
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
    sides = ("x", "y", "width", "height")
    known = {key: value for key, value in row.items() if key not in sides}
    return {**known, "box": None if pd.isna(row["x"]) else {side: int(row[side]) for side in sides}}


def _write(folder: Path, scanned: Scanned, about: dict, film: bool) -> None:
    write_json(folder / EVENTS, about)
    scanned.events.assign(video=about["video"]).to_csv(folder / TABLE, index=False)
    scanned.frames.to_csv(folder / SCORES, index=False)
    detector = f"{about['detector']['dataset']}/{about['detector']['model']}"
    title = f"{about['video']}: {len(about['events'])} events ({detector})"
    write_timeline(folder / TIMELINE, scanned.frames, scanned.events, about["threshold"], title)
    if film:
        write_film(folder / FILM, scanned)


def read_results(folder: Path) -> dict:
    """What ``events.json`` of a folder of results holds. Raises :class:`VadError` where it is not there."""
    try:
        return json.loads((Path(folder) / EVENTS).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VadError(f"{folder}: no results of a video here") from error
