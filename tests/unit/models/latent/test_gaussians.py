"""Densities of Gaussians and mixtures: compared with torch.distributions, with gradient checks."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from vadcore.models.latent.gaussians import (
    bounded,
    divergence,
    divergence_from_standard,
    draw,
    mixture_negative_log_likelihood,
    negative_log_likelihood,
)


def normal(*shape, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


@pytest.fixture
def two():
    """Means and log sigmas of two Gaussians in 5 dimensions, for 3 x 4 points."""
    return [normal(3, 4, 5, seed=seed) for seed in range(4)]


def test_divergence_matches_torch(two):
    mean, log_sigma, other_mean, other_log_sigma = two
    expected = kl_divergence(Normal(mean, log_sigma.exp()), Normal(other_mean, other_log_sigma.exp())).sum(-1)
    torch.testing.assert_close(divergence(*two), expected, rtol=1e-5, atol=1e-5)
    expected = kl_divergence(Normal(mean, log_sigma.exp()), Normal(torch.zeros(5), torch.ones(5))).sum(-1)
    torch.testing.assert_close(divergence_from_standard(mean, log_sigma), expected, rtol=1e-5, atol=1e-5)


def test_divergence_from_itself_is_zero(two):
    assert divergence(two[0], two[1], two[0], two[1]).abs().max() < 1e-12


def test_likelihood_matches_torch(two):
    z, mean, log_sigma, _ = two
    expected = -Normal(mean, log_sigma.exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(negative_log_likelihood(z, mean, log_sigma), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("far", [0.0, 1e3])
def test_mixture_likelihood_matches_torch(far):
    """Also where the densities of all components underflow."""
    z, logits = normal(3, 5) + far, normal(3, 7, seed=1)
    means, log_sigmas = normal(3, 7, 5, seed=2), normal(3, 7, 5, seed=3)
    parts = Independent(Normal(means, log_sigmas.exp()), 1)
    expected = -MixtureSameFamily(Categorical(logits=logits), parts).log_prob(z)
    found = mixture_negative_log_likelihood(z, logits, means, log_sigmas)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_mixture_of_one_is_a_gaussian(two):
    z, mean, log_sigma, _ = two
    mixed = mixture_negative_log_likelihood(z, torch.zeros(3, 4, 1), mean.unsqueeze(-2), log_sigma.unsqueeze(-2))
    torch.testing.assert_close(mixed, negative_log_likelihood(z, mean, log_sigma))


def test_gradients_match_finite_differences(two):
    given = [part[0].clone().requires_grad_() for part in two]
    assert torch.autograd.gradcheck(divergence, given)
    assert torch.autograd.gradcheck(divergence_from_standard, given[:2])
    assert torch.autograd.gradcheck(negative_log_likelihood, given[:3])
    mixture = [normal(2, 5), normal(2, 3, seed=1), normal(2, 3, 5, seed=2), normal(2, 3, 5, seed=3)]
    assert torch.autograd.gradcheck(mixture_negative_log_likelihood, [part.requires_grad_() for part in mixture])


def test_gradient_of_a_distant_mixture():
    means = torch.tensor([[0.0], [50.0]], requires_grad=True)
    z = torch.full((1,), 200.0)
    mixture_negative_log_likelihood(z, torch.zeros(2), means, torch.zeros(2, 1)).backward()
    assert means.grad.isfinite().all()
    torch.testing.assert_close(means.grad, torch.tensor([[0.0], [-150.0]]))


def test_log_sigmas_are_bounded():
    assert bounded(torch.tensor([-1e6, 1e6])).tolist() == [-6.0, 6.0]
    torch.testing.assert_close(bounded(torch.tensor([0.1])), torch.tensor([0.1]), rtol=1e-3, atol=0)


def test_draws_have_the_given_mean_and_spread():
    torch.manual_seed(0)
    drawn = draw(torch.full((50_000,), 3.0), torch.full((50_000,), -1.0))
    assert float(drawn.mean()) == pytest.approx(3.0, abs=0.02)
    assert float(drawn.std().log()) == pytest.approx(-1.0, abs=0.02)
