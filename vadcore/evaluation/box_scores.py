"""Scores of person-sized boxes of an error map, in place of the mean over the whole frame.

A small anomaly hardly changes the mean error of a frame. Two scores look at the box with the highest mean error instead.
Every system has them, beside its published score:

- ``map_box``: the highest mean of a box.
- ``map_moving_box``: the same after subtracting the static residue, the error that was there in the three frames before.
  Errors at edges and textures, which a model never reconstructs well, cancel out; so does an anomaly that stays. Liu et
  al. 2023, "Diversity-Measurable Anomaly Detection", subtract a similar residue.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vadcore.models.components.error_maps import highest_box

MAP_BOX, MAP_MOVING_BOX = "map_box", "map_moving_box"
BEFORE = 3  # error maps that the static residue is made from


class BoxScores:
    """Computes the scores of the frames of a stream, in order."""

    def __init__(self) -> None:
        self._before: Tensor | None = None  # the last error maps, [BEFORE, h, w]

    def add(self, maps: np.ndarray) -> dict[str, np.ndarray]:
        """Score the next frames.

        maps: their error maps, float32 ``[n, h, w]``; NaN for frames without a map. Returns name -> float32 ``[n]``. NaN:
        the frame has no map or, for ``map_moving_box``, one of the three frames before it has none.
        """
        new = torch.from_numpy(maps)
        if self._before is None:
            self._before = torch.full((BEFORE, *new.shape[1:]), torch.nan)
        series = torch.cat([self._before, new])
        self._before = series[len(series) - BEFORE :]
        lowest = torch.stack([series[k : k + len(new)] for k in range(BEFORE)]).amin(0)
        residue = F.max_pool2d(lowest[:, None], 3, stride=1, padding=1)[:, 0]  # also of edges that shake by one place
        return {
            MAP_BOX: highest_box(new).numpy(),
            MAP_MOVING_BOX: highest_box((new - residue).clamp(min=0)).numpy(),
        }
