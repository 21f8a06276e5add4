"""Statistics over all ranks: of advantages, and of observations and returns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from sb3_trmrl.distributed.collectives import all_gather, all_reduce, broadcast, world_size


def moments(values: th.Tensor) -> tuple[int, th.Tensor, th.Tensor]:
    """
    :param values: Advantages of this rank's part of a minibatch, (B,)
    :return: Size, mean and standard deviation of the whole minibatch
    """
    if world_size() == 1:
        return len(values), values.mean(), values.std() if len(values) > 1 else values.new_zeros(())
    wide = values.double()
    # In a single message, whose latency matters more than the rounding of these sums in 64 bits
    count, total, squares = all_reduce(th.stack([th.ones_like(wide).sum(), wide.sum(), (wide**2).sum()]))
    mean = total / count
    variance = (squares - count * mean**2) / (count - 1).clamp(min=1)
    return int(count), mean.to(values.dtype), variance.clamp(min=0).sqrt().to(values.dtype)


class SharedStatistics:
    """
    Keeps the running statistics of ``VecNormalize`` the same on all ranks. During a rollout, each rank updates its own
    copy; :meth:`merge` then combines them.

    :param env: The training environment. Its statistics are replaced by those of rank 0
    """

    def __init__(self, env: VecEnv) -> None:
        self._statistics = list(_running_statistics(env))
        for own, main in zip(self._statistics, broadcast(self._statistics), strict=True):
            vars(own).update(vars(main))
        self._before = copy.deepcopy(self._statistics)

    def merge(self) -> None:
        """Add what the other ranks have seen since the last call, in float64."""
        if not self._statistics or world_size() == 1:
            return
        seen = [_difference(now, before) for now, before in zip(self._statistics, self._before, strict=True)]
        for seen_by_rank in all_gather(seen):
            for merged, (mean, var, count) in zip(self._before, seen_by_rank, strict=True):
                if count > 0:
                    merged.update_from_moments(mean, var, count)
        for own, merged in zip(self._statistics, self._before, strict=True):
            vars(own).update(vars(copy.deepcopy(merged)))


def _running_statistics(env: VecEnv) -> Iterator[RunningMeanStd]:
    """Yield the statistics of each VecNormalize around an environment."""
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize):
            # `getattr` would also find the attributes of inner wrappers
            obs_rms: Any = vars(env).get("obs_rms", {})
            yield from obs_rms.values() if isinstance(obs_rms, dict) else [obs_rms]
            yield env.ret_rms
        env = env.venv


def _difference(now: RunningMeanStd, before: RunningMeanStd) -> tuple[np.ndarray, np.ndarray, float]:
    """Return mean, variance and count of what has been added to running statistics."""
    count = now.count - before.count
    if count <= 0:
        return now.mean, now.var, 0.0
    mean = (now.mean * now.count - before.mean * before.count) / count
    # Squared deviations from the new mean: those of all values, less those of the earlier ones
    deviations = now.var * now.count - before.var * before.count
    deviations -= (mean - before.mean) ** 2 * before.count * count / now.count
    return mean, np.maximum(deviations / count, 0.0), count
