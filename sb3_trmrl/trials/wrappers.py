"""Two wrappers that turn a family of tasks into the meta-reinforcement-learning problem TrMRL learns.

* ``MultiEpisodeTrial`` - several episodes of one task as a single Gymnasium episode, the *trial*
* ``PreviousTransitionObservation`` - adds the last action, reward and end of episode to the observation

The order is ``PreviousTransitionObservation(MultiEpisodeTrial(env))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_trmrl.common.checks import check_instance, check_option, check_positive_int
from sb3_trmrl.common.plain_state import layer_states, load_layer_states, plain_state, set_plain_state

__all__ = ["MultiEpisodeTrial", "PreviousTransitionObservation", "trials_of"]

# What wrappers around the inner environment write about an *inner* episode. SB3 reads the same keys as statements about
# its own episode, the trial, so they stop here.
_INNER_EPISODE_KEYS = ("episode", "TimeLimit.truncated", "terminal_observation")


def layers_of(env: gym.Env) -> list[gym.Env]:
    """
    :param env: Environment
    :return: The environment and everything it wraps, outermost first
    """
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def trials_of(env: gym.Env) -> MultiEpisodeTrial | None:
    """
    :param env: Environment
    :return: The layer that plays trials, if there is one
    """
    return next((layer for layer in layers_of(env) if isinstance(layer, MultiEpisodeTrial)), None)


class MultiEpisodeTrial(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Plays several episodes of one task, a *trial*, as a single Gymnasium episode.

    Every ``reset()`` starts a trial: a new task is drawn through the environment's ``sample_tasks(1)`` and
    ``set_task(task)`` (the convention of RLlib and garage), unless ``reset(options={"task": task})`` gives it; the
    other options go to every inner reset of the trial. When an inner episode ends, ``step()`` resets the environment by
    itself, with the same task and without reseeding, and returns the reward of the finished step with the *first
    observation of the next inner episode*. Only the last inner episode ends the trial. ``reset(seed=...)`` seeds the
    environment and the drawing of tasks, and starts ``tasks`` from the first; ``reset()`` goes on from there.

    What ``info`` says, small because vectorised environments copy it at each step:

    * ``"episode_index"`` (always): the inner episode the returned observation belongs to, from 0.
    * ``"new_episode"`` (always): whether the returned observation is the first of inner episode 1, 2, ...
    * ``"task"`` (at resets, inner boundaries and the trial's end): what ``get_task()`` returns.
    * ``"episode_returns"``, ``"episode_lengths"`` (at inner boundaries and the trial's end): tuples, one entry for each
      finished inner episode; ``"episode_successes"`` likewise once the environment has written ``"is_success"``:
      whether it was true at any step. ``"is_success"`` at the trial's end is that of the last inner episode.

    The rest of the environment's own ``info`` is passed on, less what its wrappers say about the inner episode
    (``"episode"``, ``"TimeLimit.truncated"``).

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
        :param env: Environment with the methods ``sample_tasks(n) -> list``, ``set_task(task)`` and ``get_task()``, its
            own or of a wrapper inside it
        :param episodes_per_trial: Number E of inner episodes, at least 1
        :param trial_end: How the trial ends for the agent: ``"terminated"``, ``"truncated"`` (the value of the last
            observation is bootstrapped), or None: as its last inner episode ended
        :param tasks: Tasks visited in turn, one per trial, instead of sampling; those of an evaluation. Each instance
            starts with the first one, so several copies side by side visit the same ones
        :raises TypeError: if an argument has the wrong type or the environment lacks the task methods
        :raises ValueError: if an argument is out of range, or ``env`` is already one of our two wrappers
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
        self._check_layers(env)

        self.episodes_per_trial = episodes_per_trial
        self.trial_end = trial_end
        self.tasks = tasks
        self._sample_tasks: Callable[[int], list[Any]] = env.get_wrapper_attr("sample_tasks")
        self._set_task: Callable[[Any], None] = env.get_wrapper_attr("set_task")
        self._get_task: Callable[[], Any] = env.get_wrapper_attr("get_task")

        self._has_begun = False
        self._next_task = 0
        self._inner_options: dict[str, Any] | None = None
        self._needs_reset = True
        self._episode_return = 0.0
        self._episode_length = 0
        self._episode_returns: tuple[float, ...] = ()
        self._episode_lengths: tuple[int, ...] = ()
        self._success = False
        self._episode_successes: tuple[bool, ...] = ()
        self._says_success = False

    @staticmethod
    def _check_layers(env: gym.Env) -> None:
        """
        :param env: What the wrapper was given
        :raises TypeError: if the task methods are missing
        :raises ValueError: if one of our wrappers lies inside
        """
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

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        Start a trial.

        :param seed: Seeds everything: the environment, the drawing of tasks, and the position in ``tasks``
        :param options: ``{"task": task}`` sets the task of this trial; other entries go to the environment's resets
        :return: First observation and info
        :raises TypeError: if ``options`` is no dictionary, or the task is none of this environment
        :raises ValueError: if the task is out of range
        """
        check_instance("options", options, (Mapping, type(None)), "a dictionary or None")
        # Stays so if setting the task fails.
        self._needs_reset = True
        self._has_begun = True
        inner_options = dict(options or {})
        given = "task" in inner_options
        task = inner_options.pop("task", None)
        self._inner_options = inner_options or None
        if seed is not None:
            self._next_task = 0

        if given:
            self._set_task(task)
        elif self.tasks is not None:
            self._set_task(self.tasks[self._next_task])
            self._next_task = (self._next_task + 1) % len(self.tasks)
        else:
            if seed is not None:
                # Whichever layer holds the generator that draws the tasks, this seeds it. The second reset below goes
                # on with the stream, so that task and initial state are not made of the same random numbers.
                self.env.reset(seed=seed, options=self._inner_options)
                seed = None
            drawn = self._sample_tasks(1)
            if len(drawn) != 1:
                raise ValueError(f"sample_tasks(1) must return one task, it returned {len(drawn)}: {drawn!r}")
            self._set_task(drawn[0])

        observation, info = self.env.reset(seed=seed, options=self._inner_options)
        self._needs_reset = False
        self._episode_return, self._episode_length = 0.0, 0
        self._episode_returns, self._episode_lengths = (), ()
        self._success, self._episode_successes = False, ()
        info["task"] = self._get_task()
        info["episode_index"] = 0
        info["new_episode"] = False
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """
        One step of the inner environment, and the reset between two inner episodes.

        :param action: Action
        :return: Observation (at an inner boundary the first one of the next inner episode), reward of this step,
            whether the *trial* terminated, whether it was truncated, info
        :raises ResetNeeded: before the first ``reset()`` and after the end of a trial
        """
        if self._needs_reset:
            raise ResetNeeded("Cannot call env.step() before calling env.reset(), or after the end of a trial")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._episode_return += float(reward)
        self._episode_length += 1
        if "is_success" in info:
            self._says_success = True
            self._success = bool(self._success or info["is_success"])

        ended = terminated or truncated
        if ended:
            self._episode_returns += (self._episode_return,)
            self._episode_lengths += (self._episode_length,)
            for key in _INNER_EPISODE_KEYS:
                info.pop(key, None)
            info["task"] = self._get_task()
            info["episode_returns"] = self._episode_returns
            info["episode_lengths"] = self._episode_lengths
            self._episode_successes += (self._success,)
            if self._says_success:  # now or in an earlier episode: some environments write it in some episodes only
                info["episode_successes"], info["is_success"] = self._episode_successes, self._success
            self._success = False
            if len(self._episode_returns) < self.episodes_per_trial:
                observation, _ = self.env.reset(options=self._inner_options)
                self._episode_return, self._episode_length = 0.0, 0
                info["episode_index"] = len(self._episode_returns)
                info["new_episode"] = True
                return observation, reward, False, False, info
            self._needs_reset = True
            if self.trial_end is not None:
                terminated, truncated = self.trial_end == "terminated", self.trial_end == "truncated"

        info["episode_index"] = len(self._episode_returns) - ended
        info["new_episode"] = False
        return observation, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any] | None:
        """
        :return: All that decides how the trial goes on, the environment's own ``state_dict()`` included; None if the
            environment has no such method
        """
        # Before the first reset the environment may have no task yet
        layers = layer_states(self.env) if self._has_begun else []
        return None if layers is None else {"attributes": plain_state(self), "layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from a state, bit by bit as the trial that it was taken from.

        :param state: What ``state_dict()`` of a wrapper made with the same arguments returned
        """
        load_layer_states(self.env, state["layers"])
        set_plain_state(self, state["attributes"])


class PreviousTransitionObservation(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Makes the observation a Dict that also tells the last action, the last reward and whether an episode just ended.

    The keys are ``"observation"`` (or those of the environment's own Dict, unchanged), ``"prev_action"`` (float32: a
    Box action flattened, one-hot for each Discrete or MultiDiscrete component, MultiBinary as it is), ``"prev_reward"``
    and ``"prev_done"`` (float32, shape (1,)). They are zero at ``reset()``. This is the input of RL^2 (Duan et al.
    2016) and the token of TrMRL's working memory as its released code has it. ``gymnasium.wrappers.FlattenObservation``
    makes one Box of it.

    Around a ``MultiEpisodeTrial`` the first observation of each later inner episode has ``prev_done = 1`` and, with
    ``across_episodes="keep"``, the last action and reward of the episode before, as in RL^2; with ``"zero"`` these two
    are zero there, so that nothing but the memory can carry knowledge from one episode to the next. The observation
    that ends a trial has ``prev_done = 1`` only if the trial terminated: after a truncation its value is that of going
    on.

    Example:
        >>> import gymnasium as gym
        >>> env = PreviousTransitionObservation(gym.make("CartPole-v1"))
        >>> observation, _ = env.reset(seed=123)
        >>> sorted(observation)
        ['observation', 'prev_action', 'prev_done', 'prev_reward']
        >>> observation, *_ = env.step(1)
        >>> observation["prev_action"], observation["prev_reward"], observation["prev_done"]
        (array([0., 1.], dtype=float32), array([1.], dtype=float32), array([0.], dtype=float32))
    """

    def __init__(self, env: gym.Env, across_episodes: str = "keep") -> None:
        """
        :param env: Environment with a Box, Discrete, MultiDiscrete or MultiBinary action space
        :param across_episodes: ``"keep"`` or ``"zero"`` the last action and reward in the first observation of an inner
            episode other than the first; makes no difference without a ``MultiEpisodeTrial``
        :raises TypeError: if the action space is of another kind
        :raises ValueError: if ``across_episodes`` is unknown, or the environment's Dict has one of the new keys
        """
        check_instance("env", env, gym.Env, "a Gymnasium environment")
        gym.utils.RecordConstructorArgs.__init__(self, across_episodes=across_episodes)
        gym.Wrapper.__init__(self, env)
        self.across_episodes = check_option("across_episodes", across_episodes, ("keep", "zero"))
        action_space, self._encode = _action_encoding(env.action_space)
        previous: dict[str, spaces.Space[Any]] = {
            "prev_action": action_space,
            "prev_reward": spaces.Box(-np.inf, np.inf, shape=(1,), dtype=np.float32),
            "prev_done": spaces.Box(0.0, 1.0, shape=(1,), dtype=np.float32),
        }
        own_space = env.observation_space
        self._is_dict = isinstance(own_space, spaces.Dict)
        own = dict(own_space.spaces) if isinstance(own_space, spaces.Dict) else {"observation": own_space}
        collisions = sorted(own.keys() & previous.keys())
        if collisions:
            keys = ", ".join(map(repr, collisions))
            raise ValueError(f"`env` must have none of the new keys in its observation, it has {keys}: {env}")
        self.observation_space = spaces.Dict({**own, **previous})
        self._n_actions = action_space.shape[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        :param seed: As in Gymnasium
        :param options: As in Gymnasium
        :return: First observation, with no previous transition, and info
        """
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation, np.zeros(self._n_actions, dtype=np.float32), 0.0, False), info

    def step(self, action: Any) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """
        :param action: Action, entered into the observation as it is given here
        :return: Observation that tells this transition, and the rest as the environment returned it
        """
        # Before the step: the caller may reuse the array.
        prev_action = self._encode(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        prev_reward, new_episode = float(reward), info.get("new_episode", False)
        if new_episode and self.across_episodes == "zero":
            prev_action[:] = 0.0
            prev_reward = 0.0
        observation = self._observation(observation, prev_action, prev_reward, terminated or new_episode)
        return observation, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any] | None:
        """
        :return: The state of the layers inside, as this one has none of its own; None if one of them cannot give it
        """
        layers = layer_states(self.env)
        return None if layers is None else {"layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: What ``state_dict()`` returned
        """
        load_layer_states(self.env, state["layers"])

    def _observation(
        self, observation: Any, prev_action: np.ndarray, prev_reward: float, prev_done: bool
    ) -> dict[str, Any]:
        own = observation if self._is_dict else {"observation": observation}
        return {
            **own,
            "prev_action": prev_action,
            "prev_reward": np.array((prev_reward,), dtype=np.float32),
            "prev_done": np.array((prev_done,), dtype=np.float32),
        }


def _action_encoding(space: spaces.Space[Any]) -> tuple[spaces.Box, Callable[[Any], np.ndarray]]:
    """
    :param space: Action space
    :return: The space of encoded actions, shape (A,), and the function that encodes one action as a new float32 array
    :raises TypeError: if actions of this space have no flat form
    """
    if isinstance(space, spaces.Box):
        low, high = (bound.astype(np.float32).ravel() for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=np.float32), _flat
    if isinstance(space, spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, shape=(int(np.prod(space.shape)),), dtype=np.float32), _flat
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        n_values = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec).astype(np.int64)
        one_hot = _OneHot(n_values, np.ravel(space.start).astype(np.int64), str(space))
        return spaces.Box(0.0, 1.0, shape=(one_hot.size,), dtype=np.float32), one_hot
    raise TypeError(f"`env` must have a Box, Discrete, MultiDiscrete or MultiBinary action space, got {space}")


def _flat(action: Any) -> np.ndarray:
    return np.array(action, dtype=np.float32).ravel()


class _OneHot:
    """
    One-hot code of a Discrete or MultiDiscrete action, one component after the other.

    :param n_values: Number of values of each component, shape (C,)
    :param start: Lowest value of each component, shape (C,)
    :param space: What to call the action space in an error
    """

    def __init__(self, n_values: np.ndarray, start: np.ndarray, space: str) -> None:
        self.size = int(n_values.sum())
        self._start, self._end = start, start + n_values
        self._offset = np.cumsum(n_values) - n_values - start
        self._space = space

    def __call__(self, action: Any) -> np.ndarray:
        value = np.ravel(action)
        is_known = value.dtype.kind in "biu" and value.shape == self._start.shape
        if not is_known or ((value < self._start) | (value >= self._end)).any():
            raise ValueError(f"`action` must be in the action space, {self._space}; got {action!r}")
        encoded = np.zeros(self.size, dtype=np.float32)
        encoded[self._offset + value.astype(np.int64)] = 1.0
        return encoded
