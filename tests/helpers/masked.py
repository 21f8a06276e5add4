"""Environments with action masks, which refuse invalid actions."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.helpers.agents import VECTOR, SampledEnv, Space


def choices(action: Any, space: Space) -> list[tuple[int, int]]:
    """Return, for each component of an action, how many choices it has and which one was taken."""
    if isinstance(space, spaces.Discrete):
        return [(int(space.n), int(action))]
    sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else [2] * len(action)
    return [(int(n), int(choice)) for n, choice in zip(sizes, action, strict=True)]


def assert_valid(action: Any, masks: np.ndarray, space: Space) -> None:
    """Each component takes a choice that its part of the masks allows."""
    offset = 0
    for n, choice in choices(action, space):
        assert masks[offset + choice], f"{action} is invalid with the masks {masks}"
        offset += n
    assert offset == len(masks)


def random_masks(rng: np.random.Generator, space: Space) -> np.ndarray:
    """Return masks that allow at least one choice of each component, and rarely all."""
    masks = []
    for n, _ in choices(space.sample(), space):
        mask = rng.random(n) < 0.5
        mask[rng.integers(n)] = True
        masks.append(mask)
    return np.concatenate(masks)


class MaskedEnv(SampledEnv):
    """Random masks at each step. The array is overwritten by the next step."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = super().reset(**kwargs)
        self.masks = random_masks(self.np_random, self.action_space)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert_valid(action, self.masks, self.action_space)
        result = super().step(action)
        self.masks[:] = random_masks(self.np_random, self.action_space)
        return result

    def action_masks(self) -> np.ndarray:
        return self.masks


def masked_vec_env(space: Space, n_envs: int = 2) -> DummyVecEnv:
    """Return environments with masks, whose episodes have different lengths."""
    return DummyVecEnv([partial(MaskedEnv, VECTOR, space, 5 + i) for i in range(n_envs)])


class MaskedRecall(gym.Env):
    """
    The first observation is a signal, -1 or 1, and the only valid action is 3. The second observation is 0. The action
    that the signal stands for, 0 or 1, pays 1, the other one 0; action 2 would pay 9 but is never valid.
    """

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.answer, self.is_asked = int(self.np_random.integers(2)), False
        return np.array([2 * self.answer - 1], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert_valid(action, self.action_masks(), self.action_space)
        ends, self.is_asked = self.is_asked, True
        return np.zeros(1, np.float32), float(ends and action == self.answer), ends, False, {}

    def action_masks(self) -> np.ndarray:
        return np.array([1, 1, 0, 0] if self.is_asked else [0, 0, 0, 1], bool)


class NoRepeat(gym.Wrapper):
    """An action is not valid twice in a row."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.last = 0

    def step(self, action: Any) -> Any:
        assert action != self.last
        self.last = int(action)
        return self.env.step(action)

    def action_masks(self) -> np.ndarray:
        assert isinstance(self.action_space, spaces.Discrete)
        return np.arange(self.action_space.n) != self.last


def no_repeat_bandit(**kwargs: Any) -> gym.Env:
    """Return trials of a bandit that does not allow the same arm twice in a row."""
    return NoRepeat(gym.make("sb3_trmrl:BernoulliBandit-v0", disable_env_checker=True, **kwargs))
