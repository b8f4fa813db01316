"""Optical flow between neighbouring frames: estimators behind one interface, and the stage that stores their output.

An estimator is a function of two uint8 pictures ``[H, W, C]`` that returns float32 ``[2, H, W]``: the motion (right,
down) in pixels of each pixel of the first picture to the second.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from vadcore.files import digest_of, sha256_files
from vadcore.store import ClipId, ClipStore, flow_to_fixed

Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
BLOCK = 64  # frames read, estimated and written at a time


def dis(preset: str = "medium") -> Estimator:
    """Dense Inverse Search (Kroeger et al. 2016) as OpenCV has it. preset: ultrafast, fast or medium."""
    search = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))

    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return search.calc(_grey(first), _grey(second), None).transpose(2, 0, 1)  # [H, W, 2] -> [2, H, W]

    return estimate


def _grey(picture: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W, C]`` to ``[H, W]``."""
    return picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def create_estimator(name: str, **options) -> Estimator:
    """The estimator called ``name``; there is ``dis``."""
    return {"dis": dis}[name](**options)


def store_flow(clip: ClipId, frames_url: str | Path, flow_url: str | Path, estimator: str, options: dict) -> bool:
    """Write the flow of one clip, unless it is there, made from the same frames by the same estimator.

    Returns whether it was there. A clip of one frame has no flow and is left out.
    """
    frames = ClipStore(frames_url, "frames")
    flow = ClipStore(flow_url, "flow", write=True, sweep=False)
    known = frames.attributes(clip)
    identity = {
        "code": sha256_files(sorted(Path(__file__).parent.glob("*.py")))[:16],
        "estimator": estimator,
        "options": options,
        "frames": digest_of([known["source_sha256"], known["extraction"]]),
    }
    if flow.has(clip, **identity) or frames.length(clip) < 2:
        return True
    estimate = create_estimator(estimator, **options)
    with flow.writer(clip) as writer, ThreadPoolExecutor(max_workers=1) as compressor:
        pending = None
        for start in range(0, frames.length(clip) - 1, BLOCK):
            pictures = frames.read(clip, start, start + BLOCK + 1)  # one more, to be the second of the last pair
            fields = np.stack([flow_to_fixed(estimate(a, b)) for a, b in pairwise(pictures)])
            if pending:
                pending.result()
            pending = compressor.submit(writer.append, fields)
        pending.result()
        writer.update({**identity, "fps": known["fps"]})
    return False
