"""Scores that a timeline shows on hover: frame scores, because the drawn curve is downsampled.

Stored as float32 in base64, so a million scores take 5 MB of the page. For more footage, one number stands for several
frames and is their highest score, so the peak score of every alarm is kept. The page says which frames a number covers.
"""

from __future__ import annotations

import base64

import numpy as np

MOST = 1_000_000  # largest number of scores per data set in the page


def frames_a_reading(scores: int, most: int = MOST) -> int:
    """Return how many frames share one number if a data set has ``scores`` scores over all clips and systems."""
    return max(1, -(-scores // most))


def pack(frames: np.ndarray, scores: np.ndarray, threshold: float | None, every: int) -> str:
    """Encode the highest score of every ``every`` frames as little-endian float32 in base64.

    Parameters
    ----------
    frames, scores: ``[T]``, frame numbers increasing. NaN or a missing frame number = not scored.
    threshold: rounding to float32 never moves a score across it.
    every: 1 or more. The last number may cover fewer frames.

    Returns
    -------
    One number per ``every`` frames, from the first to the last. NaN where no frame was scored.
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
