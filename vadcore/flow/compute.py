"""Compute and store the optical flow between neighbouring frames of stored clips."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vadcore.data.store import ClipId, ClipStore, flow_to_fixed
from vadcore.flow.estimators import NETWORKS, create_estimator, identity
from vadcore.utils.code import code_digest
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of
from vadcore.utils.images import resize_picture
from vadcore.utils.turns import take_turns

BLOCK_PIXELS = 8 << 20  # pixels that are read, estimated and written at a time


def store_flow(
    clip: ClipId,
    frames_url: str | Path,
    flow_url: str | Path,
    estimator: str,
    options: dict,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
) -> bool:
    """Compute and store the flow of one clip.

    Does nothing if the store already has the flow of the same frames by the same estimator (same code, options and
    network weights). A clip of one frame has no flow and is skipped.

    Parameters
    ----------
    clip: the clip.
    frames_url, flow_url: stores of the frames and of the flow.
    estimator: name of the estimator.
    options: arguments of the estimator.
    size: [height, width] in pixels that frames are resized to first. The flow has this size, in pixels of this size.
        None: no resize.
    device: device of network estimators.

    Returns
    -------
    True if nothing had to be computed.
    """
    frames = ClipStore(frames_url, "frames")
    flow = ClipStore(flow_url, "flow", write=True, sweep=False)
    known = frames.attributes(clip)
    made_by = identity(estimator, options)
    made_from = {
        **made_by,
        "size": list(size) if size else None,
        "code": code_digest(["vadcore.flow.compute"]),
        "frames": digest_of([known["source_sha256"], known["extraction"]]),
    }
    if flow.has(clip, **made_from) or frames.length(clip) < 2:
        return True
    estimate = create_estimator(estimator, device, **options)
    height, width = size or frames.array(clip).shape[1:3]
    block = max(8, BLOCK_PIXELS // (height * width))
    starts = range(0, frames.length(clip) - 1, block)

    def read(start: int) -> np.ndarray:
        """Read a block of frames uint8 ``[n, H, W, C]``, plus one frame for the last pair."""
        pictures = frames.read(clip, start, start + block + 1)
        return np.stack([resize_picture(picture, size) for picture in pictures]) if size else pictures

    with flow.writer(clip) as writer:

        def write(fields: np.ndarray) -> None:
            if not np.isfinite(fields).all():
                raise VadError(
                    f"{clip}: {estimator} gives flow that is not finite; its weights are damaged, download them again"
                )
            writer.append(flow_to_fixed(fields))

        if device == "cpu" and estimator in NETWORKS:  # its threads use all cores; other threads would slow them down
            for start in take_turns(starts, device):
                pictures = read(start)
                write(estimate(pictures[:-1], pictures[1:]))
        else:
            _side_by_side(starts, read, lambda pictures: estimate(pictures[:-1], pictures[1:]), write)
        writer.update({**made_from, "fps": known["fps"]})
    return False


def _side_by_side(starts: range, read: Callable, work: Callable, write: Callable) -> None:
    """Run ``write(work(read(start)))`` for all ``starts``; reading, working and writing overlap."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(read, starts[0])
        written: Future[None] | None = None
        for following in (*starts[1:], None):
            given = ahead.result()
            if following is not None:
                ahead = reader.submit(read, following)
            made = work(given)
            if written is not None:
                written.result()
            written = writer.submit(write, made)
        if written is not None:
            written.result()
