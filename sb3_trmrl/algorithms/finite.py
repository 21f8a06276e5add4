"""Checks that observations and rewards are finite."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.algorithms.arguments import MAX_OBSERVATION
from sb3_trmrl.common.checks import check_finite


def check_finite_step(
    normalizer: VecNormalize | None,
    obs: Any,
    rewards: np.ndarray | None = None,
    infos: Sequence[dict[str, Any]] = (),
) -> None:
    """
    Check the newest observations and rewards. Networks compute squares of observations in 32 bits.

    :param normalizer: VecNormalize of the training environment. The original numbers are checked, because its
        statistics would spread a NaN from one environment to all
    :param obs: Newest observations, (n_envs, \\*observation), or a dictionary
    :param rewards: Newest rewards, (n_envs,)
    :param infos: Newest infos, whose terminal observations are checked too
    :raises ValueError: if a number is not finite or too large; names the environment
    """
    if normalizer is not None:
        check_finite("observation", normalizer.get_original_obs())
        rewards = rewards if rewards is None else normalizer.get_original_reward()
    check_finite("observation", obs, MAX_OBSERVATION)
    if rewards is not None:
        check_finite("reward", rewards)
    if any(info.get("terminal_observation") is not None for info in infos):
        check_finite("terminal observation", newest_observations(obs, infos), MAX_OBSERVATION)


def newest_observations(obs: Any, infos: Sequence[dict[str, Any]]) -> Any:
    """
    :param obs: Observations of a VecEnv, (n_envs, \\*observation), or a dictionary
    :param infos: Infos of the same step
    :return: A copy of ``obs`` in which terminal observations replace the first observations of the next episodes
    """
    newest = {key: np.array(value) for key, value in obs.items()} if isinstance(obs, dict) else np.array(obs)
    for index, info in enumerate(infos):
        last = info.get("terminal_observation")  # some vectorised environments have the key at every step
        if last is not None and isinstance(newest, dict):
            for key, value in last.items():
                newest[key][index] = value
        elif last is not None:
            newest[index] = last
    return newest
