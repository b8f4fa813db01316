"""Compute optical flow between neighbouring frames of stored clips and store it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vadcore.data.store import ClipId, ClipStore, flow_to_fixed
from vadcore.flow.estimators import NETWORKS, create_estimator, identity
from vadcore.utils.code import code_digest
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of
from vadcore.utils.images import resize_picture
from vadcore.utils.turns import take_turns

BLOCK_PIXELS = 8 << 20  # read, estimated and written at a time


def store_flow(
    clip: ClipId,
    frames_url: str | Path,
    flow_url: str | Path,
    estimator: str,
    options: dict,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
) -> bool:
    """Write the flow of one clip, unless it is there, made from the same frames by the same estimator (its code, options
    and, where it is a network, weights).

    size: height and width that frames are brought to before, and of the flow, which is in pixels of that size; None: their
    own. device: where networks run. Returns whether it was there. A clip of one frame has no flow and is left out.
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
        """uint8 ``[n, H, W, C]``: a block, and one frame more, to be the second of the last pair."""
        pictures = frames.read(clip, start, start + block + 1)
        return np.stack([resize_picture(picture, size) for picture in pictures]) if size else pictures

    with flow.writer(clip) as writer:

        def write(fields: np.ndarray) -> None:
            if not np.isfinite(fields).all():
                raise VadError(
                    f"{clip}: {estimator} gives flow that is no number; its weights are damaged, fetch them anew"
                )
            writer.append(flow_to_fixed(fields))

        if device == "cpu" and estimator in NETWORKS:  # its threads fill the cores; others beside them make them wait
            for start in take_turns(starts, device):
                pictures = read(start)
                write(estimate(pictures[:-1], pictures[1:]))
        else:
            _side_by_side(starts, read, lambda pictures: estimate(pictures[:-1], pictures[1:]), write)
        writer.update({**made_from, "fps": known["fps"]})
    return False


def _side_by_side(starts: range, read: Callable, work: Callable, write: Callable) -> None:
    """``write(work(read(start)))`` for all, while one is worked at the next is read and the last is written."""
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(read, starts[0])
        written = None
        for following in (*starts[1:], None):
            given = ahead.result()
            if following is not None:
                ahead = reader.submit(read, following)
            made = work(given)
            if written:
                written.result()
            written = writer.submit(write, made)
        written.result()
