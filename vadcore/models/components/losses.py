"""Losses shared by several models or loss terms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gradient_difference(shown: Tensor, frames: Tensor) -> Tensor:
    """Gradient difference loss of pictures ``[B, C, H, W]``: mean of ``| |dx frames| - |dx shown| |``, plus that of dy.

    dx and dy are differences of neighbouring pixels, zero-padded at the border to one value per pixel. Mathieu et al. 2016,
    "Deep Multi-Scale Video Prediction beyond Mean Square Error", with exponent 1.
    """
    loss = frames.new_zeros(())
    for axis, pad in ((3, (0, 1, 0, 0)), (2, (0, 0, 0, 1))):
        steep = [F.pad(picture, pad).diff(dim=axis).abs() for picture in (shown, frames)]
        loss = loss + (steep[1] - steep[0]).abs().mean()
    return loss


def least_squares(verdict: Tensor, wanted: float) -> Tensor:
    """LSGAN loss: half the mean squared distance of a discriminator output from the target (Mao et al. 2017)."""
    return (verdict - wanted).square().mean() / 2
