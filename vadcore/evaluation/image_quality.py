"""How close what a system shows comes to the footage: PSNR, SSIM and sharpness of pictures in 0..1.

Every function takes float pictures ``[N, C, H, W]`` in 0..1, works on their device in float32, whatever autocast says,
and gives one figure a picture, ``[N]``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGHEST_PSNR = 100.0  # dB, of pictures without any error; rounding to 8 bits alone leaves 58.9 dB
SIGMA, RADIUS = 1.5, 5  # of SSIM's Gaussian window: 11 x 11
C1, C2 = 0.01**2, 0.03**2  # (K L)^2 with the published K and L = 1, the range of values


def psnr(shown: Tensor, frames: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``-10 log10(mean squared error)`` as the peak is 1.

    Without any error it would be infinite and a mean over pictures with it; it is 100 dB at most.
    """
    error = (shown.float() - frames.float()).square().mean((1, 2, 3))
    return -10 * error.clamp(min=10 ** (-HIGHEST_PSNR / 10)).log10()


def ssim(shown: Tensor, frames: Tensor) -> Tensor:
    """Structural similarity, -1..1: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (IEEE TIP 2004): Gaussian window of 11 x 11 with sigma 1.5, K = 0.01 and 0.03, mean over the windows that lie wholly
    inside the picture and over its channels. In a picture smaller than the window, the window is cut to it.
    """
    with torch.autocast(shown.device.type, enabled=False):
        x, y = shown.float(), frames.float()
        # Variances do not depend on the brightness; near zero, differences of squares keep their digits.
        level_x, level_y = (part.mean((1, 2, 3), keepdim=True) for part in (x, y))
        x, y = x - level_x, y - level_y
        mean_x, mean_y = _blur(x), _blur(y)
        var_x = _blur(x * x) - mean_x * mean_x
        var_y = _blur(y * y) - mean_y * mean_y
        cov = _blur(x * y) - mean_x * mean_y
        mean_x, mean_y = mean_x + level_x, mean_y + level_y
        likeness = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        likeness *= (2 * cov + C2) / (var_x + var_y + C2)
        return likeness.mean((1, 2, 3))


def gradient(frames: Tensor) -> Tensor:
    """Mean length of the brightness gradient, from the differences to the neighbours at the right and below."""
    frames = frames.float()
    here = frames[..., :-1, :-1]
    return torch.hypot(frames[..., :-1, 1:] - here, frames[..., 1:, :-1] - here).mean((1, 2, 3))


class PictureQuality:
    """Means of the three figures over all pictures that were added."""

    def __init__(self):
        self._psnr: list[Tensor] = []
        self._ssim: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def add(self, shown: Tensor, frames: Tensor) -> None:
        """Pictures ``[N, C, H, W]`` in 0..1 that are shown, and the true ones. ValueError when the shapes differ."""
        if shown.shape != frames.shape:
            raise ValueError(
                f"pictures {tuple(shown.shape)} shown for frames {tuple(frames.shape)}: not the same shape"
            )
        self._psnr.append(psnr(shown, frames))
        self._ssim.append(ssim(shown, frames))
        self._gradients.append(torch.stack((gradient(shown), gradient(frames))))  # [2, N]

    def means(self) -> dict[str, float]:
        """``psnr`` (mean over pictures of each one's dB), ``ssim``, and ``sharpness``: the mean gradient of what is shown
        over that of the frames; 1 = as sharp, less = blurred, more = noise. A figure that is not finite is left out:
        frames without any gradient have no sharpness. Of no pictures there are no figures."""
        if not self._psnr:
            return {}
        shown, true = torch.cat(self._gradients, dim=1).mean(1).tolist()
        values = {
            "psnr": torch.cat(self._psnr).mean().item(),
            "ssim": torch.cat(self._ssim).mean().item(),
            "sharpness": shown / true if true else math.nan,
        }
        return {key: value for key, value in values.items() if math.isfinite(value)}


def _blur(x: Tensor) -> Tensor:
    """Weighted mean of each window inside the picture: ``[..., H, W]`` to ``[..., H - 10, W - 10]``.

    Two matrix products: many times faster than a convolution with one channel, and exact where a GPU's are not.
    """
    height, width = x.shape[-2:]
    radius = min(RADIUS, (min(height, width) - 1) // 2)
    return _windows(height, radius, x) @ x @ _windows(width, radius, x).T


def _windows(length: int, radius: int, like: Tensor) -> Tensor:
    """Row n holds the Gaussian weights of the window that starts at n: ``[length - 2 radius, length]``."""
    starts = torch.arange(length - 2 * radius, device=like.device)
    distance = torch.arange(length, device=like.device) - starts[:, None] - radius
    weights = torch.exp(-(distance**2) / (2 * SIGMA**2)) * (distance.abs() <= radius)
    return weights / weights.sum(1, keepdim=True)
