"""Normalisation of observations by the running statistics of ``VecNormalize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from msgspec import Meta
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.sharing.limits import MAX_KEYS
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, Record, shown

_Array = np.ndarray[Any, Any]
_NotNegative = Annotated[float, Meta(ge=0)]


class StatisticsRecord(Record):
    """How observations are normalised. The means and variances are tensors of the file."""

    keys: Annotated[list[str], Meta(max_length=MAX_KEYS)] | None
    clip_obs: _NotNegative
    epsilon: _NotNegative

    def tensor_shapes(self, observation_space: spaces.Space[Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the means and variances by the names of the tensors."""
        parts: dict[Any, Any] = (
            observation_space.spaces if isinstance(observation_space, spaces.Dict) else {None: observation_space}
        )
        keys = self.keys_or_none()
        if len(set(keys)) < len(keys) or not all(isinstance(parts.get(key), spaces.Box) for key in keys):
            raise InvalidAgentFile(
                "normalization.keys must be keys of the observation with a Box, each once, and null for observations "
                f"other than a Dict, got {shown(self.keys)}"
            )
        return {name: parts[key].shape for key in keys for name in _tensor_names(key)}

    def keys_or_none(self) -> list[str | None]:
        """:return: Keys that are normalised, which is None alone if observations are not dictionaries"""
        return [None] if self.keys is None else [*self.keys]


class ObservationStatistics(NamedTuple):
    """
    Normalisation of observations, with the arithmetic of ``VecNormalize.normalize_obs``.

    :param key_stats: Mean and variance by key of the Dict observation, or under the key None for other observations
    :param clip_obs: Largest absolute value
    :param epsilon: Added to variances
    """

    key_stats: Mapping[str | None, tuple[_Array, _Array]]
    clip_obs: float
    epsilon: float

    @classmethod
    def from_vec_normalize(cls, vec_normalize: VecNormalize | None) -> ObservationStatistics | None:
        """Return the statistics of a wrapper, or None if it does not normalise observations."""
        if vec_normalize is None or not vec_normalize.norm_obs:
            return None
        rms: Any = vec_normalize.obs_rms
        key_rms = {key: rms[key] for key in vec_normalize.norm_obs_keys or ()} if isinstance(rms, dict) else {None: rms}
        key_stats = {key: (np.asarray(each.mean), np.asarray(each.var)) for key, each in key_rms.items()}
        return cls(key_stats, float(vec_normalize.clip_obs), float(vec_normalize.epsilon))

    def to_record(self) -> StatisticsRecord:
        """:return: The record that describes these statistics"""
        keys = [key for key in self.key_stats if key is not None]
        return StatisticsRecord(None if None in self.key_stats else keys, self.clip_obs, self.epsilon)

    def to_tensors(self) -> dict[str, th.Tensor]:
        """:return: Means and variances by the names of the tensors"""
        return {
            name: th.as_tensor(np.array(array, dtype=np.float64))
            for key, stats in self.key_stats.items()
            for name, array in zip(_tensor_names(key), stats, strict=True)
        }

    @classmethod
    def from_tensors(cls, record: StatisticsRecord, tensors: Mapping[str, th.Tensor]) -> ObservationStatistics:
        """Return the statistics of a record from the tensors of :meth:`StatisticsRecord.tensor_shapes`."""
        key_stats: dict[str | None, tuple[_Array, _Array]] = {}
        for key in record.keys_or_none():
            mean_name, var_name = _tensor_names(key)
            mean, var = tensors[mean_name].numpy(), tensors[var_name].numpy()
            if (var < 0).any() or (var + record.epsilon <= 0).any():
                raise InvalidAgentFile(f"tensor {var_name!r} has a variance that is not positive")
            key_stats[key] = mean, var
        return cls(key_stats, record.clip_obs, record.epsilon)

    def normalize(self, observation: Any) -> Any:
        """Return observations in float32; keys of a Dict observation without statistics are unchanged."""
        if isinstance(observation, dict) is (None in self.key_stats):
            raise ValueError(f"`observation` must be {'an array' if None in self.key_stats else 'a dictionary'}")
        if isinstance(observation, dict):
            normalized = {key: self._normalize(observation[key], stats) for key, stats in self.key_stats.items()}
            return {**observation, **normalized}
        return self._normalize(observation, self.key_stats[None])

    def _normalize(self, observation: Any, stats: tuple[_Array, _Array]) -> _Array:
        mean, var = stats
        scaled = (observation - mean) / np.sqrt(var + self.epsilon)
        return np.asarray(np.clip(scaled, -self.clip_obs, self.clip_obs).astype(np.float32))


def _tensor_names(key: str | None) -> tuple[str, str]:
    """Return the names of the mean and the variance of a key."""
    suffix = "" if key is None else f".{key}"
    return f"observations.mean{suffix}", f"observations.var{suffix}"
