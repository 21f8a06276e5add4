"""Checks that observations and rewards are finite."""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.algorithms.arguments import MAX_OBSERVATION
from sb3_trmrl.common.checks import check_finite


def check_finite_step(normalizer: VecNormalize | None, obs: Any, rewards: np.ndarray | None = None) -> None:
    """
    Check the newest observations and rewards. Networks compute squares of observations in 32 bits.

    :param normalizer: VecNormalize of the training environment. The original numbers are checked, because its
        statistics would spread a NaN from one environment to all
    :param obs: Newest observations, (n_envs, \\*observation), or a dictionary
    :param rewards: Newest rewards, (n_envs,)
    :raises ValueError: if a number is not finite or too large; names the environment
    """
    if normalizer is not None:
        check_finite("observation", normalizer.get_original_obs())
        rewards = rewards if rewards is None else normalizer.get_original_reward()
    check_finite("observation", obs, MAX_OBSERVATION)
    if rewards is not None:
        check_finite("reward", rewards)
