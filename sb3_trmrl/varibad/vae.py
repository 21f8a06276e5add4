"""The variational autoencoder of VariBAD: decoders, the evidence lower bound (ELBO) and its maximisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch as th
import torch.nn.functional as F
from stable_baselines3.common.utils import update_learning_rate
from torch import nn

from sb3_trmrl.varibad.networks import Decoder, Encoder, Gaussian, Standardizer
from sb3_trmrl.varibad.trials import Batch

if TYPE_CHECKING:
    from sb3_trmrl.varibad.varibad import VariBAD

#: Names of the losses in the log
_LOGGED = ("vae_loss", "kl", "reward_reconstruction", "state_reconstruction")


class Losses(NamedTuple):
    """
    The terms of the loss.

    :param loss: The negative ELBO of all sampled terms, divided by the number of pairs of a term and a transition
    :param kl: Mean KL divergence of a posterior from the previous one
    :param reward: Mean loss of a decoded reward, or None without a reward decoder
    :param state: Mean loss of a decoded state, or None without a state decoder
    """

    loss: th.Tensor
    kl: th.Tensor
    reward: th.Tensor | None
    state: th.Tensor | None


class Decoders(nn.Module):
    """
    The decoders of rewards and states.

    :param state_dim: Size S of a state
    :param action_dim: Size A of an encoded action
    :param latent_dim: Size L of the latent
    :param reward_arch: Hidden layers of the reward decoder, None for no reward decoder
    :param state_arch: Hidden layers of the state decoder, None for no state decoder
    :param reward_inputs: What the reward decoder reads: ``"state"``, ``"action"``, ``"next_state"``
    :param reward_distribution: ``"gaussian"``, or ``"bernoulli"`` of whether the reward is positive
    :param standardize: Whether targets that are not Bernoulli are standardised with running statistics
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        latent_dim: int,
        reward_arch: Sequence[int] | None,
        state_arch: Sequence[int] | None,
        reward_inputs: Sequence[str],
        reward_distribution: str,
        standardize: bool,
    ) -> None:
        super().__init__()
        self.reward_inputs = tuple(reward_inputs)
        self.is_bernoulli = reward_distribution == "bernoulli"
        sizes = {"state": state_dim, "action": action_dim, "next_state": state_dim}
        self.reward: Decoder | None = None
        self.state: Decoder | None = None
        if reward_arch is not None:
            self.reward = Decoder(latent_dim, sum(sizes[each] for each in reward_inputs), reward_arch, 1)
        if state_arch is not None:
            self.state = Decoder(latent_dim, state_dim + action_dim, state_arch, state_dim)
        self.reward_standardizer: nn.Module = nn.Identity()
        self.state_standardizer: nn.Module = nn.Identity()
        if standardize:
            self.reward_standardizer, self.state_standardizer = Standardizer(1), Standardizer(state_dim)

    def update_statistics(self, batch: Batch) -> None:
        """Include the targets of new trials in the running statistics."""
        if isinstance(self.reward_standardizer, Standardizer):
            self.reward_standardizer.update(batch.rewards[batch.steps])
        if isinstance(self.state_standardizer, Standardizer) and batch.has_next_state.any():
            self.state_standardizer.update(batch.next_tokens().state[batch.has_next_state])

    def reward_losses(self, latents: th.Tensor, batch: Batch, chosen: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param latents: Latents, (B, K, L)
        :param batch: Trials
        :param chosen: Indices of steps of each trial, (B, M)
        :return: Loss of each latent at each step, (B, K, M), and whether the step can be decoded, (B, M)
        """
        assert self.reward is not None
        parts = {"state": batch.tokens.state[:, :-1], "action": batch.actions, "next_state": batch.next_tokens().state}
        inputs = th.cat([_gather(parts[each], chosen) for each in self.reward_inputs], dim=-1)
        predicted = self.reward(latents, inputs).squeeze(-1)
        rewards = _gather(batch.rewards, chosen)
        if self.is_bernoulli:
            target = (rewards > 0).float().transpose(1, 2).expand_as(predicted)
            losses = F.binary_cross_entropy_with_logits(predicted, target, reduction="none")
        else:
            losses = (predicted - self.reward_standardizer(rewards).transpose(1, 2)) ** 2
        can_decode = batch.has_next_state if "next_state" in self.reward_inputs else batch.steps
        return losses, can_decode.gather(1, chosen)

    def state_losses(self, latents: th.Tensor, batch: Batch, chosen: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """As :meth:`reward_losses`, for the next state, given state and action; the mean over its entries"""
        assert self.state is not None
        inputs = th.cat([batch.tokens.state[:, :-1], batch.actions], dim=-1)
        predicted = self.state(latents, _gather(inputs, chosen))
        target = self.state_standardizer(_gather(batch.next_tokens().state, chosen)).unsqueeze(1)
        return ((predicted - target) ** 2).mean(dim=-1), batch.has_next_state.gather(1, chosen)


def _gather(values: th.Tensor, chosen: th.Tensor) -> th.Tensor:
    """Return values, (B, T, F), at indices, (B, M): (B, M, F)."""
    return values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def choose(allowed: th.Tensor, n: int | None) -> tuple[th.Tensor, th.Tensor]:
    """
    Choose different steps of each trial at random.

    :param allowed: Mask of the steps of each trial, (B, T)
    :param n: Number of steps, None for all
    :return: Indices, (B, M) with M at most n, and a mask of those that are allowed: a trial may have fewer steps
    """
    n_trials, n_steps = allowed.shape
    if n is None or n >= n_steps:
        return th.arange(n_steps, device=allowed.device).expand(n_trials, -1), allowed
    order = th.rand(n_trials, n_steps, device=allowed.device).masked_fill(~allowed, -1.0)
    chosen = order.topk(n, dim=1).indices
    return chosen, allowed.gather(1, chosen)


def elbo_losses(
    encoder: Encoder,
    decoders: Decoders,
    batch: Batch,
    kl_weight: float,
    n_terms: int | None = None,
    n_transitions: int | None = None,
    bptt_steps: int | None = None,
) -> Losses:
    """
    Compute the negative ELBO. A term of it belongs to a time t from 0 (the prior) to the length of the trial: a sample
    of the posterior at t decodes transitions of the whole trial, before and after t, and the KL divergence is that from
    the posterior at t - 1, or from N(0, 1) at t = 0.

    :param encoder: Encoder
    :param decoders: Decoders
    :param batch: Trials
    :param kl_weight: Weight of the KL divergence
    :param n_terms: Number of terms of each trial, drawn at random, None for all
    :param n_transitions: Number of decoded transitions of each trial, drawn at random, None for all
    :param bptt_steps: Number of steps after which the encoder's gradient is cut, None for no limit
    :return: The losses
    """
    n_trials = len(batch.lengths)
    hidden = encoder.encode(batch.next_tokens(), bptt_steps=bptt_steps)
    hidden = th.cat([encoder.empty(n_trials).unsqueeze(1), hidden], dim=1)
    posteriors = encoder.posterior(hidden)
    standard = Gaussian(*(th.zeros_like(part[:, :1]) for part in posteriors))
    previous = Gaussian(*(th.cat(parts, dim=1)[:, :-1] for parts in zip(standard, posteriors, strict=True)))

    times = th.cat([th.ones_like(batch.steps[:, :1]), batch.steps], dim=1)
    terms, is_term = choose(times, n_terms)
    steps, is_step = choose(batch.steps, n_transitions)
    divergences = posteriors.kl_to(previous).gather(1, terms)[is_term]
    latents = Gaussian(*(_gather(part, terms) for part in posteriors)).sample()

    total = kl_weight * divergences.sum()
    means: list[th.Tensor | None] = []
    for is_used, decode in ((decoders.reward, decoders.reward_losses), (decoders.state, decoders.state_losses)):
        if is_used is None:
            means.append(None)
            continue
        losses, can_decode = decode(latents, batch, steps)
        used = losses[is_term.unsqueeze(2) & (is_step & can_decode).unsqueeze(1)]
        total = total + used.sum()
        means.append(used.mean() if len(used) else used.sum())
    n_pairs = (is_term.sum(dim=1) * is_step.sum(dim=1)).sum()
    return Losses(total / n_pairs, divergences.mean(), *means)


def update(model: VariBAD, n_updates: int) -> None:
    """
    Update encoder and decoders with batches from the model's buffer of trials, and log the means of the losses.

    :param model: Model
    :param n_updates: Number of gradient steps
    :raises FloatingPointError: if a gradient is not finite
    """
    make_batch, optimizer = model.batch_maker(), model.vae_optimizer
    update_learning_rate(optimizer, model.vae_lr_schedule(model._current_progress_remaining))
    logged: dict[str, list[float]] = {}
    for _ in range(n_updates):
        losses = elbo_losses(
            model.policy.encoder,
            model.decoders,
            make_batch(model.trial_buffer.sample(model.vae_batch_trials)),
            model.kl_weight,
            model.n_elbo_terms,
            model.n_decoded_transitions,
            model.vae_bptt_steps,
        )
        optimizer.zero_grad()
        losses.loss.backward()
        norm = th.nn.utils.clip_grad_norm_(model.vae_parameters(), model.vae_max_grad_norm)
        if not th.isfinite(norm):
            raise FloatingPointError(
                f"non-finite gradient of the autoencoder (its norm is {norm.item()}): the weights were not changed. "
                "Try `standardize_targets`, or lower `vae_learning_rate`"
            )
        optimizer.step()
        for name, value in zip(_LOGGED, losses, strict=True):
            if value is not None:
                logged.setdefault(name, []).append(value.item())
    # PPO would include these gradients when it clips those of the policy's parameters
    optimizer.zero_grad(set_to_none=True)
    for name, values in logged.items():
        model.logger.record(f"train/{name}", sum(values) / len(values))
