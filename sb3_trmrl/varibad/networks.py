"""The networks of VariBAD's variational autoencoder, and running statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch import nn

from sb3_trmrl.algorithms.transitions import Token

#: Range of log-variances. A variance of 0 or infinity would make the KL divergence infinite
_LOG_VARIANCES = (-20.0, 10.0)


class Gaussian(NamedTuple):
    """
    Gaussians with independent dimensions.

    :param mean: (..., D)
    :param log_variance: (..., D)
    """

    mean: th.Tensor
    log_variance: th.Tensor

    def sample(self) -> th.Tensor:
        """Return one differentiable sample of each, (..., D)."""
        return self.mean + th.exp(0.5 * self.log_variance) * th.randn_like(self.mean)

    def kl_to(self, other: Gaussian) -> th.Tensor:
        """Return the KL divergence of each from the corresponding one of ``other``, (...)."""
        log_ratio = self.log_variance - other.log_variance
        distance = (self.mean - other.mean) ** 2 * th.exp(-other.log_variance)
        return 0.5 * (th.exp(log_ratio) + distance - 1 - log_ratio).sum(dim=-1)


class Encoder(nn.Module):
    """
    A GRU over transitions, whose hidden state gives the posterior of the task's latent. Before the first transition of
    a trial the hidden state is zero, and the posterior is the prior.

    :param state_dim: Size S of a state
    :param action_dim: Size A of an encoded action
    :param latent_dim: Size L of the latent
    :param hidden_size: Size H of the hidden state
    :param embedding_dims: Sizes of the embeddings of action, state and reward
    """

    def __init__(
        self, state_dim: int, action_dim: int, latent_dim: int, hidden_size: int, embedding_dims: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.latent_dim, self.hidden_size = latent_dim, hidden_size
        action, state, reward = embedding_dims
        self.action_embedding = nn.Sequential(nn.Linear(action_dim, action), nn.ReLU())
        self.state_embedding = nn.Sequential(nn.Linear(state_dim, state), nn.ReLU())
        self.reward_embedding = nn.Sequential(nn.Linear(1, reward), nn.ReLU())
        # The flag of a new inner episode needs no embedding
        self.gru = nn.GRU(action + state + reward + 1, hidden_size, batch_first=True)
        self.mean = nn.Linear(hidden_size, latent_dim)
        self.log_variance = nn.Linear(hidden_size, latent_dim)
        for name, parameter in self.gru.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def empty(self, n: int) -> th.Tensor:
        """Return the hidden states of ``n`` trials before their first transition, (n, H)."""
        return self.mean.weight.new_zeros(n, self.hidden_size)

    def step(self, token: Token, hidden: th.Tensor, starts: th.Tensor) -> th.Tensor:
        """
        Read the newest token of B trials.

        :param token: Tokens, which contain the previous transition
        :param hidden: Hidden states before it, (B, H)
        :param starts: Mask of trials that begin: their token contains no transition, (B,)
        :return: Hidden states, (B, H)
        """
        sequence = Token(*(each.unsqueeze(1) for each in token))
        after = self.encode(sequence, hidden)[:, 0]
        return after.masked_fill(starts.unsqueeze(1), 0.0)

    def encode(self, tokens: Token, hidden: th.Tensor | None = None, bptt_steps: int | None = None) -> th.Tensor:
        """
        Read sequences of T tokens.

        :param tokens: Tokens after the first of the trial, (B, T, ...)
        :param hidden: Hidden states before them, (B, H), zero by default
        :param bptt_steps: Number of steps after which the gradient is cut, None for no limit
        :return: Hidden states after each token, (B, T, H)
        """
        embedded = th.cat(
            [
                self.action_embedding(tokens.prev_action),
                self.state_embedding(tokens.state),
                self.reward_embedding(tokens.prev_reward),
                tokens.prev_done,
            ],
            dim=-1,
        )
        last = (self.empty(len(embedded)) if hidden is None else hidden).unsqueeze(0)
        parts = []
        for part in embedded.split(bptt_steps or max(1, embedded.shape[1]), dim=1):
            output, last = self.gru(part, last.detach())
            parts.append(output)
        return th.cat(parts, dim=1)

    def posterior(self, hidden: th.Tensor) -> Gaussian:
        """Return the posteriors of the latent, given hidden states, (..., H)."""
        return Gaussian(self.mean(hidden), self.log_variance(hidden).clamp(*_LOG_VARIANCES))

    def belief(self, hidden: th.Tensor) -> th.Tensor:
        """Return mean and log-variance of the posteriors side by side, (..., 2 L)."""
        return th.cat(self.posterior(hidden), dim=-1)


class Decoder(nn.Module):
    """
    A network with ReLU layers that predicts a property of each of M transitions from each of K latents.

    :param latent_dim: Size L of a latent
    :param input_dim: Size F of what is read of a transition
    :param arch: Sizes of the hidden layers
    :param output_dim: Size O of the prediction
    """

    def __init__(self, latent_dim: int, input_dim: int, arch: Sequence[int], output_dim: int) -> None:
        super().__init__()
        first, *others = [*arch, output_dim]
        # One layer on (latent, input). In two parts, each latent and each input is multiplied only once
        self.latent_layer = nn.Linear(latent_dim, first)
        self.input_layer = nn.Linear(input_dim, first, bias=False)
        layers: list[nn.Module] = []
        for before, after in zip([first, *others], others, strict=False):
            layers += [nn.ReLU(), nn.Linear(before, after)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: th.Tensor, inputs: th.Tensor) -> th.Tensor:
        """
        :param latents: Latents of B trials, (B, K, L)
        :param inputs: Transitions of the same trials, (B, M, F)
        :return: Predictions for all pairs, (B, K, M, O)
        """
        outputs: th.Tensor = self.layers(
            self.latent_layer(latents).unsqueeze(2) + self.input_layer(inputs).unsqueeze(1)
        )
        return outputs


class Standardizer(nn.Module):
    """
    Subtracts the running mean and divides by the running standard deviation. Before the first update it changes
    nothing.

    :param dim: Number of entries D
    :param window: Number of values after which older ones are forgotten exponentially
    :param clip: Largest absolute value of the result
    """

    mean: th.Tensor
    variance: th.Tensor
    count: th.Tensor

    def __init__(self, dim: int, window: float = math.inf, clip: float = 10.0) -> None:
        super().__init__()
        self.window, self.clip = window, clip
        self.register_buffer("mean", th.zeros(dim))
        self.register_buffer("variance", th.ones(dim))
        self.register_buffer("count", th.zeros(()))

    @th.no_grad()
    def update(self, values: th.Tensor) -> None:
        """Include values, (N, D)."""
        n = len(values)
        total = self.count + n
        mean, variance = values.mean(dim=0), values.var(dim=0, unbiased=False)
        if self.count == 0:
            self.mean.copy_(mean)
            self.variance.copy_(variance)
        else:
            delta = mean - self.mean
            self.variance.mul_(self.count / total).add_(variance * n / total)
            self.variance.add_(delta**2 * self.count * n / total**2)
            self.mean.add_(delta * n / total)
        self.count.copy_(total.clamp(max=self.window))

    def forward(self, values: th.Tensor) -> th.Tensor:
        """Standardise values, (..., D)."""
        # An entry that has always been the same has the variance 0
        scale = th.sqrt(self.variance + 1e-6)
        return ((values - self.mean) / scale).clamp(-self.clip, self.clip)
