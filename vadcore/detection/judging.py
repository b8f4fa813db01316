"""Streaming scoring: score windows of frames as they arrive.

The results are bitwise equal to those of :func:`vadcore.evaluation.inference.score_clip` on the stored clip, because
windows, batches and the order of all sums are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vadcore.data.store import FLOW_UNIT, clip_to_fixed
from vadcore.data.windows import BACKGROUND_SAMPLES, Batch, background_frames, median_picture
from vadcore.detection.detector import Detector, System
from vadcore.evaluation.inference import FRAMES_AT_ONCE
from vadcore.models.base import Prediction
from vadcore.models.components.error_maps import map_size, shrink
from vadcore.utils.device import autocast
from vadcore.utils.errors import VadError
from vadcore.utils.images import resize_flow

START = 1024  # initial capacity, frames


class Sums:
    """Sum and count per frame of one measure; grows with the footage."""

    def __init__(self):
        self.total, self.count = np.zeros(START), np.zeros(START, np.int64)

    def add(self, frames: np.ndarray, values: np.ndarray) -> None:
        """Add ``values`` ``[n]`` at the frame numbers ``frames`` ``[n]``; a frame may occur several times."""
        while frames.size and frames.max() >= len(self.total):
            self.total, self.count = (np.concatenate([part, np.zeros_like(part)]) for part in (self.total, self.count))
        np.add.at(self.total, frames, values)
        np.add.at(self.count, frames, 1)

    def means(self, length: int) -> np.ndarray:
        """Mean per frame, float32 ``[length]``; NaN for frames without values."""
        room = max(0, length - len(self.total))
        total, count = (np.pad(part[:length], (0, room)) for part in (self.total, self.count))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


class Judge:
    """Scores a stream of frames, with optical flow if needed, with one system.

    Error maps are passed on in order, each as soon as no later window can change it.

    keep: called with the error maps of the next n frames, float16 ``[n, h, w]``; NaN for frames that no window scored.
    name: name of the footage in error messages.
    """

    def __init__(self, system: System, keep: Callable[[np.ndarray], None], name: str = "footage"):
        self.system, self.keep, self.name = system, keep, name
        self.windows = system.model.windows
        self.group = max(1, FRAMES_AT_ONCE[system.device.type] // self.windows.length)  # windows in a batch
        self.length = 0  # number of frames so far
        self.sums: dict[str, Sums] = {}
        self._frames: list[np.ndarray] = []  # buffer from frame `_first` on, uint8 [C, H, W]
        self._fields: list[np.ndarray] = []  # flow from each of them to the next, int16 [2, H, W]
        self._samples: dict[int, np.ndarray] = {}  # frame number -> frame; source of the backgrounds
        self._first = 0
        self._start = 0  # first frame of the next window
        self._maps: np.ndarray | None = None  # sums of error maps, from frame `_handed_on` on
        self._judged = np.zeros(0, np.int32)  # number of summands of each
        self._handed_on = 0  # number of frames whose maps have been passed on

    def add(self, frame: np.ndarray, field: np.ndarray | None = None) -> None:
        """Add the next frame.

        frame: uint8 ``[C, H, W]``. field: optical flow from the previous frame to this one, int16 ``[2, H, W]`` in 1/64
        px; None for the first frame or if the system needs no flow.
        """
        self._frames.append(frame)
        if field is not None:
            self._fields.append(field)
        reach = self.windows.background
        if reach and self.length % max(1, reach // BACKGROUND_SAMPLES) == 0:
            self._samples[self.length] = frame
        self.length += 1
        while self.length >= reach:
            last = self._start + (self.group - 1) * self.windows.step
            if self.length < last + self.windows.length:
                break
            self._run(np.arange(self._start, last + 1, self.windows.step))

    def finish(self) -> dict[str, np.ndarray]:
        """Score the remaining windows and return the measures of all frames.

        Name -> float32 ``[T]``; NaN for frames that no window scored.
        """
        last = self.length - self.windows.length
        if last >= 0:
            rest = np.arange(self._start, last + 1, self.windows.step)
            before = rest[-1] if len(rest) else self._start - self.windows.step
            if before != last:  # one more window, to cover the last frames
                rest = np.append(rest, last)
            for first in range(0, len(rest), self.group):
                self._run(rest[first : first + self.group])
        self._hand_on(self.length)
        measures = {name: sums.means(self.length) for name, sums in self.sums.items()}
        return measures or {self.system.model.score: np.full(self.length, np.nan, np.float32)}

    def _run(self, starts: np.ndarray) -> None:
        """Score the windows at ``starts`` and drop the frames that no later window contains."""
        at = starts[:, None] + np.arange(self.windows.length)  # [B, T], frame numbers
        batch = self._batch(at)
        with torch.inference_mode(), autocast(self.system.device, self.system.dtype):
            judged = self.system.model.predict_step(batch)
        self._collect(judged, starts[:, None] + np.array(self.windows.judged), batch.frames.shape[3:])
        self._start = int(starts[-1]) + self.windows.step
        free = int(starts[-1]) + 1  # earliest start of the last window, which covers the last frames
        del self._frames[: free - self._first], self._fields[: free - self._first]
        self._first = free
        self._hand_on(free)

    def _batch(self, at: np.ndarray) -> Batch:
        device = self.system.device
        low, high = int(at[0, 0]), int(at[-1, -1]) + 1
        index = torch.from_numpy(at - low)
        block = np.stack(self._frames[low - self._first : high - self._first])
        frames = torch.from_numpy(block)[index].to(device).float().div_(255)
        flow = None
        if self.windows.flow:
            fields = np.stack(self._fields[low - self._first : high - 1 - self._first])
            flow = torch.from_numpy(fields)[index[:, :-1]].to(device).float().div_(FLOW_UNIT)
        background = self._backgrounds(at[:, 0]) if self.windows.background else None
        return Batch(frames, torch.zeros(len(at), dtype=torch.long), torch.from_numpy(at), flow, background)

    def _backgrounds(self, starts: np.ndarray) -> Tensor:
        """Backgrounds of the windows that begin at the frames ``starts`` ``[B]``: float ``[B, C, H, W]`` in 0..1."""
        numbers = [tuple(background_frames(start, self.length, self.windows.background)) for start in starts.tolist()]
        made = {key: median_picture(np.stack([self._samples[n] for n in key])) for key in dict.fromkeys(numbers)}
        self._samples = {number: frame for number, frame in self._samples.items() if number >= numbers[-1][0]}
        pictures = torch.from_numpy(np.stack([made[key] for key in numbers]))
        return pictures.to(self.system.device).float().div_(255)

    def _collect(self, judged: Prediction, frames: np.ndarray, size: tuple[int, int]) -> None:
        """Add the measures and error maps of a batch to the sums.

        frames: ``[B, J]``, numbers of the scored frames. size: height and width of the frames.
        """
        for name, values in judged.measures.items():
            values = values.float().cpu().numpy().astype(np.float64)
            said = ~np.isnan(values)
            self.sums.setdefault(name, Sums()).add(frames[said], values[said])
        b, j, h, w = judged.maps.shape
        kept = map_size(tuple(size))
        pooled = shrink(judged.maps.reshape(b * j, 1, h, w).float(), kept).view(b, j, *kept).cpu().numpy()
        if not np.isfinite(pooled).all():
            raise VadError(
                f"{self.system.name}: its errors are not finite on {self.name}, frames {frames.min()} to {frames.max()}; "
                "its weights are damaged: train it again"
            )
        self._make_room(int(frames.max()) + 1, kept)
        for numbers, maps in zip(frames - self._handed_on, pooled, strict=True):
            self._maps[numbers] += maps
            self._judged[numbers] += 1

    def _make_room(self, stop: int, size: tuple[int, int]) -> None:
        """Extend the sums with zeros up to frame ``stop``."""
        if self._maps is None:
            self._maps = np.zeros((0, *size), np.float32)
        lacking = stop - self._handed_on - len(self._maps)
        if lacking > 0:
            self._maps = np.concatenate([self._maps, np.zeros((lacking, *size), np.float32)])
            self._judged = np.concatenate([self._judged, np.zeros(lacking, np.int32)])

    def _hand_on(self, stop: int) -> None:
        """Pass on the error maps of the frames before ``stop``, which no later window contains."""
        if self._maps is None:
            if self.length == 0 or stop < self.length:
                return
            self._make_room(stop, map_size(self._frames[0].shape[1:]))  # shorter than a window: no scores
        self._make_room(stop, self._maps.shape[1:])
        count = stop - self._handed_on
        means = self._maps[:count].copy()
        means /= np.maximum(self._judged[:count], 1)[:, None, None]
        means[self._judged[:count] == 0] = np.nan
        self.keep(means.astype(np.float16))
        self._maps, self._judged, self._handed_on = self._maps[count:].copy(), self._judged[count:].copy(), stop


class Judges:
    """Scores a stream of frames with all systems of a detector: one :class:`Judge` per system, combined error maps.

    keep, name: as in :class:`Judge`.
    """

    def __init__(self, detector: Detector, keep: Callable[[np.ndarray], None], name: str = "footage"):
        self.detector, self.keep = detector, keep
        self.judges = [
            Judge(system, partial(self._take, number) if detector.fusion else keep, name)
            for number, system in enumerate(detector.systems)
        ]
        self._maps: list[list[np.ndarray]] = [[] for _ in self.judges]  # maps that wait for those of the other systems

    def add(self, frames: Sequence[np.ndarray], field: np.ndarray | None = None) -> None:
        """Add the next frame.

        frames: input of each system, uint8 ``[C, H, W]``. field: optical flow as in :meth:`Judge.add`, of any size.
        """
        for judge, frame in zip(self.judges, frames, strict=True):
            if field is None or not judge.windows.flow:
                judge.add(frame)
            elif field.shape[1:] == frame.shape[1:]:
                judge.add(frame, field)
            else:
                judge.add(frame, clip_to_fixed(resize_flow(field, frame.shape[1:])))

    def finish(self) -> Mapping[str, np.ndarray]:
        """Score the remaining windows and return the detector's measures of all frames.

        Name -> float32 ``[T]``; NaN for frames that no window scored.
        """
        return self.detector.measures([judge.finish() for judge in self.judges])

    def _take(self, number: int, maps: np.ndarray) -> None:
        """Take the maps of the next frames from system ``number``; combine the frames that all systems have delivered."""
        self._maps[number].extend(maps)
        count = min(map(len, self._maps))
        if count:
            self.keep(self.detector.fusion.maps([np.stack(waiting[:count]) for waiting in self._maps]))
            self._maps = [waiting[count:] for waiting in self._maps]
