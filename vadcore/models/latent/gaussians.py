"""Densities of latent vectors: Gaussians with diagonal covariance, and mixtures of them.

Means and log standard deviations have shape ``[..., Z]``. Likelihoods and divergences are summed over Z, ``[...]``, in nats.
Results agree with ``torch.distributions``; its objects and checks are avoided because this is the innermost loop.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_LOG_SIGMA = 6.0


def bounded(raw: Tensor) -> Tensor:
    """Limit a network output smoothly to -6..6, for use as log sigma, so that densities stay finite."""
    return LARGEST_LOG_SIGMA * torch.tanh(raw / LARGEST_LOG_SIGMA)


def draw(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Draw one sample with the reparameterisation trick: differentiable in mean and log sigma."""
    return mean + log_sigma.exp() * torch.randn_like(mean)


def negative_log_likelihood(z: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """``-log N(z; mean, sigma)``."""
    scaled = (z - mean) * (-log_sigma).exp()
    # separate sums need fewer passes over the large tensors of a mixture
    return scaled.square().sum(-1) / 2 + log_sigma.sum(-1) + z.shape[-1] * math.log(2 * math.pi) / 2


def divergence(mean: Tensor, log_sigma: Tensor, other_mean: Tensor, other_log_sigma: Tensor) -> Tensor:
    """Kullback-Leibler divergence of ``N(mean, sigma)`` from ``N(other_mean, other_sigma)``."""
    ratio = (2 * (log_sigma - other_log_sigma)).exp()
    distance = ((mean - other_mean) * (-other_log_sigma).exp()).square()
    return (other_log_sigma - log_sigma + (ratio + distance - 1) / 2).sum(-1)


def divergence_from_standard(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Kullback-Leibler divergence of ``N(mean, sigma)`` from ``N(0, 1)``: Kingma & Welling 2014, appendix B."""
    return ((2 * log_sigma).exp() / 2 + mean.square() / 2 - 0.5 - log_sigma).sum(-1)


def mixture_negative_log_likelihood(z: Tensor, logits: Tensor, means: Tensor, log_sigmas: Tensor) -> Tensor:
    """Negative log-likelihood of ``z`` ``[..., Z]`` under a mixture of Gaussians with diagonal covariance.

    logits: ``[..., K]``, unnormalised log weights. means, log_sigmas: ``[..., K, Z]``. Log-sum-exp prevents underflow and
    keeps the gradient of components far from ``z``. Graves 2013, "Generating Sequences With Recurrent Neural Networks", for
    Z dimensions.
    """
    of_each = negative_log_likelihood(z.unsqueeze(-2), means, log_sigmas)  # [..., K]
    return -torch.logsumexp(F.log_softmax(logits, dim=-1) - of_each, dim=-1)
