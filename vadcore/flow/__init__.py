"""Optical flow between neighbouring frames: estimators, FlowNet and its training, and the stage that stores flow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vadcore.files import digest_of, sha256_files
from vadcore.flow.estimators import Estimator, create_estimator, identity
from vadcore.store import ClipId, ClipStore, flow_to_fixed

__all__ = ["Estimator", "create_estimator", "store_flow"]

BLOCK = 64  # frames read, estimated and written at a time


def store_flow(
    clip: ClipId, frames_url: str | Path, flow_url: str | Path, estimator: str, options: dict, device: str = "cpu"
) -> bool:
    """Write the flow of one clip, unless it is there, made from the same frames by the same estimator (its code, options
    and, where it is a network, weights).

    device: where networks run. Returns whether it was there. A clip of one frame has no flow and is left out.
    """
    frames = ClipStore(frames_url, "frames")
    flow = ClipStore(flow_url, "flow", write=True, sweep=False)
    known = frames.attributes(clip)
    made_by = identity(estimator, options)
    made_from = {
        **made_by,
        "code": digest_of([made_by["code"], sha256_files([Path(__file__)])]),
        "frames": digest_of([known["source_sha256"], known["extraction"]]),
    }
    if flow.has(clip, **made_from) or frames.length(clip) < 2:
        return True
    estimate = create_estimator(estimator, device, **options)
    with flow.writer(clip) as writer, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as compressor:
        starts = range(0, frames.length(clip) - 1, BLOCK)
        written = None
        # one frame more, to be the second of the last pair
        ahead = reader.submit(frames.read, clip, 0, BLOCK + 1)
        for start in starts:
            pictures = ahead.result()
            if (following := start + BLOCK) in starts:
                ahead = reader.submit(frames.read, clip, following, following + BLOCK + 1)
            fields = estimate(pictures[:-1], pictures[1:])
            if written:
                written.result()
            written = compressor.submit(lambda fields: writer.append(flow_to_fixed(fields)), fields)
        written.result()
        writer.update({**made_from, "fps": known["fps"]})
    return False
