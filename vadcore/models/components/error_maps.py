"""Where and how much a picture differs from the true one: the maps and frame measures of every system that shows one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

MAP_SIDE = 96  # error maps are kept with about so many pixels on the longer side
BLOCKS = 16  # max_patch_mse looks at squares of a 16th of the picture's height


def map_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size that error maps of frames of ``size`` are kept at: at most 96 pixels on the longer side.

    Frames are reduced by a whole factor where one that divides both sides is near, because that is much faster.
    """
    longer = max(size)
    least = -(-longer // MAP_SIDE)
    for factor in range(least, 2 * least + 1):
        if size[0] % factor == 0 and size[1] % factor == 0:
            return size[0] // factor, size[1] // factor
    scale = longer / MAP_SIDE
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def shrink(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Area average of ``[N, 1, h, w]`` to ``[N, 1, *size]``."""
    (h, w), (kept_h, kept_w) = maps.shape[2:], size
    if (h, w) == (kept_h, kept_w):
        return maps
    if h % kept_h == 0 and w % kept_w == 0:
        return F.avg_pool2d(maps, (h // kept_h, w // kept_w))
    return F.adaptive_avg_pool2d(maps, size)


def frame_errors(shown: Tensor, frames: Tensor, span: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    """Squared error of ``shown`` against ``frames``, both ``[B, T, C, H, W]``, in units of pictures in 0..1.

    span: what the whole range of brightness measures in the given values: 1 for 0..1, 2 for -1..1.

    Returns the measures ``mse`` (mean over the frame) and ``max_patch_mse`` (mean over the worst square block, a 16th of the
    height wide, half overlapping), each ``[B, T]``, and the error maps ``[B, T, h, w]``, reduced to :func:`map_size`.
    All is taken from the reduced maps where that changes nothing: passing over full-size errors is what costs.
    """
    b, t, c, h, w = frames.shape
    error = (shown - frames).square_()
    maps = error.view(b * t, 1, h, w) if c == 1 else error.mean(2).view(b * t, 1, h, w)
    whole = maps
    maps = shrink(maps, map_size((h, w))) / span**2  # [B*T, 1, h', w']
    block = max(1, round(maps.shape[2] / BLOCKS))
    worst = F.avg_pool2d(maps, block, stride=max(1, block // 2)).amax((1, 2, 3))
    overlap = h % maps.shape[2] or w % maps.shape[3]  # of blocks: then their mean is not quite the frame's
    mean = whole.mean((1, 2, 3)) / span**2 if overlap else maps.mean((1, 2, 3))
    measures = {"mse": mean.view(b, t), "max_patch_mse": worst.view(b, t)}
    return measures, maps.view(b, t, *maps.shape[2:])
