"""The encoder of PEARL: a set of transitions gives a Gaussian posterior of the latent variable."""

from __future__ import annotations

from typing import NamedTuple

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

#: Smallest variance of a factor: an encoder that is too certain would give infinite precisions
_MIN_VARIANCE = 1e-7


class Posterior(NamedTuple):
    """
    A product of Gaussians with independent components, by its natural parameters: those of a product are the sums of
    those of its factors.

    :param precision: Inverse variances, (..., L)
    :param weighted_mean: Means times precisions, (..., L)
    """

    precision: th.Tensor
    weighted_mean: th.Tensor

    @property
    def mean(self) -> th.Tensor:
        """Means, (..., L)"""
        return self.weighted_mean / self.precision

    @property
    def std(self) -> th.Tensor:
        """Standard deviations, (..., L)"""
        return self.precision.rsqrt()

    def sample(self) -> th.Tensor:
        """Draw latents from PyTorch's generator, (..., L). Gradients reach the parameters."""
        return self.mean + self.std * th.randn_like(self.precision)

    def kl_to_prior(self) -> th.Tensor:
        """Return the KL divergences to the prior N(0, 1), summed over the components, (...)."""
        kl = 0.5 * (1 / self.precision + self.mean**2 - 1 + self.precision.log())
        return kl.sum(dim=-1)


def prior(*shape: int, device: th.device) -> Posterior:
    """Return the posterior of an empty set of transitions, N(0, 1)."""
    return Posterior(th.ones(shape, device=device), th.zeros(shape, device=device))


class ContextEncoder(nn.Module):
    """
    Each transition gives a Gaussian factor. The posterior of a set of transitions is the product of the factors and the
    prior N(0, 1), so that their order does not matter, and an empty set gives the prior.

    :param transition_dim: Numbers of a transition: state, action and reward
    :param latent_dim: Components L of the latent variable
    :param net_arch: Sizes of the hidden layers
    :param activation_fn: Activation function
    """

    optimizer: th.optim.Optimizer

    def __init__(
        self, transition_dim: int, latent_dim: int, net_arch: list[int], activation_fn: type[nn.Module]
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.net = nn.Sequential(*create_mlp(transition_dim, 2 * latent_dim, net_arch, activation_fn))

    def factors(self, transitions: th.Tensor) -> Posterior:
        """
        :param transitions: (..., D)
        :return: The Gaussian factor of each, (..., L)
        """
        mean, raw_variance = self.net(transitions).chunk(2, dim=-1)
        precision = 1 / nn.functional.softplus(raw_variance).clamp(min=_MIN_VARIANCE)
        return Posterior(precision, precision * mean)

    def forward(self, transitions: th.Tensor) -> Posterior:
        """
        :param transitions: Sets of N transitions, (..., N, D)
        :return: The posterior of each set, (..., L)
        """
        precision, weighted_mean = self.factors(transitions)
        return Posterior(1 + precision.sum(dim=-2), weighted_mean.sum(dim=-2))
