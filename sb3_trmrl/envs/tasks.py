"""What all families of tasks share: drawing tasks, the held-out ones, and the wrappers around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_trmrl.common.checks import check_option
from sb3_trmrl.common.wrappers import MultiEpisodeTrial, PreviousTransitionObservation

#: Number of tasks in each held-out split
N_HELD_OUT = 20
#: Entropy of the held-out tasks. With their own spawn keys they have nothing in common with the stream of any seed.
_HELD_OUT_ENTROPY = 15_340_206_614
_SPAWN_KEYS = {"validation": 1, "test": 2}
SPLITS = ("train", *_SPAWN_KEYS)


class TaskEnv(gym.Env):
    """
    An environment whose reward or dynamics depend on a task. A subclass gives the distribution and the check of a task.

    Tasks are plain values that compare by value. Before the first ``set_task`` a fixed task of the distribution is set.
    """

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[Any]:
        """
        :param n: Number of tasks
        :param rng: Where the randomness comes from
        :return: n tasks of the training distribution
        """
        raise NotImplementedError

    def set_task(self, task: Any) -> None:
        """
        :param task: Task of the episodes that follow
        :raises TypeError: if it is not a task of this environment
        :raises ValueError: if its value is out of range
        """
        raise NotImplementedError

    def get_task(self) -> Any:
        """
        :return: The current task
        """
        raise NotImplementedError

    def sample_tasks(self, n: int) -> list[Any]:
        """
        :param n: Number of tasks
        :return: n tasks, drawn with the environment's own generator (seeded by ``reset(seed=...)``)
        """
        return self.draw_tasks(n, self.np_random)

    def held_out_tasks(self, split: str) -> list[Any]:
        """
        :param split: ``"validation"`` or ``"test"``
        :return: 20 tasks, always the same ones, different in the two splits
        """
        return self.draw_tasks(N_HELD_OUT, held_out_rng(split))


def held_out_rng(split: str) -> np.random.Generator:
    """
    :param split: ``"validation"`` or ``"test"``
    :return: The generator of its tasks, always in the same state
    """
    seed = np.random.SeedSequence(_HELD_OUT_ENTROPY, spawn_key=(_SPAWN_KEYS[split],))
    return np.random.default_rng(seed)


def in_trials(
    env_class: Callable[..., TaskEnv],
    episodes_per_trial: int,
    split: str = "train",
    trial_end: str | None = None,
    across_episodes: str = "keep",
    **env_kwargs: Any,
) -> gym.Env:
    """
    A family of tasks, ready to train on; behind every registered environment.

    :param env_class: Class of the environment
    :param episodes_per_trial: Episodes of one task that make a trial
    :param split: ``"train"`` draws a new task for each trial; ``"validation"`` (choose a model with it) and ``"test"``
        (report with it) visit 20 held-out tasks of the same distribution in turn, one per trial
    :param trial_end: ``"terminated"``, ``"truncated"`` or None, see ``MultiEpisodeTrial``
    :param across_episodes: ``"keep"`` or ``"zero"``, see ``PreviousTransitionObservation``
    :param env_kwargs: Arguments of the environment
    :return: ``PreviousTransitionObservation(MultiEpisodeTrial(env))``
    """
    check_option("split", split, SPLITS)
    env = env_class(**env_kwargs)
    tasks = None if split == "train" else env.held_out_tasks(split)
    trials = MultiEpisodeTrial(env, episodes_per_trial=episodes_per_trial, trial_end=trial_end, tasks=tasks)
    return PreviousTransitionObservation(trials, across_episodes=across_episodes)


def check_range(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave: the pair (lowest, highest)
    :param low: Lowest number allowed
    :param high: Highest number allowed
    :return: The pair as floats
    :raises TypeError: if it is not a pair of numbers
    :raises ValueError: if it is inverted or exceeds the bounds
    """
    try:
        first, last = (check_number(name, bound) for bound in value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a pair of finite numbers (low, high), got {value!r}") from error
    if not low <= first <= last <= high:
        raise ValueError(f"`{name}` must satisfy {low:g} <= low <= high <= {high:g}, got {value!r}")
    return first, last


def check_number(name: str, value: Any) -> float:
    """
    :param name: What the number is, for the message
    :param value: What the user gave
    :return: ``value`` as a Python float
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is not finite
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)
