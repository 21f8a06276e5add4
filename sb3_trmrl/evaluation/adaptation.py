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


def evaluate_adaptation(
    model: Agent,
    env: str | Callable[..., gym.Env],
    n_eval_tasks: int = 20,
    n_eval_episodes: int = 6,
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
    Play a trial of several episodes on each of some tasks, and keep every reward. Weights and PyTorch's random
    generators are left as they are.

    :param model: Agent; its ``predict`` gets the observations of all tasks at once
    :param env: Registered id of a family of tasks, or what makes one environment when called with ``env_kwargs``; it
        contains a ``MultiEpisodeTrial``
    :param n_eval_tasks: Number of tasks T; 45 for ``MetaWorldML45Train-v0``, one of each class
    :param n_eval_episodes: Episodes of each trial, whatever the environment was made with
    :param deterministic: Whether actions are the likeliest ones or sampled
    :param seed: Seed of initial states and sampled actions, and of tasks where none are held out
    :param env_kwargs: Arguments of the environment, for example another task range
    :param split: Whose tasks: ``"test"``, ``"validation"`` or ``"train"``, see
        :class:`~sb3_trmrl.evaluation.trials.Trials`
    :param vec_normalize: Statistics to normalise observations with, by default those of the model's own environment,
        if it has them
    :param info_keys: Numbers of ``info`` to keep for each step, for example ``"x_velocity"``
    :param n_envs: Tasks at a time, by default all
    :param after_task: Called with the number of finished tasks, for a progress bar
    :return: Rewards and what else was asked for
    :raises TypeError: if the environment is no family of tasks in trials, or a number is no integer
    :raises ValueError: if a number is below 1, the seed is negative, an option is unknown, or the model has other
        observations
    """
    check_instance("info_keys", info_keys, (list, tuple), "a list of names")  # a string would be many
    n_tasks = check_positive_int("n_eval_tasks", n_eval_tasks)
    n_episodes = check_positive_int("n_eval_episodes", n_eval_episodes)
    trials = Trials(env, n_tasks, n_episodes, split, seed, env_kwargs)
    recorder = _Recorder(n_tasks, n_episodes, info_keys)
    for step in trials.play(model, deterministic, vec_normalize, n_envs, after_task):
        for index, task in zip(step.envs, step.tasks, strict=True):
            recorder.add(task, step.episodes[index], step.rewards[index], step.infos[index])
    return AdaptationResult(
        env_id=trials.env_id,
        tasks=trials.tasks,
        rewards=recorder.table(recorder.rewards),
        successes=recorder.successes(),
        infos={key: recorder.table(values) for key, values in recorder.infos.items()},
        split=trials.split,
        held_out=trials.held_out,
        deterministic=deterministic,
        seed=seed,
    )


class _Recorder:
    """
    Numbers by task, episode and step.

    :param n_tasks: Number of tasks
    :param n_episodes: Number of episodes
    :param info_keys: Numbers of ``info`` to keep
    """

    def __init__(self, n_tasks: int, n_episodes: int, info_keys: Sequence[str]) -> None:
        def empty() -> list[list[list[float]]]:
            return [[[] for _ in range(n_episodes)] for _ in range(n_tasks)]

        self.rewards = empty()
        self.infos = {key: empty() for key in info_keys}
        self._successes: list[list[bool | None]] = [[None] * n_episodes for _ in range(n_tasks)]

    def add(self, task: int, episode: int, reward: float, info: dict[str, Any]) -> None:
        """
        :param task: Index of the task
        :param episode: Episode in which the step was made
        :param reward: Its reward
        :param info: Its info
        """
        self.rewards[task][episode].append(float(reward))
        for key, values in self.infos.items():
            if key not in info:
                raise ValueError(f"`info_keys` has {key!r}, which is not among {sorted(info)}")
            values[task][episode].append(float(info[key]))
        if "is_success" in info:
            self._successes[task][episode] = bool(self._successes[task][episode]) or bool(info["is_success"])

    @staticmethod
    def table(values: list[list[list[float]]]) -> np.ndarray:
        """
        :param values: Numbers of each step
        :return: (tasks, episodes, horizon), NaN after an early end
        """
        horizon = max(len(steps) for episodes in values for steps in episodes)
        padded = [[steps + [np.nan] * (horizon - len(steps)) for steps in episodes] for episodes in values]
        return np.array(padded)

    def successes(self) -> np.ndarray | None:
        """
        :return: Whether an episode had success at any step, (tasks, episodes), if the environment says so
        """
        known = any(success is not None for episodes in self._successes for success in episodes)
        return np.array(self._successes, dtype=bool) if known else None
