"""Transitions of a trial, read from the observations of :class:`PreviousTransitionObservation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs

from sb3_trmrl.algorithms.arguments import MAX_OBSERVATION
from sb3_trmrl.common.checks import check_finite, check_instance

#: Keys that the wrapper adds
PREVIOUS = ("prev_action", "prev_reward", "prev_done")


def check_keys(observation: Any, space: spaces.Dict) -> None:
    """Require a dictionary with the keys of the observation space."""
    keys = list(space.spaces)
    if not isinstance(observation, dict) or set(observation) != set(keys):
        given = f"one with {list(observation)}" if isinstance(observation, dict) else type(observation).__name__
        raise ValueError(f"`observation` must be a dictionary with the keys {keys}, got {given}")


def check_observation(observation: Any, space: spaces.Space[Any]) -> None:
    """Require a dictionary of finite numbers for the keys of the observation space."""
    check_instance("observation", observation, dict, "a dictionary")
    assert isinstance(space, spaces.Dict)
    check_keys(observation, space)
    check_finite("observation", observation, MAX_OBSERVATION)


def checked_starts(episode_start: Any, n_envs: int) -> np.ndarray:
    """Return ``predict``'s mask of environments in which a trial begins, (B,): nowhere if it is None."""
    starts = np.zeros(n_envs, dtype=bool) if episode_start is None else np.asarray(episode_start).reshape(-1)
    if starts.shape != (n_envs,) or starts.dtype.kind not in "biuf":
        raise ValueError(
            f"`episode_start` must have one boolean for each of {n_envs} observation(s), got {episode_start}"
        )
    return starts.astype(bool)


class Token(NamedTuple):
    """
    An observation, and the transition that led to it, as float32.

    :param state: The environment's own observation, flat, (B, S): images divided by 255, one-hot classes
    :param prev_action: (B, A): one-hot for classes
    :param prev_reward: (B, 1)
    :param prev_done: Whether the state is the first of a later episode of the trial, (B, 1). Then action and reward
        are those of the previous episode's last step, or zero
    """

    state: th.Tensor
    prev_action: th.Tensor
    prev_reward: th.Tensor
    prev_done: th.Tensor


class TokenReader:
    """
    Splits the observations of an environment with the previous transition.

    :param space: Dict space with the keys ``PREVIOUS`` and at least one other
    :raises TypeError: if the space is not a Dict
    :raises ValueError: if a key is missing
    """

    def __init__(self, space: spaces.Space[object]) -> None:
        advice = "wrap the environment in sb3_trmrl.PreviousTransitionObservation"
        check_instance("env", space, spaces.Dict, f"an environment with a Dict observation space: {advice}")
        assert isinstance(space, spaces.Dict)
        missing = [key for key in PREVIOUS if key not in space.spaces]
        self.spaces = {key: value for key, value in space.spaces.items() if key not in PREVIOUS}
        if missing or not self.spaces:
            raise ValueError(
                f"`env` must have the observations {', '.join(PREVIOUS)} and one of its own, got "
                f"{', '.join(space.spaces)}: {advice}"
            )
        #: Sizes of a flat state and of an encoded action
        self.state_dim = sum(get_flattened_obs_dim(own) for own in self.spaces.values())
        self.action_dim = get_flattened_obs_dim(space.spaces["prev_action"])

    def __call__(self, observations: Mapping[str, th.Tensor]) -> Token:
        """
        :param observations: A batch of observations as tensors, (B, ...) for each key
        :return: The same, flat
        """
        action, reward, done = (observations[key].float().flatten(start_dim=1) for key in PREVIOUS)
        return Token(self.states(observations), action, reward, done)

    def states(self, observations: Mapping[str, th.Tensor]) -> th.Tensor:
        """
        :param observations: A batch of observations as tensors, without the previous transition if that is not needed
        :return: Flat states, (B, S)
        """
        own = [preprocess_obs(observations[key], space) for key, space in self.spaces.items()]
        return th.cat([part.float().flatten(start_dim=1) for part in own if isinstance(part, th.Tensor)], dim=1)
