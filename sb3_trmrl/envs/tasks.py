"""What all families of tasks share: drawing tasks, the held-out ones, and the wrappers around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_trmrl.common.checks import (
    check_bool,
    check_instance,
    check_keywords,
    check_number,
    check_option,
    check_positive_int,
)
from sb3_trmrl.common.plain_state import opaque_attributes, plain_state, set_plain_state
from sb3_trmrl.trials.wrappers import MultiEpisodeTrial, PreviousTransitionObservation

#: Number of tasks in each held-out split, where a family says no other
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

    #: Whether training never meets the held-out tasks; not so where there are only a few tasks in all
    holds_tasks_out: ClassVar[bool] = True
    #: Number of tasks in each held-out split, that registered environments visit in turn
    n_held_out: ClassVar[int] = N_HELD_OUT
    #: Unit of tasks that are numbers, for pictures
    task_unit: ClassVar[str] = ""

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
        :raises TypeError: if ``n`` is not an integer
        :raises ValueError: if it is below 1
        """
        return self.draw_tasks(check_positive_int("n", n), self.np_random)

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT) -> list[Any]:
        """
        :param split: ``"validation"`` or ``"test"``
        :param n: Number of tasks
        :return: n tasks, always the same ones, different in the two splits
        :raises TypeError: if ``n`` is not an integer
        :raises ValueError: if it is below 1, or the split is unknown
        """
        return self.draw_tasks(check_positive_int("n", n), held_out_rng(split))

    def task_features(self, task: Any) -> np.ndarray:
        """
        :param task: A task of this environment
        :return: The task as numbers, for an agent that is told, (F,)
        """
        return np.ravel(np.asarray(task, dtype=np.float32))

    def state_dict(self) -> dict[str, Any] | None:
        """
        :return: All that decides how the environment goes on: its task, its generator and its attributes that are plain
            data; None if there are others, such as a simulator. Then a subclass has to add them in methods of its own
        """
        if type(self).state_dict is TaskEnv.state_dict:
            task = self.get_task()
            if opaque_attributes(self, (spaces.Space, EnvSpec, type(task))):
                return None
        return self._plain_state()

    def _plain_state(self) -> dict[str, Any]:
        return {"task": self.get_task(), "attributes": plain_state(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from a state, bit by bit as the environment that it was taken from.

        :param state: What ``state_dict()`` of an environment made with the same arguments returned
        """
        self.set_task(state["task"])
        set_plain_state(self, state["attributes"])


def held_out_rng(split: str) -> np.random.Generator:
    """
    :param split: ``"validation"`` or ``"test"``
    :return: The generator of its tasks, always in the same state
    """
    spawn_key = (_SPAWN_KEYS[check_option("split", split, _SPAWN_KEYS)],)
    seed = np.random.SeedSequence(_HELD_OUT_ENTROPY, spawn_key=spawn_key)
    return np.random.default_rng(seed)


def stratified(low: float, high: float, n: int, rng: np.random.Generator) -> list[float]:
    """
    One number from each n-th of a range, in any order: plain draws differ so much in their mean that figures of two
    splits could not be compared.

    :param low: Lowest number
    :param high: Highest number
    :param n: How many
    :param rng: Where the randomness comes from
    :return: The numbers
    """
    quantiles = rng.permutation((np.arange(n) + rng.uniform(size=n)) / n)
    values: list[float] = (low + (high - low) * quantiles).tolist()
    return values


def in_trials(
    env_class: Callable[..., TaskEnv],
    episodes_per_trial: int,
    split: str = "train",
    trial_end: str | None = None,
    across_episodes: str = "keep",
    previous_transition: bool = True,
    reveal_task: bool = False,
    **env_kwargs: Any,
) -> gym.Env:
    """
    A family of tasks, ready to train on; behind every registered environment.

    :param env_class: Class of the environment
    :param episodes_per_trial: Episodes of one task that make a trial
    :param split: ``"train"`` draws a new task for each trial; ``"validation"`` (choose a model with it) and ``"test"``
        (report with it) visit the family's ``n_held_out`` (20) held-out tasks in turn, one per trial
    :param trial_end: ``"terminated"``, ``"truncated"`` or None, see ``MultiEpisodeTrial``
    :param across_episodes: ``"keep"`` or ``"zero"``, see ``PreviousTransitionObservation``
    :param previous_transition: Whether the observation tells the last action, reward and end of episode; without, it is
        the environment's own: a lower reference, that cannot know the task
    :param reveal_task: Add the task to the observation, under the key ``"task"``: an oracle, to compare with
    :param env_kwargs: Arguments of the environment
    :return: ``PreviousTransitionObservation(MultiEpisodeTrial(env))``, or what the two arguments make of it
    :raises TypeError: if an argument has the wrong type, or the environment does not take it
    :raises ValueError: if an argument is out of range
    """
    check_option("split", split, SPLITS)
    check_bool("previous_transition", previous_transition)
    check_bool("reveal_task", reveal_task)
    check_keywords("env_kwargs", env_kwargs, env_class)
    env = env_class(**env_kwargs)
    tasks = None if split == "train" else env.held_out_tasks(split, env.n_held_out)
    made: gym.Env = MultiEpisodeTrial(env, episodes_per_trial=episodes_per_trial, trial_end=trial_end, tasks=tasks)
    if previous_transition:
        made = PreviousTransitionObservation(made, across_episodes=across_episodes)
    return TaskObservation(made) if reveal_task else made


class TaskObservation(gym.ObservationWrapper):
    """
    Adds the task to a Dict observation, under the key ``"task"``; any other observation becomes the Dict's
    ``"observation"``.

    :param env: Environment whose innermost layer is a ``TaskEnv``
    :raises TypeError: if it is something else
    """

    def __init__(self, env: gym.Env) -> None:
        check_instance("env", env, gym.Env, "a Gymnasium environment")
        super().__init__(env)
        self._task_env: TaskEnv = check_instance("env", env.unwrapped, TaskEnv, "an environment around a TaskEnv")
        own = env.observation_space
        keys = own.spaces if isinstance(own, spaces.Dict) else {"observation": own}
        task = spaces.Box(-np.inf, np.inf, shape=self._features().shape, dtype=np.float32)
        self.observation_space = spaces.Dict({**keys, "task": task})

    def observation(self, observation: Any) -> dict[str, Any]:
        own = observation if isinstance(observation, dict) else {"observation": observation}
        return {**own, "task": self._features()}

    def _features(self) -> np.ndarray:
        return self._task_env.task_features(self._task_env.get_task())


def check_box_action(action: Any, size: int) -> np.ndarray:
    """
    :param action: What the agent does
    :param size: Number of its components
    :return: It as an array of float64
    :raises ValueError: if it is not so many finite numbers
    """
    try:
        array = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise ValueError(f"`action` must be {size} finite numbers in [-1, 1], got {action!r}")
    return array


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
