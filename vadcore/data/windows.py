"""Select the frames of training and scoring windows.

All functions are pure functions of clip lengths, seed and iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from vadcore.data.store import ClipId, ClipStore
from vadcore.utils.errors import VadError
from vadcore.utils.times import pieces

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """The windows that a model needs.

    Attributes
    ----------
    length: number of frames in a window.
    strides: distances between successive frames of training windows. Scoring windows always have stride 1.
    judged: positions in the window that get a score.
    step: distance between the starts of scoring windows, frames.
    flow: whether the model needs the stored optical flow of the window. The stride must then be 1.
    background: number of frames that the background covers (see :func:`background_frames`); 0: not needed.
    """

    length: int
    strides: tuple[int, ...] = (1,)
    judged: tuple[int, ...] = (0,)
    step: int = 1
    flow: bool = False
    background: int = 0

    def __post_init__(self):
        if self.flow and self.strides != (1,):
            raise ValueError("stored flow is that of neighbouring frames: windows with flow have stride 1")
        if not all(0 <= position < self.length for position in self.judged):
            raise ValueError(f"judged positions {self.judged} are not in a window of {self.length} frames")

    def span(self, stride: int) -> int:
        """Number of frames from the first to the last frame of a window, both included."""
        return (self.length - 1) * stride + 1


BLOCK = 3_000  # frames of a piece of a long recording: five minutes at 10 frames per second
BACKGROUND_SAMPLES = 60  # number of frames in the median of a background


def background_frames(start: int, length: int, reach: int) -> np.ndarray:
    """Return the numbers of the frames whose median is the background of a window, int64 ``[n]``.

    The frames are spread over ``reach`` frames: the first ``reach`` frames of the clip for early windows, frames before the
    window for later ones. So a live stream must be read ahead only at its beginning. Windows that start in the same third
    of ``reach`` have the same background.

    Parameters
    ----------
    start: first frame of the window.
    length: frames of the clip. For a stream: the frames read so far, at least ``reach``.
    reach: number of frames that the background covers.
    """
    third, every = max(1, reach // 3), max(1, reach // BACKGROUND_SAMPLES)
    stop = min(length, max(reach, start // third * third))
    first = max(0, stop - reach)
    return np.arange(-(-first // every) * every, stop, every)


def median_picture(pictures: np.ndarray) -> np.ndarray:
    """Return the (lower) median of ``[n, ...]`` over the first axis, with the same dtype."""
    middle = (len(pictures) - 1) // 2
    return np.partition(pictures, middle, axis=0)[middle]


def training_windows(lengths: list[int], windows: Windows) -> np.ndarray:
    """List all training windows: int64 ``[M, 3]`` of (clip, start, stride). Each window lies within one clip.

    Raises :class:`VadError` if no clip is long enough for a window.
    """
    rows = [
        np.stack([np.full(starts, clip), np.arange(starts), np.full(starts, stride)], axis=1)
        for clip, length in enumerate(lengths)
        for stride in windows.strides
        if (starts := length - windows.span(stride) + 1) > 0
    ]
    if not rows:
        shortest = min(windows.span(stride) for stride in windows.strides)
        raise VadError(
            f"no training clip is as long as one window of {windows.length} frames (with the frames between them "
            f"{shortest}; the longest clip has {max(lengths, default=0)}); give longer clips or a shorter window"
        )
    return np.concatenate(rows).astype(np.int64)


def scoring_windows(length: int, windows: Windows) -> np.ndarray:
    """Return the starts of the scoring windows of a clip: every ``step``-th frame, and the last window of the clip."""
    last = length - windows.length
    if last < 0:
        return np.empty(0, np.int64)
    return np.unique(np.append(np.arange(0, last + 1, windows.step), last))


class Sampler:
    """Draw training batches. ``batch(iteration)`` does not depend on earlier batches, so resume is exact.

    sampling: ``windows`` draws every window once per epoch, in a new random order each epoch. ``clips`` draws one random
    window from each clip per epoch, with the clips in random order, so that all clips have the same weight.
    moving: for each clip, the frames in which something moves, bool ``[T]``; None: not known. If fewer than half of the
    windows have such a frame, ``windows`` draws every second window from those, so that training sees what moves.
    """

    def __init__(
        self,
        lengths: list[int],
        windows: Windows,
        batch_size: int,
        sampling: Literal["windows", "clips"],
        seed: int,
        moving: list[np.ndarray] | None = None,
    ):
        self.all = training_windows(lengths, windows)
        self.batch_size, self.sampling, self.seed = batch_size, sampling, seed
        if sampling == "clips":
            self.by_clip = [self.all[self.all[:, 0] == clip] for clip in np.unique(self.all[:, 0])]
        self.in_pass = len(self.all) if sampling == "windows" else len(self.by_clip)
        self._order = lru_cache(maxsize=4)(self._shuffled)
        self.active_share = 1.0  # share of the windows in which something moves
        self._active = np.zeros(0, np.int64)
        if moving is not None and sampling == "windows":
            before = [np.concatenate(([0], np.cumsum(of_clip))) for of_clip in moving]
            ends = self.all[:, 1] + (windows.length - 1) * self.all[:, 2] + 1
            counts = [
                before[clip][end] - before[clip][start] for (clip, start, _), end in zip(self.all, ends, strict=True)
            ]
            active = np.flatnonzero(counts)
            self.active_share = len(active) / max(1, len(self.all))
            if self.active_share < 0.5:
                self._active = active

    def _shuffled(self, count: int, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, number]).permutation(count)

    def _pick(self, count: int, position: int) -> int:
        """The window at ``position`` of a training that draws ``count`` windows once per epoch."""
        return self._order(count, position // count)[position % count]

    def batch(self, iteration: int) -> np.ndarray:
        """Return the windows of an iteration (0-based): int64 ``[batch_size, 4]`` of (clip, start, stride, number).

        ``number`` counts the windows from the start of training.
        """
        positions = np.arange(iteration * self.batch_size, (iteration + 1) * self.batch_size)
        picks = [self._pick(self.in_pass, position) for position in positions.tolist()]
        if len(self._active):
            picks[1::2] = [
                self._active[self._pick(len(self._active), position)] for position in positions.tolist()[1::2]
            ]
        if self.sampling == "windows":
            chosen = self.all[picks]
        else:
            rng = np.random.default_rng([self.seed, 1, iteration])
            chosen = np.stack(
                [of_clip[rng.integers(len(of_clip))] for of_clip in (self.by_clip[pick] for pick in picks)]
            )
        return np.column_stack([chosen, positions])


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (exclusive) of a clip."""

    clip: ClipId
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def split_at_pauses(segments: list[Segment], frames: ClipStore) -> list[Segment]:
    """Divide segments where the recording pauses: no window, optical flow or background reaches over a pause."""
    parts = []
    for segment in segments:
        if not frames.has_times(segment.clip):
            parts.append(segment)
            continue
        seconds = frames.times(segment.clip)[segment.start : segment.stop]
        for start, stop in pieces(seconds, frames.attributes(segment.clip)["fps"]):
            parts.append(Segment(segment.clip, segment.start + start, segment.start + stop))
    return parts


def hold_out(
    lengths: dict[ClipId, int], share: float, seed: int, groups: dict[ClipId, str | None] | None = None
) -> tuple[list[Segment], list[Segment]]:
    """Split normal footage into (training, validation) segments.

    The validation segments are whole clips, chosen at random, at least one. Clips of the same group are kept together,
    unless all clips belong to one group. Footage without groups that has a clip of at least 2 * :data:`BLOCK` frames is
    divided into blocks of about that length, and every n-th block is held out, so that all hours and days of long
    recordings are in both parts. A single shorter clip holds out its last ``share``.

    Parameters
    ----------
    lengths: frames of each clip.
    share: share of the clips (of the groups, if given) for validation.
    seed: random seed.
    groups: group name of each clip; None: the clip has no group.
    """
    clips = sorted(lengths)
    if not clips:
        raise VadError("no training clips; the training split needs normal footage")
    known = {(groups or {}).get(clip) for clip in clips}
    if known == {None} and max(lengths.values()) >= 2 * BLOCK:
        return _hold_out_blocks({clip: lengths[clip] for clip in clips}, share, seed)
    if len(clips) == 1:
        (clip,) = clips
        cut = max(1, round(lengths[clip] * (1 - share)))
        if cut >= lengths[clip]:
            raise VadError(
                f"{clip}: {lengths[clip]} frames are too few to train on some and hold out others; give more footage"
            )
        return [Segment(clip, 0, cut)], [Segment(clip, cut, lengths[clip])]
    group = {clip: (groups or {}).get(clip) or str(clip) for clip in clips}
    if len(set(group.values())) == 1:
        group = {clip: str(clip) for clip in clips}
    names = list(dict.fromkeys(group.values()))  # in the order of the clips
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = {names[n] for n in np.random.default_rng([seed, 2]).permutation(len(names))[:count]}
    whole = [Segment(clip, 0, lengths[clip]) for clip in clips]
    return (
        [segment for segment in whole if group[segment.clip] not in chosen],
        [segment for segment in whole if group[segment.clip] in chosen],
    )


def _hold_out_blocks(lengths: dict[ClipId, int], share: float, seed: int) -> tuple[list[Segment], list[Segment]]:
    """Hold out evenly spaced blocks; neighbouring blocks of the same part become one segment."""
    blocks = blocks_of([Segment(clip, 0, length) for clip, length in lengths.items()])
    count = min(max(1, round(share * len(blocks))), len(blocks) - 1)
    first = np.random.default_rng([seed, 2]).random()
    held = set(((np.arange(count) + first) * len(blocks) / count).astype(int).tolist())
    parts: tuple[list[Segment], list[Segment]] = ([], [])
    for number, block in enumerate(blocks):
        part = parts[number in held]
        if part and part[-1].clip == block.clip and part[-1].stop == block.start:
            block = Segment(block.clip, part.pop().start, block.stop)
        part.append(block)
    return parts


def blocks_of(segments: list[Segment]) -> list[Segment]:
    """Divide long segments into equal pieces of about :data:`BLOCK` frames; short ones stay whole."""
    blocks = []
    for segment in segments:
        count = max(1, round(len(segment) / BLOCK))
        edges = np.linspace(segment.start, segment.stop, count + 1).round().astype(int).tolist()
        blocks += [Segment(segment.clip, start, stop) for start, stop in pairwise(edges)]
    return blocks


@dataclass
class Batch:
    """A batch of windows on the model's device.

    Attributes
    ----------
    frames: float ``[B, T, C, H, W]`` in 0..1.
    clip: long ``[B]``, index of the clip.
    numbers: long ``[B, T]``, frame numbers.
    flow: float ``[B, T-1, 2, H, W]``, motion from each frame to the next in pixels of ``frames``, or None.
    background: float ``[B, C, H, W]`` in 0..1, the static background of each window, or None.
    """

    frames: Tensor
    clip: Tensor
    numbers: Tensor
    flow: Tensor | None = None
    background: Tensor | None = None
