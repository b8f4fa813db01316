"""Run a model on footage, in one pass: measures per frame, error maps and reconstructions.

Stored clips and live streams are scored by the same class, :class:`StreamScorer`: frames come in, windows of them go
through the model in batches, and what no later window needs is released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vadcore.data.loader import ClipLoader, made_ahead
from vadcore.data.store import FLOW_UNIT
from vadcore.data.windows import (
    BACKGROUND_SAMPLES,
    Batch,
    background_frames,
    median_picture,
    scoring_windows,
    split_at_pauses,
)
from vadcore.evaluation.box_scores import BoxScores
from vadcore.models.base import Model, Prediction
from vadcore.models.components.error_maps import map_size, shrink
from vadcore.utils.device import autocast
from vadcore.utils.errors import VadError
from vadcore.utils.turns import take_turns

FRAMES_AT_ONCE = {"cpu": 80, "cuda": 640}  # frames in a batch of windows
MAP_MAX = "map_max"  # column name of ClipScores.map_max in tables of measures


@dataclass
class ClipScores:
    """Measures, error maps and reconstructions of one segment of footage with ``T`` frames.

    measures: name -> float32 ``[T]``. maps: float16 ``[T, h, w]``. Both are NaN for frames that no window scored.
    reconstructions: frame -> the model's reconstruction or prediction of it, uint8 ``[H, W, C]``, for requested frames.
    """

    measures: dict[str, np.ndarray]
    maps: np.ndarray
    reconstructions: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def map_max(self) -> np.ndarray:
        """Maximum of each frame's error map, float32 ``[T]``; NaN for frames that no window scored."""
        return self.maps.max(axis=(1, 2)).astype(np.float32)


def score_clip(
    model: Model,
    footage: ClipLoader,
    number: int,
    dtype: torch.dtype = torch.float32,
    reconstruct: Iterable[int] = (),
) -> ClipScores:
    """Score segment ``number`` of ``footage`` with all scoring windows.

    No window reaches over a pause of the recording. A frame that several windows score gets their mean. Raises
    :class:`VadError` if an error map is not finite.

    reconstruct: frames, ascending, whose reconstructions or predictions are returned. Frames that no window scores are
    left out, and all frames if the model produces no pictures of the scored frames.
    """
    segment = footage.segments[number]
    parts = split_at_pauses([segment], footage.frames)
    edges = [(part.start - segment.start, part.stop - segment.start) for part in parts]
    starts = np.concatenate([start + scoring_windows(stop - start, model.windows) for start, stop in edges])
    pictured = windows_of(reconstruct, starts, model.windows.judged)
    maps: list[np.ndarray] = []
    scorer = StreamScorer(model, footage.device, dtype, maps.append, str(segment.clip), segment.start, pictured)
    for first, frames, flow in take_turns(_blocks(footage, number, edges, scorer.advance), footage.device.type):
        if first:
            scorer.pause()
        scorer.add(frames, flow)
    return ClipScores(scorer.finish(), np.concatenate(maps), scorer.reconstructions)


def windows_of(frames: Iterable[int], starts: np.ndarray, judged: Sequence[int]) -> dict[int, list[int]]:
    """Choose few windows that score all of ``frames``, except those that no window scores.

    frames: frame numbers, ascending. starts: starts of the available windows. judged: positions in a window that are
    scored, ascending. Returns start of the window -> frames to take from it.
    """
    available = set(starts.tolist())
    chosen: dict[int, list[int]] = {}
    for frame in frames:
        # the latest window that scores this frame also scores the most of the following frames
        possible = [frame - position for position in judged if frame - position in available]
        if possible:
            start = next((start for start in reversed(possible) if start in chosen), possible[0])
            chosen.setdefault(start, []).append(int(frame))
    return chosen


def _blocks(
    footage: ClipLoader, number: int, edges: list[tuple[int, int]], size: int
) -> Iterator[tuple[bool, Tensor, Tensor | None]]:
    """Yield the frames of a segment, in order, as :meth:`StreamScorer.add` takes them, at most ``size`` at a time.

    edges: first and stop frame of each part without a pause. The first value is true for the first frames of a part.
    """

    def read(span: tuple[bool, int, int]) -> tuple[bool, Tensor, Tensor | None]:
        first, start, stop = span
        before = 1 if footage.flow and not first else 0  # the frame that the flow to the first one comes from
        frames, flow = footage.raw(np.array([[number, start - before, 1]]), stop - start + before)
        return first, frames[0, before:], None if flow is None else flow[0]

    spans = [
        (start == begin, start, min(start + size, end)) for begin, end in edges for start in range(begin, end, size)
    ]
    if footage.cache == "stream":
        return (block for _, block in made_ahead(spans, read))
    return map(read, spans)


class _Means:
    """Means per frame over the windows that score it, in order of frames; grows at one end and is taken at the other.

    shape, dtype: of the value of a frame.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type):
        self.first = 0  # number of frames taken
        self.total: np.ndarray = np.zeros((0, *shape), dtype)
        self.count: np.ndarray = np.zeros(0, np.int64)

    def add(self, frames: np.ndarray, values: np.ndarray) -> None:
        """Add the values of windows.

        frames: ``[B, J]``, ascending in both directions. values: ``[B, J, *shape]``; a number may be NaN (no value), a map
        not.
        """
        self._grow(int(frames.max()) + 1)
        for position in reversed(range(frames.shape[1])):  # so each frame gets the values of its windows in order
            numbers, of_frames = frames[:, position] - self.first, values[:, position]
            if of_frames.ndim == 1:
                known = ~np.isnan(of_frames)
                numbers, of_frames = numbers[known], of_frames[known]
            self.total[numbers] += of_frames
            self.count[numbers] += 1

    def take(self, stop: int) -> np.ndarray:
        """Remove the frames before ``stop`` and return their means, ``[n, *shape]``; NaN for frames without values."""
        self._grow(stop)
        n = stop - self.first
        means, count = self.total[:n], self.count[:n]
        means /= np.maximum(count, 1).reshape(-1, *[1] * (means.ndim - 1))
        means[count == 0] = np.nan
        self.total, self.count, self.first = self.total[n:].copy(), self.count[n:].copy(), stop
        return means

    def _grow(self, stop: int) -> None:
        lacking = max(0, stop - self.first - len(self.total))
        self.total, self.count = (
            np.concatenate([part, np.zeros((lacking, *part.shape[1:]), part.dtype)])
            for part in (self.total, self.count)
        )


class StreamScorer:
    """Scores a stream of frames with one model. Memory does not grow with the length, except for the measures.

    The parts between two pauses of the recording are scored independently of each other.

    Parameters
    ----------
    model, device, dtype: the model, where it is, and the precision of its computations.
    keep: called with the error maps of the next n frames, float16 ``[n, h, w]``, as soon as no later window can change
        them; NaN for frames that no window scored.
    name: name of the footage in error messages.
    first: number of the first frame, in :attr:`Batch.numbers`.
    pictured: start of a window -> frames whose reconstructions are kept from it (:func:`windows_of`).
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        dtype: torch.dtype,
        keep: Callable[[np.ndarray], None],
        name: str = "footage",
        first: int = 0,
        pictured: Mapping[int, Sequence[int]] | None = None,
    ):
        self.model, self.device, self.dtype, self.keep = model.eval(), device, dtype, keep
        self.name, self.first, self.pictured = name, first, pictured or {}
        self.windows = model.windows
        self.group = max(1, FRAMES_AT_ONCE[device.type] // self.windows.length)  # windows in a batch
        self.reconstructions: dict[int, np.ndarray] = {}
        self._parts: list[tuple[int, dict[str, np.ndarray]]] = []  # lengths and measures of the complete parts
        self._begin()

    def _begin(self) -> None:
        """Begin a part. All numbers of frames below count from here."""
        self.length = 0  # number of frames so far
        self._frames: Tensor | None = None  # from frame `_released` on
        self._flow: Tensor | None = None  # from each of them to the next
        self._samples: dict[int, np.ndarray] = {}  # frame number -> frame; source of the backgrounds
        self._medians: dict[tuple[int, ...], np.ndarray] = {}  # numbers of samples -> background
        self._released = 0
        self._start = 0  # first frame of the next window
        self._maps: _Means | None = None
        self._boxes = BoxScores()
        self._measures: dict[str, _Means] = {}
        self._done: dict[str, list[np.ndarray]] = {}  # measures of the frames before `_released`

    @property
    def _offset(self) -> int:
        """Number of frames before this part."""
        return sum(length for length, _ in self._parts)

    @property
    def advance(self) -> int:
        """Frames from one batch of windows to the next, at least a window: the best number of frames to add at once."""
        return max(self.group * self.windows.step, self.windows.length)

    def add(self, frames: Tensor, flow: Tensor | None = None) -> None:
        """Add the next frames.

        frames: uint8 ``[n, C, H, W]``. flow: int16 ``[n, 2, H, W]`` in 1/64 px, the optical flow from the previous frame
        to each of them (``n - 1`` fields for the first frames of the stream); None if the model needs no flow.
        """
        self._frames = self._joined(self._frames, frames)
        if flow is not None and self.windows.flow:
            self._flow = self._joined(self._flow, flow)
        reach = self.windows.background
        if reach:
            every = max(1, reach // BACKGROUND_SAMPLES)
            for number in range(-(-self.length // every) * every, self.length + len(frames), every):
                self._samples[number] = frames[number - self.length].cpu().numpy()
        self.length += len(frames)
        while self.length >= reach:
            last = self._start + (self.group - 1) * self.windows.step
            if self.length < last + self.windows.length:
                break
            self._run(np.arange(self._start, last + 1, self.windows.step))

    def pause(self) -> None:
        """Say that the recording pauses before the next frame: no window, optical flow or background reaches over it.

        The optical flow added next is as for the first frames of the stream.
        """
        if self.length:
            self._finish_part()
            self._begin()

    def finish(self) -> dict[str, np.ndarray]:
        """Score the remaining windows and return the measures of all frames.

        Name -> float32 ``[T]``; NaN for frames that no window scored.
        """
        self._finish_part()
        names = dict.fromkeys(name for _, of_part in self._parts for name in of_part)
        return {
            name: np.concatenate(
                [of_part.get(name, np.full(length, np.nan, np.float32)) for length, of_part in self._parts]
            )
            for name in names
        }

    def _finish_part(self) -> None:
        starts = scoring_windows(self.length, self.windows)
        rest = starts[starts >= self._released]
        for first in range(0, len(rest), self.group):
            self._run(rest[first : first + self.group])
        maps = self._maps
        if maps is None:  # shorter than a window
            height, width = self._held.shape[2:]
            maps = _Means(map_size((height, width)), np.float32)
            self._measures = {self.model.score: _Means((), np.float64)}
        self._release(self.length, maps)
        measures = {name: np.concatenate(values).astype(np.float32) for name, values in self._done.items()}
        self._parts.append((self.length, measures))

    @property
    def _held(self) -> Tensor:
        """The frames from `_released` on. Raises ValueError before the first frame is added."""
        if self._frames is None:
            raise ValueError(f"{self.name}: no frames were added")
        return self._frames

    def _joined(self, before: Tensor | None, more: Tensor) -> Tensor:
        more = more.to(self.device, non_blocking=True)
        return more if before is None else torch.cat((before, more))

    def _run(self, starts: np.ndarray) -> None:
        """Score the windows at ``starts`` and release the frames that no later window contains."""
        batch = self._batch(starts[:, None] + np.arange(self.windows.length))
        with torch.inference_mode(), autocast(self.device, self.dtype):
            prediction = self.model.predict_step(batch)
            self._reconstruct(prediction, starts)
        height, width = batch.frames.shape[3:]
        maps = self._collect(prediction, starts[:, None] + np.array(self.windows.judged), (height, width))
        self._start = int(starts[-1]) + self.windows.step
        self._release(int(starts[-1]) + 1, maps)  # the last window of the stream may begin there

    def _batch(self, at: np.ndarray) -> Batch:
        """Return the windows of the frames ``at`` ``[B, T]``."""
        index = torch.from_numpy(at - self._released).to(self.device)
        frames = _picked(self._held, index).float().div_(255)
        flow = None if self._flow is None else _picked(self._flow, index[:, :-1]).float().div_(FLOW_UNIT)
        background = self._backgrounds(at[:, 0]) if self.windows.background else None
        clip, numbers = torch.zeros(len(at), dtype=torch.long), torch.from_numpy(self.first + self._offset + at)
        return Batch(frames, clip, numbers, flow, background)

    def _backgrounds(self, starts: np.ndarray) -> Tensor:
        """Backgrounds of the windows that begin at the frames ``starts`` ``[B]``: float ``[B, C, H, W]`` in 0..1."""
        numbers = [tuple(background_frames(start, self.length, self.windows.background)) for start in starts.tolist()]
        for key in set(numbers) - self._medians.keys():
            self._medians[key] = median_picture(np.stack([self._samples[n] for n in key]))
        pictures = torch.from_numpy(np.stack([self._medians[key] for key in numbers]))
        self._medians = {numbers[-1]: self._medians[numbers[-1]]}
        self._samples = {number: frame for number, frame in self._samples.items() if number >= numbers[-1][0]}
        return pictures.to(self.device).float().div_(255)

    def _reconstruct(self, prediction: Prediction, starts: np.ndarray) -> None:
        """Keep the requested pictures of the windows at ``starts``."""
        starts = self._offset + starts
        rows = [row for row, start in enumerate(starts.tolist()) if start in self.pictured]
        if not rows or prediction.reconstruction is None or prediction.target is not None:
            return
        shown = prediction.reconstruction()[rows].float().clamp(0, 1)  # [n, J, C, H, W]
        pictures = shown.mul(255).round().byte().cpu().numpy()
        for start, of_window in zip(starts[rows].tolist(), pictures, strict=True):
            for frame in self.pictured[start]:
                self.reconstructions[frame] = of_window[self.windows.judged.index(frame - start)].transpose(1, 2, 0)

    def _collect(self, prediction: Prediction, frames: np.ndarray, size: tuple[int, int]) -> _Means:
        """Add the measures and error maps of a batch, and return the means of the maps.

        frames: ``[B, J]``, numbers of the scored frames. size: of a frame.
        """
        for name, values in prediction.measures.items():
            means = self._measures.setdefault(name, _Means((), np.float64))
            means.add(frames, values.float().cpu().numpy().astype(np.float64))
        b, j, h, w = prediction.maps.shape
        kept = map_size(size)
        maps = shrink(prediction.maps.reshape(b * j, 1, h, w).float(), kept).view(b, j, *kept).cpu().numpy()
        if not np.isfinite(maps).all():
            raise VadError(
                f"{type(self.model).__name__}: its errors are not finite on {self.name}, frames {frames.min()} to "
                f"{frames.max()}; its weights are damaged: train it again"
            )
        if self._maps is None:
            self._maps = _Means(kept, np.float32)
        self._maps.add(frames, maps)
        return self._maps

    def _release(self, stop: int, of_maps: _Means) -> None:
        """Pass on the results of the frames before ``stop``, which no later window contains, and drop these frames."""
        maps = of_maps.take(stop)
        self.keep(maps.astype(np.float16))
        measures = {name: means.take(stop) for name, means in self._measures.items()}
        for name, values in (measures | self._boxes.add(maps)).items():
            self._done.setdefault(name, []).append(values)
        drop = stop - self._released
        self._frames = self._held[drop:]
        self._flow = None if self._flow is None else self._flow[drop:]
        self._released = stop


def _picked(items: Tensor, index: Tensor) -> Tensor:
    """Return ``items[index]`` for ``items`` ``[N, ...]`` and ``index`` ``[B, T]``; several times as fast on a CPU."""
    return items.index_select(0, index.flatten()).view(*index.shape, *items.shape[1:])
