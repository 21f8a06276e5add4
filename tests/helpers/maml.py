"""Families of tasks for MAMLTRPO, and a tiny model."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_trmrl import MAMLTRPO, MultiEpisodeTrial, PreviousTransitionObservation
from tests.helpers.agents import SampledEnv, Space
from tests.helpers.environments import ToyFamily, early_end

TINY: dict[str, Any] = dict(n_tasks=3, n_inner_episodes=2, seed=0, device="cpu")


def around(env: gym.Env, episodes_per_trial: int = 3, **kwargs: Any) -> gym.Env:
    """Return a family, ready for training."""
    return PreviousTransitionObservation(MultiEpisodeTrial(env, episodes_per_trial, **kwargs))


def copies(n_envs: int = 3, make: Any = early_end, **kwargs: Any) -> VecEnv:
    """Copies of an environment; by default, episodes have 3 to 10 steps"""
    env = DummyVecEnv([partial(make, **kwargs)] * n_envs)
    env.seed(0)
    return env


def tiny_maml(env: Any = None, width: int = 8, **kwargs: Any) -> MAMLTRPO:
    """Return a model with one hidden layer."""
    settings = {**TINY, "policy_kwargs": dict(net_arch=[width]), **kwargs}
    return MAMLTRPO("MlpPolicy", copies() if env is None else env, **settings)


class TwoArms(ToyFamily):
    """Ten pulls of two arms; the task says which of them pays 1. Nothing can be observed."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def sample_tasks(self, n: int) -> list[int]:
        return self.np_random.integers(2, size=n).tolist()  # type: ignore[no-any-return]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.zeros(1, np.float32), float(action == self.task), False, self.time == 10, {}


def two_arms() -> gym.Env:
    return around(TwoArms())


class SampledFamily(SampledEnv, ToyFamily):
    """Random observations, in episodes of growing length"""


def sampled_family(observation_space: Space, action_space: Space) -> gym.Env:
    return around(SampledFamily(observation_space, action_space, 3))
