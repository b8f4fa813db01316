"""Error maps and frame errors of a reconstruction or prediction, shared by all models that make one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

MAP_SIDE = 96  # longer side of stored error maps, pixels (about)
BOX = (0.12, 0.08)  # height and width of a box of the size of a person, shares of those of the picture
BLOCKS = 16  # frame height over block side, for max_patch_mse


def map_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size ``(h, w)`` of stored error maps for frames of ``size``: at most 96 pixels on the longer side.

    Prefers an integer factor that divides both sides, if one is near, because average pooling by it is much faster.
    """
    longer = max(size)
    least = -(-longer // MAP_SIDE)
    for factor in range(least, 2 * least + 1):
        if size[0] % factor == 0 and size[1] % factor == 0:
            return size[0] // factor, size[1] // factor
    scale = longer / MAP_SIDE
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def shrink(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Downsample ``[N, 1, h, w]`` to ``[N, 1, *size]`` by area averaging."""
    (h, w), (kept_h, kept_w) = maps.shape[2:], size
    if (h, w) == (kept_h, kept_w):
        return maps
    if h % kept_h == 0 and w % kept_w == 0:
        return F.avg_pool2d(maps, (h // kept_h, w // kept_w))
    return F.adaptive_avg_pool2d(maps, size)


def highest_box(maps: Tensor) -> Tensor:
    """Highest mean of a box of the size of a person, :data:`BOX`, of each map: ``[N, h, w]`` to ``[N]``."""
    box = [max(1, round(share * side)) for share, side in zip(BOX, maps.shape[1:], strict=True)]
    return F.avg_pool2d(maps[:, None], box, stride=1).amax((1, 2, 3))


def gradient_error(shown: Tensor, frames: Tensor) -> Tensor:
    """Difference of the gradients of pictures ``[N, C, H, W]``, downsampled to :func:`map_size`: ``[N, h, w]``.

    It is ``|dx shown - dx frames| + |dy shown - dy frames|``, the mean over the channels.
    """
    error = shown - frames
    steep = F.pad(error.diff(dim=3), (1, 0, 0, 0)).abs() + F.pad(error.diff(dim=2), (0, 0, 1, 0)).abs()
    return shrink(steep.mean(1, keepdim=True), map_size((steep.shape[2], steep.shape[3])))[:, 0]


def frame_errors(shown: Tensor, frames: Tensor, span: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    """Compute frame errors and error maps of a reconstruction or prediction, in units of pictures in 0..1.

    Parameters
    ----------
    shown: reconstruction or prediction, ``[B, T, C, H, W]``.
    frames: true frames, same shape and range.
    span: width of the value range: 1 for values in 0..1, 2 for -1..1.

    Returns
    -------
    measures: ``mse`` (mean squared error of the frame) and ``max_patch_mse`` (that of the worst square block, with side
    1/16 of the height and half overlap), each ``[B, T]``. maps: squared error ``[B, T, h, w]``, downsampled to
    :func:`map_size`.
    """
    # computed on the downsampled maps where the result is the same: passes over the full-size errors are slow
    b, t, c, h, w = frames.shape
    error = (shown - frames).square_()
    maps = error.view(b * t, 1, h, w) if c == 1 else error.mean(2).view(b * t, 1, h, w)
    whole = maps
    maps = shrink(maps, map_size((h, w))) / span**2  # [B*T, 1, h', w']
    block = max(1, round(maps.shape[2] / BLOCKS))
    worst = F.avg_pool2d(maps, block, stride=max(1, block // 2)).amax((1, 2, 3))
    # where the blocks of the downsampling overlap, the mean of the maps differs slightly from that of the frame
    overlap = h % maps.shape[2] or w % maps.shape[3]
    mean = whole.mean((1, 2, 3)) / span**2 if overlap else maps.mean((1, 2, 3))
    measures = {"mse": mean.view(b, t), "max_patch_mse": worst.view(b, t)}
    return measures, maps.view(b, t, *maps.shape[2:])
