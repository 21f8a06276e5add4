"""Statistics of observations, as VecNormalize keeps them, in a form that can be shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.sharing.limits import MAX_KEYS
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, fields, name, number, sequence, shown


class MeanAndVariance(NamedTuple):
    """
    Statistics of one array.

    :param mean: Means, float64
    :param var: Variances, float64
    """

    mean: np.ndarray[Any, Any]
    var: np.ndarray[Any, Any]


class ObservationStatistics(NamedTuple):
    """
    What observations are normalised with, in the arithmetic of ``VecNormalize.normalize_obs``.

    :param of_key: Statistics by key of the Dict observation; for other observations under the key None
    :param clip_obs: Largest absolute value
    :param epsilon: Added to variances
    """

    of_key: Mapping[str | None, MeanAndVariance]
    clip_obs: float
    epsilon: float

    @classmethod
    def of(cls, vec_normalize: VecNormalize | None) -> ObservationStatistics | None:
        """
        :param vec_normalize: Wrapper with statistics, or None
        :return: Those of observations, None if they are not normalised
        """
        if vec_normalize is None or not vec_normalize.norm_obs:
            return None
        rms: Any = vec_normalize.obs_rms
        of_key: dict[str | None, RunningMeanStd] = {None: rms}
        if isinstance(rms, dict):
            of_key = {key: rms[key] for key in vec_normalize.norm_obs_keys or ()}
        found = {key: MeanAndVariance(np.asarray(one.mean), np.asarray(one.var)) for key, one in of_key.items()}
        return cls(found, float(vec_normalize.clip_obs), float(vec_normalize.epsilon))

    def normalize(self, observation: Any) -> Any:
        """
        :param observation: Observation of one or more environments, as the environment gives it
        :return: The same, normalised, in float32; keys of a Dict observation without statistics as they are
        :raises ValueError: if it is a dictionary and should not be, or the other way round
        """
        if isinstance(observation, dict) is (None in self.of_key):
            raise ValueError(f"`observation` must be {'an array' if None in self.of_key else 'a dictionary'}")
        if isinstance(observation, dict):
            normalized = {key: self._normalized(observation[key], rms) for key, rms in self.of_key.items()}
            return {**observation, **normalized}
        return self._normalized(observation, self.of_key[None])

    def _normalized(self, observation: Any, rms: MeanAndVariance) -> np.ndarray[Any, Any]:
        scaled = (observation - rms.mean) / np.sqrt(rms.var + self.epsilon)
        return np.asarray(np.clip(scaled, -self.clip_obs, self.clip_obs).astype(np.float32))

    def to_json(self) -> dict[str, Any]:
        """
        :return: JSON of all but the arrays
        """
        keys = None if None in self.of_key else list(self.of_key)
        return {"keys": keys, "clip_obs": self.clip_obs, "epsilon": self.epsilon}

    def tensors(self) -> dict[str, th.Tensor]:
        """
        :return: The arrays by name
        """
        return {
            tensor_name(key, part): th.as_tensor(np.array(array, dtype=np.float64))
            for key, rms in self.of_key.items()
            for part, array in rms._asdict().items()
        }


def tensor_name(key: str | None, part: str) -> str:
    """
    :param key: Key of a Dict observation, or None
    :param part: ``"mean"`` or ``"var"``
    :return: Name of the tensor in the file
    """
    return f"observations.{part}" if key is None else f"observations.{part}.{key}"


def keys_from_json(value: Any, observation_space: spaces.Space[Any]) -> list[str | None]:
    """
    :param value: Part of a document
    :param observation_space: Observation space of the agent
    :return: Keys that have statistics; for observations that are no Dict None alone
    :raises InvalidAgentFile: if these are not keys of the observation
    """
    where = "normalization.keys"
    if not isinstance(observation_space, spaces.Dict):
        if value is not None:
            raise InvalidAgentFile(f"{where} must be null without Dict observations, got {shown(value)}")
        return [None]
    keys = [name(key, f"{where}[{index}]") for index, key in enumerate(sequence(value, where, MAX_KEYS))]
    if len(set(keys)) < len(keys) or not set(keys) <= set(observation_space.spaces):
        raise InvalidAgentFile(f"{where} must be keys of the observation, each once, got {shown(keys)}")
    return list(keys)


def statistics_shapes(value: Any, observation_space: spaces.Space[Any]) -> dict[str, tuple[int, ...]]:
    """
    :param value: Part of a document: what the agent normalises, or None
    :param observation_space: Observation space of the agent
    :return: Shapes of the arrays that belong to it, by name
    :raises InvalidAgentFile: if it is not right
    """
    if value is None:
        return {}
    keys, _, _ = fields(value, "normalization", ["keys", "clip_obs", "epsilon"])
    shapes: dict[str, tuple[int, ...]] = {}
    for key in keys_from_json(keys, observation_space):
        space = observation_space
        if key is not None and isinstance(space, spaces.Dict):
            space = space[key]
        if not isinstance(space, spaces.Box):
            raise InvalidAgentFile(f"normalization is for a Box, not for {space}")
        shapes |= {tensor_name(key, part): space.shape for part in ("mean", "var")}
    return shapes


def statistics_from_json(
    value: Any, observation_space: spaces.Space[Any], tensors: Mapping[str, th.Tensor]
) -> ObservationStatistics | None:
    """
    :param value: Part of a document: what the agent normalises, or None
    :param observation_space: Observation space of the agent
    :param tensors: Tensors of the file, with those that :func:`statistics_shapes` names
    :return: The statistics
    :raises InvalidAgentFile: if a number is not right
    """
    if value is None:
        return None
    keys, clip_obs, epsilon = fields(value, "normalization", ["keys", "clip_obs", "epsilon"])
    added = number(epsilon, "normalization.epsilon", 0.0)
    found: dict[str | None, MeanAndVariance] = {}
    for key in keys_from_json(keys, observation_space):
        found[key] = MeanAndVariance(*(tensors[tensor_name(key, part)].numpy() for part in ("mean", "var")))
        if (found[key].var < 0).any() or (found[key].var + added <= 0).any():
            raise InvalidAgentFile(f"tensor {tensor_name(key, 'var')!r} has a variance that is not positive")
    return ObservationStatistics(found, number(clip_obs, "normalization.clip_obs", 0.0), added)
