"""Score a whole video: pictures to scores, p-values and events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vadcore.data.store import flow_to_fixed
from vadcore.detection.detector import Detector
from vadcore.detection.frames import AHEAD, Prepared, Sampling, ahead, prepare, remarks, sampling_of
from vadcore.detection.judging import Judges
from vadcore.detection.reading import Source, check_there
from vadcore.evaluation.evaluate import event_table, score_table
from vadcore.evaluation.maps import Maps, place


@dataclass
class Scanned:
    """Scores, events and error maps of a video.

    Attributes
    ----------
    video: path of the video.
    frames: one row per sampled frame: ``frame`` (frame number in the video), ``seconds``, ``score``, ``p_value``, every raw
        measure, ``event`` (number of the event, from 1; 0 = none).
    events: one row per event, see :func:`events_of`.
    maps: error map of each row of ``frames``.
    sampling: which frames of the video were scored.
    size: height and width of the video.
    length: number of frames in the video.
    seconds: processing time.
    remarks: warnings for the user.
    """

    video: Path
    frames: pd.DataFrame
    events: pd.DataFrame
    maps: Maps
    sampling: Sampling
    size: tuple[int, int]
    length: int
    seconds: float
    remarks: list[str]


def scan(
    detector: Detector,
    video: Path,
    scratch: Path,
    fps: float | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> Scanned:
    """Score ``video``.

    Parameters
    ----------
    detector: the detector that scores it.
    video: path of the video.
    scratch: file for the error maps; ``maps.close()`` removes it.
    fps: frames per second of the video, if its header has no rate or a wrong one.
    progress: called with the number of frames that have been read.

    Raises :class:`~vadcore.detection.reading.UnreadableVideo` if the video cannot be read completely.
    """
    video = Path(video)
    started = time.monotonic()
    check_there(video)
    sampling = sampling_of(video, detector.recipe.fps, fps)
    source = Source(video)
    maps = Maps(scratch)
    try:
        measures = judge_pictures(
            detector, sampling.of(source), maps.append, video.name, lambda: progress(source.count)
        )
        frames, events = _tables(detector, measures, sampling, maps, source)
    except BaseException:
        maps.close()
        raise
    said = remarks(video, sampling, source.size, detector.recipe)
    if frames["score"].isna().all():
        lengths = " and one of ".join(str(system.model.windows.length) for system in detector.systems)
        said.append(
            f"{video.name} has {len(frames)} frames at {sampling.fps:g} a second, too few for a window of {lengths}: "
            "nothing could be judged"
        )
    seconds = time.monotonic() - started
    return Scanned(video, frames, events, maps, sampling, source.size, source.count, seconds, said)


def judge_pictures(
    detector: Detector,
    pictures: Iterable[np.ndarray],
    keep: Callable[[np.ndarray], None],
    name: str = "footage",
    progress: Callable[[], None] = lambda: None,
) -> Mapping[str, np.ndarray]:
    """Score decoded pictures and return their measures: name -> float32 ``[T]``, NaN for frames that no window scored.

    Parameters
    ----------
    detector: the detector that scores them.
    pictures: uint8 RGB ``[H, W, 3]`` at the detector's frame rate.
    keep: called with the error maps of the next n frames, float16 ``[n, h, w]``.
    name: name of the footage in error messages.
    progress: called after each picture.
    """
    judges = Judges(detector, keep, name)
    configs = [system.model.config for system in detector.systems]
    prepared = (prepare(picture, detector.recipe, configs) for picture in pictures)
    for frames, field in _with_flow(detector, ahead(prepared)):
        judges.add(frames, field)
        progress()
    measures = judges.finish()
    progress()
    return measures


def _with_flow(
    detector: Detector, prepared: Iterator[Prepared]
) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray | None]]:
    """Yield the input frames of all systems and the optical flow from the previous frame.

    Flow is int16 ``[2, h, w]`` in 1/64 px at the size of stored flow; None for the first frame or if no system needs flow.
    """
    if detector.estimator is None:
        for frames, _ in prepared:
            yield frames, None
        return
    before, block = None, []
    for item in prepared:
        block.append(item)
        if len(block) == AHEAD:
            yield from _estimated(detector, before, block)
            before, block = block[-1].seen, []
    if block:
        yield from _estimated(detector, before, block)


def _estimated(detector: Detector, before: np.ndarray | None, block: list[Prepared]) -> Iterator[tuple]:
    """Add the optical flow to a block of frames. before: estimator input of the frame before the block, or None."""
    seen = np.stack([*([] if before is None else [before]), *(item.seen for item in block)])
    fields: list[np.ndarray | None] = [None] if before is None else []
    if len(seen) > 1:
        fields += list(flow_to_fixed(detector.estimator(seen[:-1], seen[1:])))
    yield from zip((item.frames for item in block), fields, strict=True)


def _tables(
    detector: Detector, measures: Mapping[str, np.ndarray], sampling: Sampling, maps: Maps, source: Source
) -> tuple[pd.DataFrame, pd.DataFrame]:
    name, recipe, calibration = "video", detector.recipe, detector.calibration
    table = score_table({name: measures}, detector.score, {name: sampling.fps}, recipe.smoothing, calibration)
    found = event_table(table, calibration, calibration)
    numbers = sampling.numbers(len(table))
    frames = table.drop(columns=["clip", "fps"])
    frames["frame"] = numbers
    frames.insert(1, "seconds", numbers / sampling.video_fps)
    frames.insert(4, "event", 0)
    for number, event in enumerate(found.itertuples(), 1):
        frames.loc[event.start_frame : event.end_frame, "event"] = number
    return frames, events_of(found, sampling, maps, source.size, source.count)


def events_of(found: pd.DataFrame, sampling: Sampling, maps: Maps, size: tuple[int, int], length: int) -> pd.DataFrame:
    """Convert events from sampled frames to time, frame numbers and pixels of the video.

    found: event table of :func:`vadcore.evaluation.evaluate.event_table`. size: height and width of the video. length:
    number of frames in the video.

    Columns: ``number`` from 1; ``start_seconds``, ``end_seconds`` (end of the last frame), ``peak_seconds``;
    ``peak_score`` and its ``p_value``; ``start_frame``, ``end_frame``, ``peak_frame`` (frame numbers in the video, all
    inclusive); ``x``, ``y``, ``width``, ``height``: bounding box in pixels in the peak frame, empty if the error map
    gives no location.
    """
    rows = []
    for number, event in enumerate(found.itertuples(), 1):
        at = np.minimum(sampling.numbers(event.end_frame + 2), length)
        box = place(maps[event.peak_frame], size)
        rows.append(
            {
                "number": number,
                "start_seconds": round(at[event.start_frame] / sampling.video_fps, 3),
                "end_seconds": round(at[event.end_frame + 1] / sampling.video_fps, 3),
                "peak_seconds": round(at[event.peak_frame] / sampling.video_fps, 3),
                "peak_score": event.peak_score,
                "p_value": event.p_value,
                "start_frame": int(at[event.start_frame]),
                "end_frame": int(at[event.end_frame + 1]) - 1,
                "peak_frame": int(at[event.peak_frame]),
                **dict(zip(("x", "y", "width", "height"), box or (pd.NA,) * 4, strict=True)),
            }
        )
    columns = ["number", "start_seconds", "end_seconds", "peak_seconds", "peak_score", "p_value"]
    columns += ["start_frame", "end_frame", "peak_frame", "x", "y", "width", "height"]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys(("x", "y", "width", "height"), "Int64"))
