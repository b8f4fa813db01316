"""Deinterlace video frames, and detect interlaced frames that are not marked as such."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # PyAV is imported where a video is read: stored frames need no decoder
    import av

_SAMPLE, _EVERY = 10, 250  # frames in a row that are examined, of how many
_LEAST = 6  # frames with a verdict that are needed
_SHARE = 0.9  # of them with the same field order. On progressive pictures, wrong verdicts have either order

Numbered = Iterator[tuple[int, "av.VideoFrame"]]


def deinterlaced(frames: Numbered, stream) -> Numbered:
    """Yield (number, frame), from the first frame marked as interlaced on through FFmpeg's filter yadif."""
    graph = None
    waiting: deque[int] = deque()
    for number, frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield number, frame
            continue
        graph = graph or _filter(stream, "yadif", "deint=interlaced")
        waiting.append(number)
        graph.push(frame)
        for filtered in _pulled(graph):
            yield waiting.popleft(), filtered
    if graph is not None:
        graph.push(None)
        for filtered in _pulled(graph):
            yield waiting.popleft(), filtered


class FieldDetector:
    """Detect interlaced frames that the file does not mark as interlaced, by FFmpeg's filter idet on 10 of every 250 frames.

    Recorders and capture cards write such files: each frame holds two moments, one in the even and one in the odd rows.
    """

    def __init__(self) -> None:
        self._verdicts: Counter[str] = Counter()

    def watch(self, frames: Numbered, stream) -> Numbered:
        """Yield the frames unchanged."""
        graph, marked = None, False
        places: deque[int] = deque()
        for count, (number, frame) in enumerate(frames):
            marked = marked or frame.interlaced_frame
            if count % _EVERY < _SAMPLE and not marked:
                graph = graph or _filter(stream, "idet")
                graph.push(frame)
                places.append(count % _EVERY)
                for examined in _pulled(graph):
                    if 0 < places.popleft() < _SAMPLE - 1:  # idet compares a frame with both neighbours
                        self._verdicts[dict(examined.metadata)["lavfi.idet.single.current_frame"]] += 1
            yield number, frame

    @property
    def interlaced(self) -> bool:
        """Whether the frames so far are interlaced."""
        counted = self._verdicts["tff"] + self._verdicts["bff"] + self._verdicts["progressive"]
        same = max(self._verdicts["tff"], self._verdicts["bff"])
        return counted >= _LEAST and same >= _SHARE * counted


def _filter(stream, *filter: str):
    import av

    graph = av.filter.Graph()
    graph.link_nodes(graph.add_buffer(template=stream), graph.add(*filter), graph.add("buffersink")).configure()
    return graph


def _pulled(graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError):
            return
