"""Optical flow between neighbouring frames: estimators, FlowNet and its training, and the stage that stores flow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vadcore.files import digest_of, sha256_files
from vadcore.flow.estimators import Estimator, create_estimator, identity
from vadcore.pictures import resize_picture
from vadcore.store import ClipId, ClipStore, flow_to_fixed

__all__ = ["Estimator", "create_estimator", "store_flow"]

BLOCK = 64  # frames read, estimated and written at a time


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
        "code": digest_of([made_by["code"], sha256_files([Path(__file__)])]),
        "frames": digest_of([known["source_sha256"], known["extraction"]]),
    }
    if flow.has(clip, **made_from) or frames.length(clip) < 2:
        return True
    estimate = create_estimator(estimator, device, **options)

    def read(start: int) -> np.ndarray:
        """uint8 ``[n, H, W, C]``: a block, and one frame more, to be the second of the last pair."""
        pictures = frames.read(clip, start, start + BLOCK + 1)
        return np.stack([resize_picture(picture, size) for picture in pictures]) if size else pictures

    with flow.writer(clip) as writer, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as compressor:
        starts = range(0, frames.length(clip) - 1, BLOCK)
        written = None
        ahead = reader.submit(read, 0)
        for start in starts:
            pictures = ahead.result()
            if (following := start + BLOCK) in starts:
                ahead = reader.submit(read, following)
            fields = estimate(pictures[:-1], pictures[1:])
            if written:
                written.result()
            written = compressor.submit(lambda fields: writer.append(flow_to_fixed(fields)), fields)
        written.result()
        writer.update({**made_from, "fps": known["fps"]})
    return False
