"""Meta-testing (paper, section 5.1): frozen weights, new tasks, several episodes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_instance, check_positive_int
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.trials.agent import Agent
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS


def evaluate_adaptation(
    model: Agent,
    env: str | Callable[..., gym.Env],
    n_eval_tasks: int = N_HELD_OUT_TASKS,
    n_eval_episodes: int | None = None,
    deterministic: bool = True,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
    split: str = "test",
    vec_normalize: VecNormalize | None = None,
    info_keys: Sequence[str] = (),
    n_envs: int | None = None,
    after_task: Callable[[int], None] | None = None,
) -> AdaptationResult:
    """
    Play a trial of several episodes on each of a number of tasks, and return every reward. Weights and PyTorch's random
    generators do not change. If the environment has the method ``action_masks()`` and the agent's ``predict`` takes
    masks, the agent chooses among valid actions. In an environment without tasks, ``n_eval_tasks`` independent episodes
    are played.

    :param model: Agent; its ``predict`` gets the observations of ``n_envs`` tasks at once
    :param env: Registered id of a family of tasks in a ``MultiEpisodeTrial``, or of an environment without tasks; or a
        function that makes one such environment when called with ``env_kwargs``
    :param n_eval_tasks: Number of tasks T; 45 for ``MetaWorldML45Train-v0``, one of each class
    :param n_eval_episodes: Episodes of each trial, which replaces the environment's own number; by default 6. It must
        be 1 or None without tasks
    :param deterministic: Whether to use deterministic or stochastic actions
    :param seed: Seed of initial states and stochastic actions, and of the tasks unless they are held out
    :param env_kwargs: Arguments of the environment, for example another range of tasks
    :param split: Split of the tasks, ``"test"``, ``"validation"`` or ``"train"``, see
        :class:`~sb3_trmrl.evaluation.trials.Trials`
    :param vec_normalize: Statistics to normalise observations with, by default those of the model's own environment,
        if it has any. Frames are stacked as in that environment
    :param info_keys: Numeric entries of ``info`` to keep for each step, for example ``"x_velocity"``
    :param n_envs: Number of tasks that are played in parallel, by default all
    :param after_task: Called with the number of finished tasks, for a progress bar
    :return: Rewards, successes and the requested numbers
    :raises TypeError: if the environment is a family of tasks without trials, or a number is not an integer
    :raises ValueError: if a number is below 1, the seed is negative, an option is unknown, the observations do not fit
        the model, or an environment without tasks is given several episodes
    """
    check_instance("info_keys", info_keys, (list, tuple), "a list of names")
    n_tasks = check_positive_int("n_eval_tasks", n_eval_tasks)
    if n_eval_episodes is not None:
        check_positive_int("n_eval_episodes", n_eval_episodes)
    trials = Trials(env, n_tasks, n_eval_episodes, split, seed, env_kwargs)
    n_episodes = trials.n_episodes
    # Reward and requested numbers of each step, by task and episode
    numbers: list[list[list[list[float]]]] = [[[] for _ in range(n_episodes)] for _ in range(n_tasks)]
    successes = np.zeros((n_tasks, n_episodes), dtype=bool)
    success_is_known = False
    for step in trials.play(model, deterministic, vec_normalize, n_envs, after_task):
        for index, task in zip(step.envs, step.tasks, strict=True):
            episode, info = step.episodes[index], step.infos[index]
            missing = [key for key in info_keys if key not in info]
            if missing:
                raise ValueError(f"`info_keys` has {missing[0]!r}, which is not among {sorted(info)}")
            numbers[task][episode].append([float(step.rewards[index]), *(float(info[key]) for key in info_keys)])
            if "is_success" in info:
                success_is_known = True
                successes[task, episode] |= bool(info["is_success"])
    rewards, *infos = _pad(numbers)
    return AdaptationResult(
        env_id=trials.env_id,
        tasks=trials.tasks,
        rewards=rewards,
        successes=successes if success_is_known else None,
        infos=dict(zip(info_keys, infos, strict=True)),
        split=trials.split,
        held_out=trials.held_out,
        deterministic=deterministic,
        seed=seed,
    )


def _pad(numbers: list[list[list[list[float]]]]) -> np.ndarray:
    """Return the K numbers of each step as an array, (K, tasks, episodes, horizon), NaN after an early end."""
    horizon = max(len(steps) for episodes in numbers for steps in episodes)
    padded = np.full((len(numbers[0][0][0]), len(numbers), len(numbers[0]), horizon), np.nan)
    for task, episodes in enumerate(numbers):
        for episode, steps in enumerate(episodes):
            padded[:, task, episode, : len(steps)] = np.transpose(steps)
    return padded
