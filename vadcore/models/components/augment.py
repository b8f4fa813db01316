"""Data augmentation of training windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_windows(x: Tensor, most: int) -> Tensor:
    """Shift each window of ``x`` ``[B, T, C, H, W]`` by up to ``most`` pixels in each direction, with reflection padding.

    All frames of a window are shifted alike, which preserves the motion between them. ``most`` must be below H and W. Shifts
    are whole pixels, uniformly distributed, from torch's CPU generator, whose state is part of the checkpoint.
    """
    if not most:
        return x
    h, w = x.shape[3:]
    wide = F.pad(x.flatten(1, 2), (most,) * 4, mode="reflect").unflatten(1, x.shape[1:3])  # [B, T, C, H+2m, W+2m]
    corners = torch.randint(2 * most + 1, (len(x), 2)).tolist()
    moved = [window[..., top : top + h, left : left + w] for window, (top, left) in zip(wide, corners, strict=True)]
    return torch.stack(moved)
