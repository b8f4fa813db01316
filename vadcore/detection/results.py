"""Results folder of a video, created atomically: it is either complete or absent.

=================== ===================================================================================================
``events.json``     the video, the detector, the threshold, remarks, and the events
``events.csv``      one row per event
``scores.csv``      one row per sampled frame: score, p-value, raw measures, number of its event
``timeline.png``    the score over time with threshold and events
``annotated.webm``  the video with heat map, time and events (optional)
=================== ===================================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vadcore.detection import alerts
from vadcore.detection.detector import Detector
from vadcore.detection.film import write_film
from vadcore.detection.making import EVENTS, Taken, making
from vadcore.detection.naming import printable, result_key
from vadcore.detection.stream import Scanned, check_there, scan
from vadcore.detection.timeline import write_timeline
from vadcore.utils.files import sha256_files, write_json

TABLE, SCORES, TIMELINE, FILM = "events.csv", "scores.csv", "timeline.png", "annotated.webm"


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
    replace: bool = True,
    progress: Callable[[int], None] = lambda frames: None,
) -> Detection:
    """Score ``video`` and create its results folder ``out/<key>``.

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
    replace: whether to replace existing results of the same video; if False, they raise ``Taken``.
    progress: called with the number of frames of the video that have been read.

    Raises :class:`~vadcore.detection.stream.UnreadableVideo` if the video cannot be read, and
    :class:`~vadcore.detection.making.Taken` if the folder belongs to another video or another process is making it.
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
            about = _about(detector, scanned, printable(name or video.name))
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
