"""The posterior is the product of the prior and a Gaussian factor of each transition."""

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.distributions import Normal, kl_divergence

from sb3_trmrl.pearl.encoder import ContextEncoder, Posterior, prior

N, L, D = 7, 3, 6


@pytest.fixture
def encoder() -> ContextEncoder:
    th.manual_seed(0)
    return ContextEncoder(D, L, [16, 16], nn.ReLU)


@pytest.fixture
def transitions() -> th.Tensor:
    return th.randn(4, N, D, generator=th.Generator().manual_seed(1))


def test_the_order_of_transitions_does_not_matter(encoder: ContextEncoder, transitions: th.Tensor) -> None:
    shuffled = transitions[:, th.randperm(N, generator=th.Generator().manual_seed(2))]
    for expected, found in zip(encoder(transitions), encoder(shuffled), strict=True):
        th.testing.assert_close(found, expected)


def test_the_posterior_is_the_normalised_product_of_the_densities(
    encoder: ContextEncoder, transitions: th.Tensor
) -> None:
    grid = np.linspace(-4, 4, 40_001)
    posterior = encoder(transitions)
    output = encoder.net(transitions).detach()
    for task in range(len(transitions)):
        for component in range(L):
            log_density = -0.5 * grid**2
            for mean, raw in output[task][:, [component, L + component]].tolist():
                log_density = log_density - 0.5 * (grid - mean) ** 2 / np.log1p(np.exp(raw))
            weights = np.exp(log_density - log_density.max())
            weights /= weights.sum()
            mean = (weights * grid).sum()
            std = np.sqrt((weights * (grid - mean) ** 2).sum())
            assert posterior.mean[task, component].item() == pytest.approx(mean, abs=1e-4)
            assert posterior.std[task, component].item() == pytest.approx(std, abs=1e-4)


def test_no_transitions_give_the_prior(encoder: ContextEncoder) -> None:
    for expected, found in zip(prior(4, L, device=th.device("cpu")), encoder(th.zeros(4, 0, D)), strict=True):
        assert th.equal(found, expected)


def test_kl_to_the_prior(encoder: ContextEncoder, transitions: th.Tensor) -> None:
    posterior = encoder(transitions)
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum(dim=1)
    th.testing.assert_close(posterior.kl_to_prior(), expected)


def test_samples_have_the_mean_and_the_deviation_of_the_posterior() -> None:
    th.manual_seed(0)
    posterior = Posterior(th.tensor([4.0]).expand(20_000, 1), th.tensor([-8.0]).expand(20_000, 1))
    samples = posterior.sample()
    assert samples.mean().item() == pytest.approx(-2.0, abs=0.02)
    assert samples.std().item() == pytest.approx(0.5, abs=0.02)
