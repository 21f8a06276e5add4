"""The update of PEARL: that of SB3's SAC, with a latent sample for each task, and the encoder's loss."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.utils import polyak_update
from torch.nn import functional as F

from sb3_trmrl.pearl.buffers import Transitions
from sb3_trmrl.pearl.encoder import Posterior

if TYPE_CHECKING:
    from sb3_trmrl.pearl.pearl import PEARL


def joined(states: th.Tensor, latents: th.Tensor) -> th.Tensor:
    """Return the input of actor and critics, (M * N, S + L), for states (M, N, S) and latents (M, L)."""
    repeated = latents[:, None].expand(-1, states.shape[1], -1)
    return th.cat((states, repeated), dim=2).flatten(end_dim=1)


def critic_loss(model: PEARL, batch: Transitions, latents: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
    """
    Return the squared errors of all critics, averaged over transitions. Its gradient reaches the latents through the
    critics' predictions, not through their targets.

    :param model: Algorithm
    :param batch: N transitions of each of M tasks
    :param latents: (M, L)
    :param ent_coef: Entropy coefficient
    """
    with th.no_grad():
        inputs = joined(batch.next_states, latents)
        actions, log_prob = model.actor.action_log_prob(inputs)
        q_values = th.cat(model.critic_target(inputs, actions), dim=1).min(dim=1, keepdim=True).values
        q_values = q_values - ent_coef * log_prob.reshape(-1, 1)
        rewards, dones = model.reward_scale * batch.rewards.flatten(end_dim=1), batch.dones.flatten(end_dim=1)
        targets = rewards + (1 - dones) * model.gamma * q_values
    predictions = model.critic(joined(batch.states, latents), batch.actions.flatten(end_dim=1))
    return th.stack([F.mse_loss(prediction, targets) for prediction in predictions]).sum()


def actor_loss(
    model: PEARL, inputs: th.Tensor, actions: th.Tensor, log_prob: th.Tensor, ent_coef: th.Tensor
) -> th.Tensor:
    """
    Return SAC's loss of the actor.

    :param model: Algorithm
    :param inputs: States and latents without gradient, (M * N, S + L)
    :param actions: Sampled actions, (M * N, A)
    :param log_prob: Their log probabilities, (M * N, 1)
    :param ent_coef: Entropy coefficient
    """
    q_values = th.cat(model.critic(inputs, actions), dim=1).min(dim=1, keepdim=True).values
    return (ent_coef * log_prob - q_values).mean()


def update(model: PEARL, gradient_steps: int) -> dict[str, float]:
    """
    Take gradient steps.

    :param model: Algorithm
    :param gradient_steps: Number of steps
    :return: Means of losses and statistics, by their keys of the log
    """
    sums: dict[str, th.Tensor] = defaultdict(lambda: th.zeros((), device=model.device))
    for step in range(gradient_steps):
        for key, value in _gradient_step(model).items():
            sums[key] += value.detach()
        if step % model.target_update_interval == 0:
            polyak_update(model.critic.parameters(), model.critic_target.parameters(), model.tau)
    return {key: float(value) / gradient_steps for key, value in sums.items()}


def _gradient_step(model: PEARL) -> dict[str, th.Tensor]:
    tasks = np.random.choice(model.n_train_tasks, model.meta_batch_size, replace=False)
    batch = model.replay_buffer.sample(tasks, model.batch_size)
    posterior: Posterior = model.encoder(model.replay_buffer.sample_context(tasks, model.context_batch_size))
    latents = posterior.sample()
    statistics: dict[str, th.Tensor] = {}

    inputs = joined(batch.states, latents.detach())
    actions, log_prob = model.actor.action_log_prob(inputs)
    log_prob = log_prob.reshape(-1, 1)
    if model.ent_coef_optimizer is not None and model.log_ent_coef is not None:
        ent_coef = model.log_ent_coef.detach().exp()
        assert isinstance(model.target_entropy, float)
        statistics["ent_coef_loss"] = -(model.log_ent_coef * (log_prob + model.target_entropy).detach()).mean()
        model.ent_coef_optimizer.zero_grad()
        statistics["ent_coef_loss"].backward()
        model.ent_coef_optimizer.step()
    else:
        ent_coef = model.ent_coef_tensor

    kl = posterior.kl_to_prior().sum()
    statistics["critic_loss"] = critic_loss(model, batch, latents, ent_coef)
    model.critic.optimizer.zero_grad()
    model.encoder.optimizer.zero_grad()
    (statistics["critic_loss"] + model.kl_weight * kl).backward()
    model.critic.optimizer.step()
    model.encoder.optimizer.step()

    statistics["actor_loss"] = actor_loss(model, inputs, actions, log_prob, ent_coef)
    model.actor.optimizer.zero_grad()
    # Without the weights of the critics, whose gradients would be thrown away
    statistics["actor_loss"].backward(inputs=list(model.actor.parameters()))
    model.actor.optimizer.step()

    return {
        **statistics,
        "ent_coef": ent_coef.mean(),
        "kl": kl / len(tasks),
        "latent_mean": posterior.mean.abs().mean(),
        "latent_std": posterior.std.mean(),
    }
