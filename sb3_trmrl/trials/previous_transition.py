"""The wrapper that adds the last action, reward and end of an episode to the observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_trmrl.common.checks import check_instance, check_option
from sb3_trmrl.common.plain_state import layer_states, load_layer_states


class PreviousTransitionObservation(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Adds the last action, the last reward and the end of an episode to the observation, which becomes a Dict.

    The keys are ``"observation"`` (or those of the environment's own Dict, unchanged), ``"prev_action"`` (float32: a
    Box action flattened, one-hot for each Discrete or MultiDiscrete component, MultiBinary unchanged),
    ``"prev_reward"`` and ``"prev_done"`` (float32, shape (1,)). They are zero at ``reset()``. This is the input of RL^2
    (Duan et al. 2016) and the token of TrMRL's working memory in its released code.
    ``gymnasium.wrappers.FlattenObservation`` turns it into a single Box.

    Around a ``MultiEpisodeTrial``, the first observation of each later inner episode has ``prev_done = 1``. With
    ``across_episodes="keep"`` it also has the last action and reward of the previous episode, as in RL^2; with
    ``"zero"`` both are zero, and only the agent's memory can carry knowledge from one episode to the next. The last
    observation of a trial has ``prev_done = 1`` only if the trial terminated: after a truncation, its value is that of
    a trial that continues.

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
        :param across_episodes: ``"keep"`` or ``"zero"``: the last action and reward in the first observation of later
            inner episodes; has no effect without a ``MultiEpisodeTrial``
        :raises TypeError: if the action space has another type
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
        Reset the environment.

        :param seed: As in Gymnasium
        :param options: As in Gymnasium
        :return: First observation, in which the previous transition is zero, and info
        """
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation, np.zeros(self._n_actions, dtype=np.float32), 0.0, False), info

    def step(self, action: Any) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """
        Step the environment.

        :param action: Action, which the next observation contains
        :return: Observation with this transition; the rest is what the environment returned
        """
        prev_action = self._encode(action)  # before the step, as the caller may reuse the array
        observation, reward, terminated, truncated, info = self.env.step(action)
        prev_reward, new_episode = float(reward), info.get("new_episode", False)
        if new_episode and self.across_episodes == "zero":
            prev_action[:] = 0.0
            prev_reward = 0.0
        observation = self._observation(observation, prev_action, prev_reward, terminated or new_episode)
        return observation, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of the layers inside, or None if one cannot give it; the wrapper has none of its own."""
        layers = layer_states(self.env)
        return None if layers is None else {"layers": layers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a wrapper that was made with the same arguments."""
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
    """Return the space of encoded actions, shape (A,), and the function that encodes an action as a new array."""
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
    """One-hot code of a Discrete or MultiDiscrete action with C components, given their sizes and lowest values."""

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
