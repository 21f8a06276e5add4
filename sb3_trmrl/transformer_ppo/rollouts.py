"""The values of truncated episodes, for the rollout buffer."""

from typing import Any

import numpy as np
import torch as th

from sb3_trmrl.algorithms.arguments import MAX_OBSERVATION
from sb3_trmrl.common.checks import check_finite
from sb3_trmrl.memory.interface import Memory
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy


def bootstrap_truncated(
    policy: TrMRLPolicy,
    gamma: float,
    rewards: np.ndarray,
    dones: np.ndarray,
    infos: list[dict[str, Any]],
    memory: Memory,
) -> None:
    """
    Add the discounted value of the terminal observation to the last reward of truncated episodes (see SB3's GitHub
    issue #633). All values are computed in one batch, because episodes with a fixed horizon end together.

    :param policy: Policy
    :param gamma: Discount factor
    :param rewards: Rewards of this step, (n_envs,), modified in place
    :param dones: Mask of environments whose episode has ended, (n_envs,)
    :param infos: Infos of this step
    :param memory: Memory that the actions of this step were chosen with
    :raises ValueError: if a terminal observation is not finite
    """
    truncated = [
        index
        for index, done in enumerate(dones)
        if done
        and infos[index].get("terminal_observation") is not None
        and infos[index].get("TimeLimit.truncated", False)
    ]
    if not truncated:
        return
    terminal_obs = [infos[index]["terminal_observation"] for index in truncated]
    stacked: Any = np.stack(terminal_obs)
    if isinstance(terminal_obs[0], dict):
        stacked = {key: np.stack([obs[key] for obs in terminal_obs]) for key in terminal_obs[0]}
    check_finite("terminal observation", stacked, MAX_OBSERVATION)
    with th.no_grad():
        # The memory before the reset: it is the value of continuing the episode
        starts = th.zeros(len(truncated), dtype=th.bool, device=policy.device)
        obs = policy.obs_to_tensor(stacked)[0]
        continued = memory.select(truncated).write(obs, starts, policy.transformers)
        terminal_values = policy.predict_values(continued)
    rewards[truncated] += gamma * terminal_values.cpu().numpy().flatten()
