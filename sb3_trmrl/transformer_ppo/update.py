"""
PPO's update, over all ranks.

With one rank, it equals SB3's ``PPO.train`` bit for bit. ``PPO.train`` cannot be reused, because ranks exchange
advantages, gradients and the KL divergence within each minibatch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.utils import explained_variance

from sb3_trmrl.distributed.collectives import all_gather, all_reduce, share, world_size
from sb3_trmrl.distributed.gradients import average_gradients
from sb3_trmrl.distributed.start import copy_buffers_from_main
from sb3_trmrl.distributed.statistics import moments
from sb3_trmrl.memory.buffers import MemoryRolloutBufferSamples

if TYPE_CHECKING:
    from sb3_trmrl.transformer_ppo.transformer_ppo import TransformerPPO


class _Losses(NamedTuple):
    """Losses and logged values of a minibatch, averaged over the transitions of this rank."""

    policy: th.Tensor
    value: th.Tensor
    entropy: th.Tensor
    clip_fraction: th.Tensor
    approx_kl: th.Tensor


def update(model: TransformerPPO) -> None:
    """
    Update the policy with the rollout that has been collected.

    :param model: Model with a full rollout buffer
    :raises FloatingPointError: if a gradient is not finite
    """
    # Switch to train mode (this affects batch norm / dropout)
    model.policy.set_training_mode(True)
    model._update_learning_rate(model.policy.optimizer)
    progress = model._current_progress_remaining
    clip_range = model.clip_range(progress)  # type: ignore[operator]
    clip_range_vf = None if model.clip_range_vf is None else model.clip_range_vf(progress)  # type: ignore[operator]

    logged: list[list[float]] = []  # losses of each minibatch
    continue_training = True
    for epoch in range(model.n_epochs):
        approx_kl_divs = []
        for batch in model.rollout_buffer.get(share("batch_size", model.batch_size)):
            # The parts of the ranks may differ in size, so each is weighted by its size
            count, mean, std = moments(batch.advantages)
            weight = len(batch.advantages) * world_size() / count
            advantages = batch.advantages
            if model.normalize_advantage and count > 1:  # a single advantage has no standard deviation
                advantages = (advantages - mean) / (std + 1e-8)
            losses = _losses(model, batch, advantages, clip_range, clip_range_vf)
            loss = losses.policy + model.ent_coef * losses.entropy + model.vf_coef * losses.value
            logged.append([each.item() for each in losses[:-1]])
            approx_kl = losses.approx_kl
            if model.target_kl is not None:  # all ranks stop at the same minibatch
                approx_kl = all_reduce(weight * approx_kl) / world_size()
            approx_kl_div = approx_kl.cpu().numpy()
            approx_kl_divs.append(approx_kl_div)

            if model.target_kl is not None and approx_kl_div > 1.5 * model.target_kl:
                continue_training = False
                if model.verbose >= 1:
                    print(f"Early stopping at step {epoch} due to reaching max kl: {approx_kl_div:.2f}")
                break
            _step(model, weight * loss)
        model._n_updates += 1
        if not continue_training:
            break
    copy_buffers_from_main(model.policy)
    means = [np.mean(each) for each in (*zip(*logged, strict=True), approx_kl_divs)]
    _log(model, [*means, loss.item()], clip_range, clip_range_vf)


def _losses(
    model: TransformerPPO,
    batch: MemoryRolloutBufferSamples,
    advantages: th.Tensor,
    clip_range: float,
    clip_range_vf: float | None,
) -> _Losses:
    """Compute the losses of this rank's part of a minibatch."""
    actions = batch.actions
    if isinstance(model.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    values, log_prob, entropy = model.policy.evaluate_actions(batch.observations, actions)
    values = values.flatten()

    log_ratio = log_prob - batch.old_log_prob
    ratio = th.exp(log_ratio)
    clipped = advantages * th.clamp(ratio, 1 - clip_range, 1 + clip_range)
    policy_loss = -th.min(advantages * ratio, clipped).mean()

    if clip_range_vf is not None:
        values = batch.old_values + th.clamp(values - batch.old_values, -clip_range_vf, clip_range_vf)
    with th.no_grad():
        clip_fraction = th.mean((th.abs(ratio - 1) > clip_range).float())
        # Schulman, http://joschu.net/blog/kl-approx.html
        approx_kl = th.mean((th.exp(log_ratio) - 1) - log_ratio)
    return _Losses(
        policy_loss,
        F.mse_loss(batch.returns, values),
        -th.mean(-log_prob) if entropy is None else -th.mean(entropy),
        clip_fraction,
        approx_kl,
    )


def _step(model: TransformerPPO, loss: th.Tensor) -> None:
    """Take an optimizer step with the gradient averaged over all ranks."""
    parameters = list(model.policy.parameters())
    model.policy.optimizer.zero_grad()
    loss.backward()
    average_gradients(parameters)
    norm = th.nn.utils.clip_grad_norm_(parameters, model.max_grad_norm)
    # Clipping by a non-finite norm would turn gradients into NaN or 0
    if not th.isfinite(norm):
        raise FloatingPointError(
            f"non-finite gradient (its norm is {norm.item()}): the weights were not changed. Look for rewards or "
            "observations that are too large, or lower `learning_rate` or `max_grad_norm`"
        )
    model.policy.optimizer.step()


def _log(model: TransformerPPO, means: list[float], clip_range: float, clip_range_vf: float | None) -> None:
    """Log the same keys as SB3. Losses are averaged over ranks."""
    means = [np.mean(each) for each in zip(*all_gather(means), strict=True)]
    policy_loss, value_loss, entropy_loss, clip_fraction, approx_kl, loss = means
    buffer = model.rollout_buffer
    values, returns = (np.concatenate(all_gather(each.flatten())) for each in (buffer.values, buffer.returns))
    record = model.logger.record
    record("train/entropy_loss", entropy_loss)
    record("train/policy_gradient_loss", policy_loss)
    record("train/value_loss", value_loss)
    record("train/approx_kl", approx_kl)
    record("train/clip_fraction", clip_fraction)
    record("train/loss", loss)
    record("train/explained_variance", explained_variance(values, returns))
    if hasattr(model.policy, "log_std"):
        record("train/std", th.exp(model.policy.log_std).mean().item())
    record("train/n_updates", model._n_updates, exclude="tensorboard")
    record("train/clip_range", clip_range)
    if clip_range_vf is not None:
        record("train/clip_range_vf", clip_range_vf)
