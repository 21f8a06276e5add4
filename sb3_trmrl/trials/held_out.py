"""Splits of a family of tasks: training, validation and test, the last two held out from training."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from sb3_trmrl.common.checks import check_int

if TYPE_CHECKING:  # environments are made without importing PyTorch
    from stable_baselines3.common.vec_env import VecEnv

#: Names of the splits, and of those whose tasks are held out from training
SPLITS = ("train", "validation", "test")
HELD_OUT_SPLITS = SPLITS[1:]
#: Default number of tasks in a held-out split, and of tasks in an evaluation
N_HELD_OUT_TASKS = 20


def has_splits(env_id: str) -> bool:
    """Return whether an environment takes the argument ``split``; ``module:`` may precede its id."""
    entry_point = _find_spec(env_id).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return creator is not None and "split" in inspect.signature(creator).parameters


def has_environment(env_id: str) -> bool:
    """Return whether an environment is registered; packages that it needs may still be missing."""
    try:
        _find_spec(env_id)
    except (gym.error.Error, ImportError):
        return False
    return True


def _find_spec(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gym.spec(name)


def n_tasks_in_turn(env_id: str, env_kwargs: dict[str, Any]) -> int:
    """Return the number of tasks that an environment visits in turn, or 20 if it samples its tasks or has none."""
    env = gym.make(env_id, **env_kwargs)
    tasks = env.get_wrapper_attr("tasks") if env.has_wrapper_attr("tasks") else None
    env.close()
    return N_HELD_OUT_TASKS if tasks is None else len(tasks)


def share_tasks(env: VecEnv) -> VecEnv:
    """
    Divide the held-out tasks among the copies of an environment, each of which would otherwise visit all of them.

    The shares have the sizes of the copies' episodes in SB3's ``evaluate_policy``, which therefore visits each task
    exactly once in as many episodes as there are tasks. Tasks that have been divided already stay as they are.

    :param env: Copies made with ``split="validation"`` or ``"test"``, not reset yet
    :return: The same environment
    :raises TypeError: if it is not an SB3 environment whose copies are trials of several episodes
    :raises ValueError: if its tasks are sampled
    """
    try:
        every = env.get_attr("tasks")
    except AttributeError:
        raise TypeError(
            f"`env` must be a VecEnv of environments with the wrapper MultiEpisodeTrial, got {env}"
        ) from None
    if None in every:
        raise ValueError(f'`env` must have been made with split="validation" or "test", got {env}, which samples tasks')
    for index in range(env.num_envs):
        # The last copies get one task more. If there are more copies than tasks, the first copies repeat some.
        env.env_method("take_share", env.num_envs - 1 - index, env.num_envs, indices=index)
    return env


def evaluation_seed(seed: int, purpose: str) -> int:
    """Return a seed below 2 ** 31 for the split ``purpose``, independent of the seeds of training."""
    # rl-zoo3 seeds copy i of an environment with seed + i in training and in evaluation alike, and evaluation would
    # repeat the initial states of training
    entropy = [check_int("seed", seed), *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
