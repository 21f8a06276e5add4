"""The base class of all families of tasks, their held-out tasks, and the wrappers around them."""

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
from sb3_trmrl.trials.held_out import HELD_OUT_SPLITS, N_HELD_OUT_TASKS, SPLITS
from sb3_trmrl.trials.multi_episode_trial import MultiEpisodeTrial
from sb3_trmrl.trials.previous_transition import PreviousTransitionObservation

#: Entropy of the held-out tasks. The split is the spawn key, which generators seeded by users do not have.
_HELD_OUT_ENTROPY = 15_340_206_614


class TaskEnv(gym.Env):
    """
    An environment whose reward or dynamics depend on a task. Subclasses define the distribution and the check of tasks.

    Tasks are plain values that are compared by value. Before the first ``set_task`` the environment has a fixed task of
    the distribution.
    """

    #: Whether training never uses the held-out tasks; False if there are only a few tasks altogether
    holds_tasks_out: ClassVar[bool] = True
    #: Number of tasks in each held-out split, which registered environments visit in turn
    n_held_out: int = N_HELD_OUT_TASKS
    #: Unit of tasks that are numbers, for plots
    task_unit: ClassVar[str] = ""

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[Any]:
        """
        Draw tasks of the training distribution.

        :param n: Number of tasks
        :param rng: Random generator
        :return: n tasks
        """
        raise NotImplementedError

    def set_task(self, task: Any) -> None:
        """
        Set the task of the following episodes.

        :param task: Task
        :raises TypeError: if it is not a task of this environment
        :raises ValueError: if its value is out of range
        """
        raise NotImplementedError

    def get_task(self) -> Any:
        """Return the current task."""
        raise NotImplementedError

    def sample_tasks(self, n: int) -> list[Any]:
        """
        Draw tasks with the environment's own generator, which ``reset(seed=...)`` seeds.

        :param n: Number of tasks
        :return: n tasks
        :raises TypeError: if ``n`` is not an integer
        :raises ValueError: if it is below 1
        """
        return self.draw_tasks(check_positive_int("n", n), self.np_random)

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[Any]:
        """
        Return tasks for evaluation: always the same ones, and different ones in the two splits.

        :param split: ``"validation"`` or ``"test"``
        :param n: Number of tasks
        :return: n tasks
        :raises TypeError: if ``n`` is not an integer
        :raises ValueError: if it is below 1, or the split is unknown
        """
        return self.draw_tasks(check_positive_int("n", n), held_out_rng(split))

    def task_features(self, task: Any) -> np.ndarray:
        """
        Return a task as numbers, for the observations of a task-conditioned oracle.

        :param task: A task of this environment
        :return: Float32 numbers, (F,)
        """
        return np.ravel(np.asarray(task, dtype=np.float32))

    def state_dict(self) -> dict[str, Any] | None:
        """
        Return a state from which the environment can be continued: its task, its generator and all attributes that are
        plain data.

        :return: The state, or None if there are other attributes, such as a simulator; a subclass has to save those
            itself
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
        Continue from a state, bit-identical to the environment that it was taken from.

        :param state: Result of ``state_dict()`` of an environment that was made with the same arguments
        """
        self.set_task(state["task"])
        set_plain_state(self, state["attributes"])


class UniformTaskEnv(TaskEnv):
    """Tasks are numbers, drawn uniformly from a range in [``low``, ``high``]; held-out tasks cover it evenly."""

    def __init__(self, name: str, task_range: tuple[float, float], low: float, high: float) -> None:
        self._task_range = check_range(name, task_range, low, high)
        self._task = sum(self._task_range) / 2

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[float]:
        tasks: list[float] = rng.uniform(*self._task_range, size=n).tolist()
        return tasks

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[float]:
        return stratified(*self._task_range, check_positive_int("n", n), held_out_rng(split))

    def set_task(self, task: Any) -> None:
        self._task = check_number("task", task)

    def get_task(self) -> float:
        return self._task


def held_out_rng(split: str) -> np.random.Generator:
    """Return the random generator of a held-out split's tasks, always in the same state."""
    spawn_key = (SPLITS.index(check_option("split", split, HELD_OUT_SPLITS)),)
    return np.random.default_rng(np.random.SeedSequence(_HELD_OUT_ENTROPY, spawn_key=spawn_key))


def stratified(low: float, high: float, n: int, rng: np.random.Generator) -> list[float]:
    """Draw one number from each of n equal parts of the range from ``low`` to ``high``, in random order."""
    # The means of independent draws would differ too much to compare results on two splits
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
    Create a family of tasks that is ready for training; all registered environments are created by this function.

    :param env_class: Class of the environment
    :param episodes_per_trial: Episodes of one task that make a trial
    :param split: ``"train"`` draws a new task for each trial. ``"validation"`` (for choosing a model) and ``"test"``
        (for reporting results) visit the family's ``n_held_out`` (20) held-out tasks in turn, one per trial
    :param trial_end: ``"terminated"``, ``"truncated"`` or None, see ``MultiEpisodeTrial``
    :param across_episodes: ``"keep"`` or ``"zero"``, see ``PreviousTransitionObservation``
    :param previous_transition: Whether the observation includes the last action, reward and end of episode. Without
        them it is the environment's own: an agent without task information, to compare with
    :param reveal_task: Whether to add the task to the observation, under the key ``"task"``: a task-conditioned oracle,
        to compare with
    :param env_kwargs: Arguments of the environment
    :return: ``PreviousTransitionObservation(MultiEpisodeTrial(env))``, modified by ``previous_transition`` and
        ``reveal_task``
    :raises TypeError: if an argument has the wrong type, or the environment does not accept it
    :raises ValueError: if an argument is out of range
    """
    check_option("split", split, SPLITS)
    check_bool("previous_transition", previous_transition)
    check_bool("reveal_task", reveal_task)
    check_option("across_episodes", across_episodes, ("keep", "zero"))
    check_keywords("env_kwargs", env_kwargs, env_class)
    env = env_class(**env_kwargs)
    tasks = None if split == "train" else env.held_out_tasks(split, env.n_held_out)
    made: gym.Env = MultiEpisodeTrial(env, episodes_per_trial=episodes_per_trial, trial_end=trial_end, tasks=tasks)
    if previous_transition:
        made = PreviousTransitionObservation(made, across_episodes=across_episodes)
    return TaskObservation(made) if reveal_task else made


class TaskObservation(gym.ObservationWrapper):
    """
    Adds the task to a Dict observation under the key ``"task"``; any other observation becomes the key
    ``"observation"``.

    Example:
        >>> from sb3_trmrl.envs.bandit import BernoulliBanditEnv
        >>> env = TaskObservation(BernoulliBanditEnv(n_arms=2))
        >>> observation, _ = env.reset(seed=0)
        >>> observation["task"]
        array([0.5, 0.5], dtype=float32)

    :param env: Environment whose innermost layer is a ``TaskEnv``
    :raises TypeError: if it is something else
    :raises ValueError: if its observation has the key ``"task"`` already
    """

    def __init__(self, env: gym.Env) -> None:
        check_instance("env", env, gym.Env, "a Gymnasium environment")
        super().__init__(env)
        self._task_env: TaskEnv = check_instance("env", env.unwrapped, TaskEnv, "an environment around a TaskEnv")
        own = env.observation_space
        keys = own.spaces if isinstance(own, spaces.Dict) else {"observation": own}
        if "task" in keys:
            raise ValueError(
                f"`env` must not have an observation with the key 'task', which the wrapper adds; got {own}"
            )
        task = spaces.Box(-np.inf, np.inf, shape=self._features().shape, dtype=np.float32)
        self.observation_space = spaces.Dict({**keys, "task": task})

    def observation(self, observation: Any) -> dict[str, Any]:
        own = observation if isinstance(observation, dict) else {"observation": observation}
        return {**own, "task": self._features()}

    def _features(self) -> np.ndarray:
        return self._task_env.task_features(self._task_env.get_task())


def check_box_action(action: Any, size: int) -> np.ndarray:
    """Check that an action is ``size`` finite numbers, and return it as an array of float64."""
    try:
        array = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise ValueError(f"`action` must be {size} finite numbers in [-1, 1], got {action!r}")
    return array


def check_range(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """Check that an argument is a pair of numbers (lowest, highest) within [``low``, ``high``], and return it."""
    try:
        first, last = (check_number(name, bound) for bound in value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a pair of finite numbers (low, high), got {value!r}") from error
    if not low <= first <= last <= high:
        raise ValueError(f"`{name}` must satisfy {low:g} <= low <= high <= {high:g}, got {value!r}")
    return first, last
