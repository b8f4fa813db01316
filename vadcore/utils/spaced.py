"""Evenly spaced choice of items."""

from __future__ import annotations

import numpy as np


def spaced(length: int, count: int) -> np.ndarray:
    """Indices of at most ``count`` of ``length`` items, ascending int ``[n]``: evenly spaced, from the first to the last."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int)
