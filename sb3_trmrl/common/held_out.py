"""Held-out tasks: which environments have them, and how several copies share them."""

import inspect

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from stable_baselines3.common.vec_env import VecEnv

#: Number of held-out tasks of a split of our environments, and so of evaluation episodes
N_HELD_OUT_TASKS = 20


def has_splits(env_id: str) -> bool:
    """
    :param env_id: Registered id
    :return: Whether the environment takes ``split="train"|"validation"|"test"``, as those of this package do
    """
    entry_point = gym.spec(env_id).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return creator is not None and "split" in inspect.signature(creator).parameters


def share_tasks(env: VecEnv) -> VecEnv:
    """
    Copies of an environment with held-out tasks all visit the same ones, from the first on. Deal them out instead,
    in shares as large as those of ``evaluate_policy``, so that as many episodes as there are tasks visit each
    exactly once.

    :param env: Copies made with ``split="validation"`` or ``"test"``, not reset yet
    :return: The same environment
    """
    tasks = env.get_attr("tasks", indices=0)[0]
    for index in range(env.num_envs):
        # The last copies get one more; with more copies than tasks the first ones repeat some
        share = tasks[(env.num_envs - 1 - index) % len(tasks) :: env.num_envs]
        env.env_method("set_wrapper_attr", "tasks", share, indices=index)
    return env


def evaluation_seed(seed: int, purpose: str) -> int:
    """
    The zoo seeds training and evaluation alike, and copy i of either with seed + i, so that evaluation would replay
    training's initial states. This seed is of a stream of its own.

    :param seed: Seed of the run
    :param purpose: Tells evaluations apart: ``"validation"`` or ``"test"``
    :return: Seed, below 2 ** 31
    """
    entropy = [seed, *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
