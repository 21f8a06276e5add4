"""Held-out tasks: which environments have them, and how several copies share them."""

import importlib
import inspect
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.common.checks import check_int

#: Number of held-out tasks of a split, and so of evaluation episodes, of all our environments but one
N_HELD_OUT_TASKS = 20


def has_splits(env_id: str) -> bool:
    """
    :param env_id: Registered id; as in ``gym.make``, a module to import first may stand before it, and a colon
    :return: Whether the environment takes ``split="train"|"validation"|"test"``, as those of this package do
    """
    entry_point = _spec(env_id).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return creator is not None and "split" in inspect.signature(creator).parameters


def _spec(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gym.spec(name)


def has_environment(env_id: str) -> bool:
    """
    :param env_id: As in :func:`has_splits`
    :return: Whether there is such an environment; what it needs may still be missing
    """
    try:
        _spec(env_id)
    except (gym.error.Error, ImportError):
        return False
    return True


def n_tasks_in_turn(env_id: str, env_kwargs: dict[str, Any]) -> int:
    """
    :param env_id: Registered id
    :param env_kwargs: Its arguments, among them the split
    :return: Number of tasks that the environment visits in turn, 20 if it draws them or has none: how many episodes an
        evaluation takes
    """
    env = gym.make(env_id, **env_kwargs)
    tasks = env.get_wrapper_attr("tasks") if env.has_wrapper_attr("tasks") else None
    env.close()
    return N_HELD_OUT_TASKS if tasks is None else len(tasks)


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
    :raises TypeError: if ``seed`` is not an integer
    :raises ValueError: if it is negative
    """
    entropy = [check_int("seed", seed), *purpose.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
