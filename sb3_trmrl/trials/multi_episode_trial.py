"""The wrapper that plays several episodes of one task as a single Gymnasium episode, a trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsFloat
from weakref import WeakSet

import gymnasium as gym
from gymnasium.error import ResetNeeded

from sb3_trmrl.common.checks import check_instance, check_option, check_positive_int
from sb3_trmrl.common.plain_state import layer_states, load_layer_states, plain_state, set_plain_state
from sb3_trmrl.trials.previous_transition import PreviousTransitionObservation

# Wrappers inside the trial write these keys for an inner episode. SB3 would apply them to its own episode, the trial,
# so they are removed.
_INNER_EPISODE_KEYS = ("episode", "TimeLimit.truncated", "terminal_observation")


#: Trials that have begun the first of their tasks and not ended it
_AT_FIRST_TASK: WeakSet[Any] = WeakSet()


def layers_of(env: gym.Env) -> list[gym.Env]:
    """Return the environment and everything that it wraps, the outermost layer first."""
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def trials_of(env: gym.Env) -> MultiEpisodeTrial | None:
    """Return the layer of an environment that plays trials, or None."""
    return next((layer for layer in layers_of(env) if isinstance(layer, MultiEpisodeTrial)), None)


class MultiEpisodeTrial(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Plays several episodes of one task, a *trial*, as a single Gymnasium episode.

    Every ``reset()`` starts a trial. It samples a new task with the environment's ``sample_tasks(1)`` and sets it with
    ``set_task(task)`` (the convention of RLlib and garage), unless ``reset(options={"task": task})`` gives the task;
    the other options are passed to every inner reset of the trial. When an inner episode ends, ``step()`` resets the
    environment with the same task and without a seed, and returns the reward of the finished step with the *first
    observation of the next inner episode*. Only the end of the last inner episode ends the trial. ``reset(seed=...)``
    seeds the environment and the sampling of tasks, and restarts ``tasks`` from the first one.

    ``info`` is small because vectorised environments copy it at every step. It contains

    * ``"episode_index"`` (always): the inner episode that the returned observation belongs to, from 0.
    * ``"new_episode"`` (always): whether the returned observation is the first one of inner episode 1, 2, ...
    * ``"task"`` (at resets, between inner episodes and at the end of the trial): the result of ``get_task()``.
    * ``"episode_terminated"`` (between inner episodes and at the end of the trial): whether the inner episode
      terminated, rather than being truncated.
    * ``"episode_returns"``, ``"episode_lengths"`` (between inner episodes and at the end of the trial): tuples with one
      entry for each finished inner episode. ``"episode_successes"`` is added if the environment writes
      ``"is_success"``: whether it was true at any step of the episode. At the end of the trial ``"is_success"`` is that
      of the last inner episode.

    The rest of the environment's ``info`` is passed on, except for the keys that its wrappers write for an inner
    episode (``"episode"``, ``"TimeLimit.truncated"``).

    Example:
        >>> from sb3_trmrl.envs.bandit import BernoulliBanditEnv
        >>> env = MultiEpisodeTrial(BernoulliBanditEnv(n_arms=2, n_pulls=3), episodes_per_trial=2)
        >>> _, info = env.reset(seed=0, options={"task": (0.0, 1.0)})
        >>> info
        {'task': (0.0, 1.0), 'episode_index': 0, 'new_episode': False}
        >>> for _ in range(6):
        ...     _, reward, terminated, truncated, info = env.step(1)
        ...     print(reward, terminated, info["episode_index"], info.get("episode_returns"))
        1.0 False 0 None
        1.0 False 0 None
        1.0 False 1 (3.0,)
        1.0 False 1 None
        1.0 False 1 None
        1.0 True 1 (3.0, 3.0)
    """

    def __init__(
        self,
        env: gym.Env,
        episodes_per_trial: int = 2,
        trial_end: str | None = None,
        tasks: Iterable[Any] | None = None,
    ) -> None:
        """
        :param env: Environment with the methods ``sample_tasks(n) -> list``, ``set_task(task)`` and ``get_task()``,
            its own or those of a wrapper inside it
        :param episodes_per_trial: Number of inner episodes, at least 1
        :param trial_end: How the trial ends: ``"terminated"``, ``"truncated"`` (the value of the last observation is
            bootstrapped), or None: in the same way as its last inner episode
        :param tasks: Tasks to visit in turn, one per trial, instead of sampling, for example those of an evaluation.
            Every instance starts with the first one, so that copies of the environment visit the same tasks
        :raises TypeError: if an argument has the wrong type or the environment lacks one of the methods
        :raises ValueError: if an argument is out of range, or ``env`` already contains one of our two wrappers
        """
        check_instance("env", env, gym.Env, "a Gymnasium environment")
        episodes_per_trial = check_positive_int("episodes_per_trial", episodes_per_trial)
        if trial_end is not None:
            check_option("trial_end", trial_end, ("terminated", "truncated"))
        if tasks is not None:
            if isinstance(tasks, (str, bytes)) or not isinstance(tasks, Iterable):
                raise TypeError(f"`tasks` must be a sequence of tasks or None, got {tasks!r}")
            tasks = tuple(tasks)
            if not tasks:
                raise ValueError(f"`tasks` must hold at least one task, got {tasks!r}")
        gym.utils.RecordConstructorArgs.__init__(
            self, episodes_per_trial=episodes_per_trial, trial_end=trial_end, tasks=tasks
        )
        gym.Wrapper.__init__(self, env)
        _check_layers(env)

        self.episodes_per_trial = episodes_per_trial
        self.trial_end = trial_end
        self.tasks = tasks
        self._share: tuple[Any, ...] | None = None
        self._sample_tasks: Callable[[int], list[Any]] = env.get_wrapper_attr("sample_tasks")
        self._set_task: Callable[[Any], None] = env.get_wrapper_attr("set_task")
        self._get_task: Callable[[], Any] = env.get_wrapper_attr("get_task")

        self._initial_task = self._find_initial_task()
        self._has_begun = False
        self._next_task = 0
        self._inner_options: dict[str, Any] | None = None
        self._needs_reset = True
        self._says_success = False
        self._start_records()

    def _start_records(self) -> None:
        self._episode_return = 0.0
        self._episode_length = 0
        self._episode_returns: tuple[float, ...] = ()
        self._episode_lengths: tuple[int, ...] = ()
        self._success = False
        self._episode_successes: tuple[bool, ...] = ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        Start a trial.

        :param seed: Seed of the environment and of the sampling of tasks; also restarts ``tasks`` from the first one
        :param options: ``{"task": task}`` sets the task of this trial; other entries go to the environment's resets
        :return: First observation and info
        :raises TypeError: if ``options`` is not a dictionary, or the task is not a task of this environment
        :raises ValueError: if the task is out of range
        """
        check_instance("options", options, (type(None), Mapping), "a dictionary or None")
        self._needs_reset = True  # until the task has been set
        self._has_begun = True
        inner_options = dict(options or {})
        has_task = "task" in inner_options
        task = inner_options.pop("task", None)
        self._inner_options = inner_options or None
        if seed is not None:
            self._next_task = 0

        if has_task:
            self._set_task(task)
        elif self.tasks is not None:
            if len(self.tasks) > 1:
                self._warn_of_copies()
            self._set_task(self.tasks[self._next_task % len(self.tasks)])  # they may have been replaced by fewer
            self._next_task = (self._next_task + 1) % len(self.tasks)
        else:
            if seed is not None:
                self._set_initial_task(seed)
                # This seeds whichever layer holds the generator that samples the tasks. The reset below continues its
                # stream: task and initial state must not come from the same random numbers.
                self.env.reset(seed=seed, options=self._inner_options)
                seed = None
            self._set_task(self._sample_task())

        observation, info = self.env.reset(seed=seed, options=self._inner_options)
        info = dict(info)  # the environment may keep its own
        self._needs_reset = False
        self._start_records()
        info["task"] = self._get_task()
        info["episode_index"] = 0
        info["new_episode"] = False
        return observation, info

    def take_share(self, first: int, step: int) -> None:
        """
        Visit a part of the tasks only, unless the tasks are such a part already; see :func:`~sb3_trmrl.share_tasks`.

        :param first: Number of the first task of the share, counted on from 0 beyond the last one
        :param step: Every ``step``-th task belongs to the share
        """
        if self.tasks is not None and self.tasks is not self._share:
            self.tasks = self._share = self.tasks[first % len(self.tasks) :: step]

    def _warn_of_copies(self) -> None:
        """Warn if another copy has begun the same tasks: all copies would visit the first few of them."""
        _AT_FIRST_TASK.discard(self)
        if self._next_task > 0:
            return
        tasks: Any = self.tasks
        same = [(len(each.tasks), repr(each.tasks[0])) == (len(tasks), repr(tasks[0])) for each in _AT_FIRST_TASK]
        if any(same):
            warnings.warn(
                "several copies of an environment visit the same tasks in the same order, and together they meet only "
                "a few of them. Divide the tasks with sb3_trmrl.share_tasks(vec_env) before the first reset, or use "
                "evaluate_adaptation",
                UserWarning,
                stacklevel=4,
            )
        _AT_FIRST_TASK.add(self)

    def close(self) -> None:
        _AT_FIRST_TASK.discard(self)
        super().close()

    def _sample_task(self) -> Any:
        sampled = self._sample_tasks(1)
        if len(sampled) != 1:
            raise ValueError(f"sample_tasks(1) must return one task, it returned {len(sampled)}: {sampled!r}")
        return sampled[0]

    def _find_initial_task(self) -> Any:
        """Return the task that the environment has been made with, or None: MetaWorld's have none, for example."""
        try:
            return self._get_task()
        except Exception:  # environments fail in their own ways
            return None

    def _set_initial_task(self, seed: int) -> None:
        """Set the task for a reset that seeds. It must not be that of the last trial, which the draws may depend on."""
        task = self._initial_task
        if task is None:
            self.unwrapped.np_random, _ = gym.utils.seeding.np_random(seed)
            task = self._sample_task()
        self._set_task(task)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """
        Step the environment, and reset it between two inner episodes.

        :param action: Action
        :return: Observation (at the end of an inner episode, the first one of the next), reward of this step, whether
            the *trial* terminated, whether it was truncated, info
        :raises ResetNeeded: before the first ``reset()`` and after the end of a trial
        """
        if self._needs_reset:
            raise ResetNeeded("Cannot call env.step() before calling env.reset(), or after the end of a trial")
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = dict(info)
        self._episode_return += float(reward)
        self._episode_length += 1
        if "is_success" in info:
            self._says_success = True
            self._success = bool(self._success or info["is_success"])
        ended = bool(terminated or truncated)
        if ended:
            self._record_episode(info, bool(terminated))
        new_episode = ended and len(self._episode_returns) < self.episodes_per_trial
        if new_episode:
            observation, _ = self.env.reset(options=self._inner_options)
            terminated = truncated = False
        elif ended:
            self._needs_reset = True
            _AT_FIRST_TASK.discard(self)
            if self.trial_end is not None:
                terminated, truncated = self.trial_end == "terminated", self.trial_end == "truncated"
        info["episode_index"] = len(self._episode_returns) - (ended and not new_episode)
        info["new_episode"] = new_episode
        return observation, reward, terminated, truncated, info

    def _record_episode(self, info: dict[str, Any], terminated: bool) -> None:
        """Add the inner episode that has just ended to the records and to ``info``."""
        self._episode_returns += (self._episode_return,)
        self._episode_lengths += (self._episode_length,)
        self._episode_successes += (self._success,)
        for key in _INNER_EPISODE_KEYS:
            info.pop(key, None)
        info["task"] = self._get_task()
        info["episode_terminated"] = terminated
        info["episode_returns"] = self._episode_returns
        info["episode_lengths"] = self._episode_lengths
        if self._says_success:  # in this or an earlier episode: some environments write it only in some episodes
            info["episode_successes"], info["is_success"] = self._episode_successes, self._success
        self._episode_return, self._episode_length, self._success = 0.0, 0, False

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of the trial and of everything inside it, or None if a layer cannot give its state."""
        # Before the first reset, the environment may have no task yet
        layers = layer_states(self.env) if self._has_begun else []
        return None if layers is None else {"attributes": plain_state(self), "layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit by bit from the state of a wrapper that was made with the same arguments."""
        load_layer_states(self.env, state["layers"])
        set_plain_state(self, state["attributes"])


def _check_layers(env: gym.Env) -> None:
    """Raise ``ValueError`` if one of our wrappers is inside, ``TypeError`` if a method is missing."""
    layers = layers_of(env)
    for wrapper in (PreviousTransitionObservation, MultiEpisodeTrial):
        if any(isinstance(layer, wrapper) for layer in layers):
            raise ValueError(
                f"`env` of MultiEpisodeTrial already contains {wrapper.__name__}: {env}. The order "
                "is PreviousTransitionObservation(MultiEpisodeTrial(env)), each once; the environments that "
                "sb3_trmrl registers contain both."
            )
    missing = [
        name
        for name in ("sample_tasks", "set_task", "get_task")
        if not (env.has_wrapper_attr(name) and callable(env.get_wrapper_attr(name)))
    ]
    if missing:
        raise TypeError(
            "`env` must have the methods sample_tasks(n), set_task(task) and get_task(); "
            f"{env} lacks {', '.join(missing)}"
        )
