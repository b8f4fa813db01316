"""Windows of footage, varied in training so that few clips teach more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_windows(x: Tensor, most: int) -> Tensor:
    """Move each window of ``x`` ``[B, T, C, H, W]`` as a whole, by up to ``most`` pixels each way; edges are mirrored.

    All frames of a window move alike, so that what moves in it keeps its motion. ``most`` is below H and W. The
    displacements are whole pixels, evenly distributed, from torch's generator of the CPU, whose state a checkpoint holds.
    """
    if not most:
        return x
    h, w = x.shape[3:]
    wide = F.pad(x.flatten(1, 2), (most,) * 4, mode="reflect").unflatten(1, x.shape[1:3])  # [B, T, C, H+2m, W+2m]
    corners = torch.randint(2 * most + 1, (len(x), 2)).tolist()
    moved = [window[..., top : top + h, left : left + w] for window, (top, left) in zip(wide, corners, strict=True)]
    return torch.stack(moved)
