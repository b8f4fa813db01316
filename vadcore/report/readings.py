"""The scores that a timeline reads out: those of its frames, not of its curve, which is thinned to what a screen can show.

They travel as float32 in base64, so that a page holds a million of them in 5 MB. Of more footage than that, one number
stands for several frames, the highest of them: no alarm's score is lost, and the page says which frames it is about.
"""

from __future__ import annotations

import base64

import numpy as np

MOST = 1_000_000  # scores of a data set that the page carries


def frames_a_reading(scores: int, most: int = MOST) -> int:
    """Of how many frames one number is carried where a data set has so many ``scores``, over all clips and systems."""
    return max(1, -(-scores // most))


def pack(frames: np.ndarray, scores: np.ndarray, threshold: float | None, every: int) -> str:
    """The highest score of every ``every`` frames, from the first to the last: little-endian float32 in base64.

    Parameters
    ----------
    frames, scores: ``[T]``, frame numbers increasing; NaN = not judged, and so is a number that is missing.
    threshold: rounding to float32 takes no score across it.
    every: 1 or more; the last number may be of fewer frames.

    Returns
    -------
    One number for each ``every`` frames; NaN where none of them was judged.
    """
    frames, scores = np.asarray(frames, np.int64), np.asarray(scores, np.float64)
    highest = np.full((frames[-1] - frames[0]) // every + 1, np.nan)
    np.fmax.at(highest, (frames - frames[0]) // every, scores)
    rounded = highest.astype("<f4")
    if threshold is not None:
        over = highest >= threshold
        crossed = (rounded.astype(np.float64) >= threshold) != over
        rounded[crossed] = np.nextafter(rounded[crossed], np.where(over[crossed], np.inf, -np.inf).astype("<f4"))
    return base64.b64encode(rounded.tobytes()).decode()
