"""Run a model on footage: raw measures per frame and error maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vadcore.data.loader import ClipLoader
from vadcore.data.windows import scoring_windows
from vadcore.models.base import Model
from vadcore.models.components.error_maps import map_size, shrink
from vadcore.utils.device import autocast
from vadcore.utils.errors import VadError
from vadcore.utils.turns import take_turns

FRAMES_AT_ONCE = {"cpu": 80, "cuda": 640}  # frames in a batch of windows
MAP_MAX = "map_max"  # column name of ClipScores.map_max in tables of measures


@dataclass
class ClipScores:
    """Measures and error maps of one segment of footage with ``T`` frames.

    measures: name -> float32 ``[T]``. maps: float16 ``[T, h, w]``. Both are NaN for frames that no window scored.
    """

    measures: dict[str, np.ndarray]
    maps: np.ndarray

    @property
    def map_max(self) -> np.ndarray:
        """Maximum of each frame's error map, float32 ``[T]``; NaN for frames that no window scored."""
        return self.maps.max(axis=(1, 2)).astype(np.float32)


def score_clip(model: Model, footage: ClipLoader, number: int, dtype: torch.dtype = torch.float32) -> ClipScores:
    """Score segment ``number`` of ``footage`` with all scoring windows.

    A frame that several windows score gets their mean. Raises :class:`VadError` if an error map is not finite.
    """
    windows = model.windows
    length = footage.lengths[number]
    judged_at = np.array(windows.judged)
    kept = map_size(footage.size)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    map_sum = np.zeros((length, *kept), np.float32)
    map_count = np.zeros(length, np.int32)
    starts = scoring_windows(length, windows)
    size = max(1, FRAMES_AT_ONCE[footage.device.type] // windows.length)
    groups = [starts[first : first + size] for first in range(0, len(starts), size)]
    plan = [np.stack([np.full_like(group, number), group, np.ones_like(group)], axis=1) for group in groups]
    model.eval()
    with torch.inference_mode():
        batches = take_turns(footage.batches(plan, windows.length), footage.device.type)
        for group, batch in zip(groups, batches, strict=True):
            with autocast(footage.device, dtype):
                judged = model.predict_step(batch)
            frames = group[:, None] + judged_at  # [B, J], numbers inside the segment
            for name, values in judged.measures.items():
                values = values.float().cpu().numpy().astype(np.float64)  # [B, J]
                said = ~np.isnan(values)
                total = sums.setdefault(name, np.zeros(length))
                count = counts.setdefault(name, np.zeros(length, np.int64))
                np.add.at(total, frames[said], values[said])
                np.add.at(count, frames[said], 1)
            b, j, h, w = judged.maps.shape
            pooled = shrink(judged.maps.reshape(b * j, 1, h, w).float(), kept).view(b, j, *kept).cpu().numpy()
            if not np.isfinite(pooled).all():
                raise VadError(
                    f"{type(model).__name__}: its errors are not finite on {footage.segments[number].clip}, frames "
                    f"{frames.min()} to {frames.max()}; its weights are damaged: train it again"
                )
            for numbers, maps in zip(frames, pooled, strict=True):
                map_sum[numbers] += maps
                map_count[numbers] += 1
    unjudged = map_count == 0
    map_sum /= np.maximum(map_count, 1)[:, None, None]
    map_sum[unjudged] = np.nan
    measures = {
        name: np.where(counts[name] > 0, total / np.maximum(counts[name], 1), np.nan).astype(np.float32)
        for name, total in sums.items()
    }
    if not measures:  # segment shorter than one window: no frame is scored
        measures = {model.score: np.full(length, np.nan, np.float32)}
    return ClipScores(measures, map_sum.astype(np.float16))


def score_clips(model: Model, footage: ClipLoader, dtype: torch.dtype = torch.float32) -> Iterator[ClipScores]:
    """Apply :func:`score_clip` to every segment of ``footage``, in order."""
    for number in range(len(footage.segments)):
        yield score_clip(model, footage, number, dtype)
