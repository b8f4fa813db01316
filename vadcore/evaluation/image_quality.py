"""Image quality of predicted or reconstructed pictures against the true frames: PSNR, SSIM and sharpness.

All functions take float pictures ``[N, C, H, W]`` in 0..1 and return one value per picture, ``[N]``. They compute on the
pictures' device in float32, even under autocast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGHEST_PSNR = 100.0  # dB, for pictures without error; rounding to 8 bits alone gives 58.9 dB
SIGMA, RADIUS = 1.5, 5  # Gaussian window of SSIM: 11 x 11
C1, C2 = 0.01**2, 0.03**2  # (K L)^2 with the published K and the value range L = 1


def psnr(shown: Tensor, frames: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (PSNR) in dB: ``-10 log10(mean squared error)``, because the peak is 1.

    Capped at 100 dB: pictures without error would give infinity and make a mean over pictures infinite.
    """
    error = (shown.float() - frames.float()).square().mean((1, 2, 3))
    return -10 * error.clamp(min=10 ** (-HIGHEST_PSNR / 10)).log10()


def ssim(shown: Tensor, frames: Tensor) -> Tensor:
    """Structural similarity (SSIM), -1..1.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (IEEE TIP 2004). Gaussian
    window of 11 x 11 with sigma 1.5, K = 0.01 and 0.03. Mean over all windows that lie fully inside the picture and over
    the channels. If the picture is smaller than the window, the window is cropped.
    """
    with torch.autocast(shown.device.type, enabled=False):
        x, y = shown.float(), frames.float()
        # Subtracting the mean leaves variances unchanged and keeps the differences of squares below accurate.
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
    """Mean gradient magnitude, from the differences to the right and the lower neighbour."""
    frames = frames.float()
    here = frames[..., :-1, :-1]
    return torch.hypot(frames[..., :-1, 1:] - here, frames[..., 1:, :-1] - here).mean((1, 2, 3))


class PictureQuality:
    """Accumulates PSNR, SSIM and sharpness over pictures and returns their means."""

    def __init__(self) -> None:
        self._psnr: list[Tensor] = []
        self._ssim: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def add(self, shown: Tensor, frames: Tensor) -> None:
        """Add pictures of a system, ``shown``, and the true ``frames``; both ``[N, C, H, W]`` in 0..1.

        Raises ValueError if the shapes differ.
        """
        if shown.shape != frames.shape:
            raise ValueError(
                f"pictures {tuple(shown.shape)} shown for frames {tuple(frames.shape)}: not the same shape"
            )
        self._psnr.append(psnr(shown, frames))
        self._ssim.append(ssim(shown, frames))
        self._gradients.append(torch.stack((gradient(shown), gradient(frames))))  # [2, N]

    def means(self) -> dict[str, float]:
        """Means over all pictures added so far; empty if there are none.

        ``psnr``: mean of the per-picture PSNR, dB. ``ssim``: mean SSIM. ``sharpness``: mean gradient of the shown
        pictures divided by that of the frames; 1 = equally sharp, below 1 = blurred, above 1 = noisy. Values that are
        not finite are left out, for example the sharpness of frames without any gradient.
        """
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
    """Gaussian-weighted mean of each window inside the picture: ``[..., H, W]`` to ``[..., H - 10, W - 10]``.

    Computed as two matrix products: many times faster than a one-channel convolution, and exact, which GPU
    convolutions are not.
    """
    height, width = x.shape[-2:]
    radius = min(RADIUS, (min(height, width) - 1) // 2)
    return _windows(height, radius, x) @ x @ _windows(width, radius, x).T


def _windows(length: int, radius: int, like: Tensor) -> Tensor:
    """Matrix of Gaussian weights ``[length - 2 radius, length]``: row n is the window that starts at n."""
    starts = torch.arange(length - 2 * radius, device=like.device)
    distance = torch.arange(length, device=like.device) - starts[:, None] - radius
    weights = torch.exp(-(distance**2) / (2 * SIGMA**2)) * (distance.abs() <= radius)
    return weights / weights.sum(1, keepdim=True)
