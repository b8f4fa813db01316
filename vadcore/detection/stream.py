"""Score a video as a stream: decoded pictures to scores, p-values and events, in bounded memory.

A video of any format is brought to the frame rate, size and colour of the training footage. The results are bitwise
equal to those of :func:`vadcore.evaluation.inference.score_clip` on the stored clip: both use
:class:`~vadcore.evaluation.inference.StreamScorer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vadcore.data.store import clip_to_fixed, flow_to_fixed
from vadcore.data.video import MAX_MISSING
from vadcore.data.video_index import SAME_RATE
from vadcore.detection.detector import Detector
from vadcore.detection.source import Sampling, VideoSource, check_there, sampling_of
from vadcore.evaluation.evaluate import event_table, score_table
from vadcore.evaluation.events import TOLERANCE
from vadcore.evaluation.inference import StreamScorer
from vadcore.evaluation.maps import Maps, place
from vadcore.evaluation.preprocess import PreprocessSpec
from vadcore.models.base import ModelConfig
from vadcore.models.fusion import Fusion
from vadcore.utils.images import resize_flow, resize_picture, to_color
from vadcore.utils.times import pieces, shown
from vadcore.utils.turns import take_turns

AHEAD = 16  # pictures per block that is decoded ahead
BOX = ("x", "y", "width", "height")
DRIFT_SECONDS = 60  # of scored footage, from which it is compared with that of the calibration as a whole
COLUMNS = ["number", "start_seconds", "end_seconds", "peak_seconds", "peak_score", "p_value"]  # of a table of events
COLUMNS += ["start_frame", "end_frame", "peak_frame", *BOX]
Item = TypeVar("Item")


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
    duration: of the video, seconds.
    stated: frame rate that replaces the times in the video, or None.
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
    duration: float
    stated: float | None
    seconds: float
    remarks: list[str]


def scan(
    detector: Detector,
    video: Path,
    scratch: Path,
    fps: float | None = None,
    progress: Callable[[int], None] = lambda frames: None,
    max_missing: float = MAX_MISSING,
) -> Scanned:
    """Score ``video``.

    Parameters
    ----------
    detector: the detector that scores it.
    video: path of the video.
    scratch: file for the error maps; ``maps.close()`` removes it.
    fps: frames per second of the video, if its header has no rate or a wrong one.
    progress: called with the number of frames that have been read.
    max_missing: share of the frames that may be missing.

    Raises :class:`UnreadableVideo` if the video cannot be read completely.
    """
    video = Path(video)
    started = time.monotonic()
    check_there(video)
    sampling = sampling_of(video, detector.recipe.fps, fps)
    source = VideoSource(video, sampling, fps, max_missing)
    maps = Maps(scratch)
    try:
        measures = score_pictures(
            detector, iter(source), maps.append, video.name, lambda: progress(source.count), lambda: source.paused
        )
        frames, events = _tables(detector, measures, sampling, maps, source)
    except BaseException:
        maps.close()
        raise
    remarks = source.remarks + _remarks(detector, video.name, frames, sampling, source.size)
    seconds = time.monotonic() - started
    return Scanned(
        video, frames, events, maps, sampling, source.size, source.length, source.duration, fps, seconds, remarks
    )


def score_pictures(
    detector: Detector,
    pictures: Iterable[np.ndarray],
    keep: Callable[[np.ndarray], None],
    name: str = "footage",
    progress: Callable[[], None] = lambda: None,
    paused: Callable[[], bool] = lambda: False,
) -> Mapping[str, np.ndarray]:
    """Score decoded pictures and return their measures: name -> float32 ``[T]``, NaN for frames that no window scored.

    Parameters
    ----------
    detector: the detector that scores them.
    pictures: uint8 RGB ``[H, W, 3]`` at the detector's frame rate.
    keep: called with the error maps of the next n frames, float16 ``[n, h, w]``.
    name: name of the footage in error messages.
    progress: called after each block of pictures.
    paused: called after each picture is taken; returns whether the recording pauses before it.
    """
    systems = detector.systems
    takers: list[Callable[[np.ndarray], None]]
    if detector.fusion:
        fused = _FusedMaps(detector.fusion, keep)
        takers = [partial(fused.take, number) for number in range(len(systems))]
    else:
        takers = [keep]
    scorers = [
        StreamScorer(system.model, system.device, system.dtype, taker, name)
        for system, taker in zip(systems, takers, strict=True)
    ]
    configs = [system.model.config for system in systems]
    blocks = _blocks(detector, (prepare(picture, detector.recipe, configs, paused()) for picture in pictures))
    for pause, frames, flow in take_turns(blocks, systems[0].device.type):
        for scorer, of_system in zip(scorers, frames, strict=True):
            if pause:
                scorer.pause()
            scorer.add(of_system, _resized(flow, of_system.shape[2:]) if scorer.windows.flow else None)
        progress()
    return detector.measures([scorer.finish() for scorer in scorers])


class _FusedMaps:
    """Combines the error maps of the systems of a fusion, each frame as soon as all systems have delivered its map."""

    def __init__(self, fusion: Fusion, keep: Callable[[np.ndarray], None]):
        self.fusion, self.keep = fusion, keep
        self.waiting: list[list[np.ndarray]] = [[] for _ in fusion.members]

    def take(self, number: int, maps: np.ndarray) -> None:
        """Take the maps of the next frames from system ``number``."""
        self.waiting[number].extend(maps)
        count = min(map(len, self.waiting))
        if count:
            self.keep(self.fusion.maps([np.stack(of_system[:count]) for of_system in self.waiting]))
            self.waiting = [of_system[count:] for of_system in self.waiting]


class Prepared(NamedTuple):
    """A preprocessed frame.

    frames: input of each system, uint8 ``[C, H, W]``. seen: input of the optical flow estimator, uint8 ``[h, w, C]``, or
    None if no system needs optical flow. paused: whether the recording pauses before it.
    """

    frames: tuple[np.ndarray, ...]
    seen: np.ndarray | None
    paused: bool


def prepare(
    picture: np.ndarray, recipe: PreprocessSpec, configs: Sequence[ModelConfig], paused: bool = False
) -> Prepared:
    """Preprocess a decoded picture in the same steps as the extract stage and :class:`vadcore.data.loader.ClipLoader`.

    The picture is first converted to a stored frame, then to the input of each system.

    picture: uint8 RGB ``[H, W, 3]``. configs: configurations of the systems.
    """
    stored = to_color(picture, 1 if recipe.color == "grey" else 3)
    stored = resize_picture(stored, recipe.size) if recipe.size else stored
    frames = [
        resize_picture(to_color(stored, config.channels), config.image_size or stored.shape[:2]) for config in configs
    ]
    needed = any(config.needs_flow for config in configs)
    seen = resize_picture(stored, recipe.flow.size) if recipe.flow and needed else None
    return Prepared(tuple(np.ascontiguousarray(frame.transpose(2, 0, 1)) for frame in frames), seen, paused)


def ahead(items: Iterable[Item], count: int = AHEAD) -> Iterator[list[Item]]:
    """Yield ``items`` in lists of up to ``count``. A background thread makes the next list while one is used."""
    source = iter(items)

    def take() -> list[Item]:
        return list(islice(source, count))

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(take)
        while block := coming.result():
            coming = thread.submit(take)
            yield block


def _blocks(detector: Detector, prepared: Iterable[Prepared]) -> Iterator[tuple[bool, list[Tensor], np.ndarray | None]]:
    """Yield the next frames of each system, uint8 ``[n, C, H, W]``, and the optical flow from the previous frame to each.

    Flow is int16 ``[n, 2, h, w]`` in 1/64 px at the size of stored flow, without the first frame of the video or after a
    pause; None if no system needs flow. The first value says whether the recording pauses before these frames.
    """
    before: list[np.ndarray] = []  # estimator input of the previous frame
    for block in ahead(prepared):
        flow = None
        if detector.estimator is not None:
            # Also over a pause, as for stored clips: OpenCV's estimators depend on the pair before.
            seen = np.stack([*before, *(item.seen for item in block if item.seen is not None)])
            lacking = len(block) + 1 - len(seen)  # 1 for the first block: nothing flows to the first frame
            before = [seen[-1]]
            flow = flow_to_fixed(detector.estimator(seen[:-1], seen[1:])) if len(seen) > 1 else None
        edges = [0, *(number for number, item in enumerate(block) if number and item.paused), len(block)]
        for start, stop in pairwise(edges):
            pause, fields = block[start].paused, None
            if flow is not None:
                fields = flow[max(0, start + pause - lacking) : stop - lacking]
            yield (
                pause,
                [
                    torch.from_numpy(np.stack(frames))
                    for frames in zip(*(item.frames for item in block[start:stop]), strict=True)
                ],
                fields if fields is not None and len(fields) else None,
            )


def _resized(flow: np.ndarray | None, size: Sequence[int]) -> Tensor | None:
    """Resize flow ``[n, 2, h, w]`` in 1/64 px to ``size``."""
    if flow is None:
        return None
    height, width = size
    if flow.shape[2:] != (height, width):
        flow = clip_to_fixed(np.stack([resize_flow(field, (height, width)) for field in flow]))
    return torch.from_numpy(flow)


def _remarks(
    detector: Detector, name: str, frames: pd.DataFrame, sampling: Sampling, size: tuple[int, int]
) -> list[str]:
    """Warnings about a video that differs from the training footage, or is too short to be scored."""
    recipe, remarks = detector.recipe, []
    scored, seconds = frames["score"].notna().to_numpy(), frames["seconds"].to_numpy()
    if sampling.fps < recipe.fps * (1 - SAME_RATE):
        remarks.append(
            f"{name} has {sampling.fps:g} frames a second, the system was trained at {recipe.fps:g}: everything "
            "looks faster to it than it is, so expect more false alarms"
        )
    if recipe.size:
        ratio = (size[1] / size[0]) / (recipe.size[1] / recipe.size[0])
        if not 1 / 1.1 <= ratio <= 1.1:
            remarks.append(
                f"{name} is {size[1]}x{size[0]}, the system was trained at {recipe.size[1]}x{recipe.size[0]}: the "
                "picture is squeezed, so expect more false alarms"
            )
    if not scored.any():
        lengths = " and one of ".join(str(system.model.windows.length) for system in detector.systems)
        remarks.append(
            f"{name} has {len(frames)} frames at {sampling.fps:g} a second, too few for a window of {lengths}: "
            "nothing could be scored"
        )
    short = [stop - start for start, stop in pieces(seconds, sampling.fps) if not scored[start:stop].any()]
    if short and scored.any():
        remarks.append(
            f"{name} has {sum(short)} frames in {len(short)} pieces between pauses that are shorter than a window: they are "
            "not scored"
        )
    starts, stops = shown(len(frames), sampling.fps, seconds)  # [T], frame periods
    drift = detector.calibration.drift(frames["score"].to_numpy())
    if drift and (stops - starts)[scored].sum() >= DRIFT_SECONDS * sampling.fps - TOLERANCE:
        remarks.append(
            f"{name} scores {drift} as a whole than the normal footage that the threshold was set on: expect "
            f"{'false' if drift == 'higher' else 'missed'} alarms, and train again with newer normal footage"
        )
    return remarks


def _tables(
    detector: Detector, measures: Mapping[str, np.ndarray], sampling: Sampling, maps: Maps, source: VideoSource
) -> tuple[pd.DataFrame, pd.DataFrame]:
    name, recipe, calibration = "video", detector.recipe, detector.calibration
    scored = {name: measures}, detector.score, {name: sampling.fps}, recipe.smoothing, calibration
    table = score_table(*scored, {} if source.is_constant else {name: np.array(source.seconds)})
    found = event_table(table, calibration, calibration)
    frames = table.drop(columns=["clip", "fps", "seconds"], errors="ignore")
    frames["frame"] = source.numbers
    frames.insert(1, "seconds", source.seconds)
    frames.insert(4, "event", 0)
    for number, event in enumerate(found.itertuples(), 1):
        frames.loc[event.start_frame : event.end_frame, "event"] = number
    return frames, events_of(found, maps, source)


def events_of(found: pd.DataFrame, maps: Maps, source: VideoSource) -> pd.DataFrame:
    """Convert events from sampled frames to time, frame numbers and pixels of the video.

    found: event table of :func:`vadcore.evaluation.evaluate.event_table`. source: the video, read to its end.

    Columns: ``number`` from 1; ``start_seconds``, ``end_seconds`` (end of the last frame), ``peak_seconds``;
    ``peak_score`` and its ``p_value``; ``start_frame``, ``end_frame``, ``peak_frame`` (frame numbers in the video, all
    inclusive); ``x``, ``y``, ``width``, ``height``: bounding box in pixels in the peak frame, empty if the error map
    gives no location.
    """
    rows = []
    for number, event in enumerate(found.itertuples(), 1):
        start, end, last = source.interval(event.start_frame, event.end_frame)
        rows.append(
            {
                "number": number,
                "start_seconds": round(start, 3),
                "end_seconds": round(end, 3),
                "peak_seconds": round(source.seconds[event.peak_frame], 3),
                "peak_score": event.peak_score,
                "p_value": event.p_value,
                "start_frame": source.numbers[event.start_frame],
                "end_frame": last,
                "peak_frame": source.numbers[event.peak_frame],
                **dict(zip(BOX, place(maps[event.peak_frame], source.size) or (pd.NA,) * 4, strict=True)),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(BOX, "Int64"))
