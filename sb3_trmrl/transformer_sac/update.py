"""
The update of SB3's SAC, on batches of memories.

SB3's method encodes what does not change again, and computes gradients that it then discards, which transformers make
costly. The losses and gradients are the same.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.utils import polyak_update
from torch.nn import functional as F

from sb3_trmrl.memory.replay_buffer import MemoryReplaySamples
from sb3_trmrl.transformer_sac.policies import Encoded

if TYPE_CHECKING:
    from sb3_trmrl.transformer_sac.transformer_sac import TransformerSAC


def update(model: TransformerSAC, gradient_steps: int, batch_size: int) -> dict[str, float]:
    """
    Take gradient steps.

    :param model: Algorithm
    :param gradient_steps: Number of steps
    :param batch_size: Transitions of each step
    :return: Means of losses and statistics, by their keys of the log
    :raises FloatingPointError: if a loss is not finite
    """
    sums: dict[str, float] = defaultdict(float)
    for step in range(gradient_steps):
        batch = model.replay_buffer.sample(batch_size, env=model._vec_normalize_env)
        for key, value in gradient_step(model, batch).items():
            sums[key] += value
        if step % model.target_update_interval == 0:
            polyak_update(model.critic.parameters(), model.critic_target.parameters(), model.tau)
            polyak_update(model.batch_norm_stats, model.batch_norm_stats_target, 1.0)
    return {key: value / gradient_steps for key, value in sums.items()}


def gradient_step(model: TransformerSAC, batch: MemoryReplaySamples) -> dict[str, float]:
    """
    Update entropy coefficient, critics and actor.

    :param model: Algorithm
    :param batch: Transitions
    :return: Losses and statistics
    :raises FloatingPointError: if a loss is not finite
    """
    actor, critic = model.actor, model.critic
    observations: Encoded | None = None
    if model.policy.share_features_extractor:  # one pass for both
        observations = Encoded(actor.features_extractor(batch.observations))
    # We need to sample because `log_std` may have changed between two gradient steps
    if model.use_sde:
        actor.reset_noise()
    actions, log_prob = actor.action_log_prob(observations or batch.observations)  # type: ignore[arg-type]
    log_prob = log_prob.reshape(-1, 1)
    statistics, ent_coef = _update_ent_coef(model, log_prob)

    targets = _targets(model, batch, ent_coef)
    predictions = critic(observations or batch.observations, batch.actions)
    critic_loss = 0.5 * th.stack([F.mse_loss(prediction, targets) for prediction in predictions]).sum()
    statistics["critic_loss"] = _finite("critic", critic_loss)
    critic.optimizer.zero_grad()
    critic_loss.backward()
    critic.optimizer.step()

    # The actor's loss depends on the actor through the actions only, not through what the critics remember
    with th.no_grad():
        is_current = observations is not None and not critic.trains_memory
        memories = observations if is_current else batch.observations
        features = critic.extract_features(memories, critic.features_extractor)
    q_values = th.cat(critic.q_values(features, actions), dim=1).min(dim=1, keepdim=True).values
    actor_loss = (ent_coef * log_prob - q_values).mean()
    statistics["actor_loss"] = _finite("actor", actor_loss)
    actor.optimizer.zero_grad()
    # Without the weights of the critics, whose gradients would be thrown away
    actor_loss.backward(inputs=[each for group in actor.optimizer.param_groups for each in group["params"]])
    actor.optimizer.step()
    return statistics


def _update_ent_coef(model: TransformerSAC, log_prob: th.Tensor) -> tuple[dict[str, float], th.Tensor]:
    """Update the entropy coefficient. Return statistics and the coefficient before the update."""
    if model.ent_coef_optimizer is None or model.log_ent_coef is None:
        return {"ent_coef": model.ent_coef_tensor.item()}, model.ent_coef_tensor
    ent_coef = model.log_ent_coef.detach().exp()
    assert isinstance(model.target_entropy, float)
    loss = -(model.log_ent_coef * (log_prob + model.target_entropy).detach()).mean()
    model.ent_coef_optimizer.zero_grad()
    loss.backward()
    model.ent_coef_optimizer.step()
    return {"ent_coef": ent_coef.item(), "ent_coef_loss": loss.item()}, ent_coef


def _targets(model: TransformerSAC, batch: MemoryReplaySamples, ent_coef: th.Tensor) -> th.Tensor:
    """Return the targets of the critics, (B, 1)."""
    with th.no_grad():
        actions, log_prob = model.actor.action_log_prob(batch.next_observations)  # type: ignore[arg-type]
        q_values = th.cat(model.critic_target(batch.next_observations, actions), dim=1).min(dim=1, keepdim=True).values
        q_values = q_values - ent_coef * log_prob.reshape(-1, 1)
        return batch.rewards + (1 - batch.dones) * model.gamma * q_values


def _finite(name: str, loss: th.Tensor) -> float:
    value = loss.item()
    if not th.isfinite(loss):
        raise FloatingPointError(
            f"the loss of the {name} is {value}: look for rewards or observations that are too large, or lower "
            "`learning_rate`"
        )
    return value
