"""Losses between pictures that more than one system, or more than one term of a system, can use."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gradient_difference(shown: Tensor, frames: Tensor) -> Tensor:
    """How unlike the edges of pictures ``[B, C, H, W]`` are: the mean of ``| |dx frames| - |dx shown| |``, plus that of dy.

    dx and dy are differences of neighbouring pixels, beyond the border zeros, so that each has a value a pixel. Mathieu et
    al. 2016, "Deep Multi-Scale Video Prediction beyond Mean Square Error", with exponent 1.
    """
    loss = frames.new_zeros(())
    for axis, pad in ((3, (0, 1, 0, 0)), (2, (0, 0, 0, 1))):
        steep = [F.pad(picture, pad).diff(dim=axis).abs() for picture in (shown, frames)]
        loss = loss + (steep[1] - steep[0]).abs().mean()
    return loss


def least_squares(verdict: Tensor, wanted: float) -> Tensor:
    """Half the mean squared distance of a discriminator's verdict from what it should say (Mao et al. 2017)."""
    return (verdict - wanted).square().mean() / 2
