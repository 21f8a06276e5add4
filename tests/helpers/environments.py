"""Toy environments: variants of ``SampledEnv``, a T-maze, and families of tasks as a user would write them."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
from tests.helpers.agents import BOX_ACTION, VECTOR, SampledEnv, Space

#: Episode lengths of :func:`fixed_episodes`, prime so that episodes end everywhere in a rollout
LENGTHS = (5, 7, 11)


class FixedEpisodes(SampledEnv):
    """Random observations and rewards, in episodes of one length that are all truncated or all terminate."""

    def __init__(self, observation_space: Space, length: int, truncates: bool) -> None:
        super().__init__(observation_space, BOX_ACTION, length)
        self.truncates = truncates

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *_, info = super().step(action)
        ends, reward = self.n_steps == self.length, float(self.np_random.normal())
        return observation, reward, ends and not self.truncates, ends and self.truncates, info


def fixed_episodes(observation_space: Space, normalize: bool = False) -> VecEnv:
    """Return three :class:`FixedEpisodes`, which are truncated, terminate, and are truncated."""
    env: VecEnv = DummyVecEnv([partial(FixedEpisodes, observation_space, n, n != 7) for n in LENGTHS])
    env.seed(0)
    return VecNormalize(env) if normalize else env


class PoisonedEnv(SampledEnv):
    """One bad number in a ``"reward"``, ``"observation"``, ``"first observation"`` or ``"terminal observation"``."""

    def __init__(self, where: str, value: float, observation_space: Space = VECTOR) -> None:
        super().__init__(observation_space, length=7)
        self.where, self.value = where, value

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        return self._poison(observation, self.where == "first observation"), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        is_bad = truncated if self.where == "terminal observation" else self.n_steps == 4
        if is_bad and self.where == "reward":
            reward = self.value
        is_bad = is_bad and self.where in ("observation", "terminal observation")
        return self._poison(observation, is_bad), reward, terminated, truncated, info

    def _poison(self, observation: Any, is_bad: bool) -> Any:
        if is_bad:
            (observation["prev_reward"] if isinstance(observation, dict) else observation)[-1] = self.value
        return observation


class TMaze(gym.Env):
    """
    The T-maze of Bakker (2001, "Reinforcement Learning with Long Short-Term Memory"): a corridor that ends at a
    junction. Only the first observation tells which arm of the junction holds the prize.

    Observations: (signal -1 or 1 at the start and 0 elsewhere, whether this is the junction). Actions: forward, back,
    up, down. The right arm pays 1. Every move other than forward costs 0.1 in the corridor (in Bakker's maze standing
    still does), so that agents soon reach the junction. The best return is 0.5 without memory and 1 with it. The
    junction is ``length`` steps from the start, and an episode is truncated at twice the length.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self, length: int = 200) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.prize = 1 if self.np_random.random() < 0.5 else -1
        self.x = self.steps = 0
        return np.array([self.prize, 0.0], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        at_junction = self.x == self.length
        if at_junction and action in (2, 3):
            return self._observe(), float((action == 2) == (self.prize > 0)), True, False, {}
        self.x = int(np.clip(self.x + {0: 1, 1: -1}.get(int(action), 0), 0, self.length))
        reward = 0.0 if action == 0 and not at_junction else -0.1
        return self._observe(), reward, False, self.steps >= 2 * self.length, {}

    def _observe(self) -> np.ndarray:
        return np.array([0.0, self.x == self.length], np.float32)


class ToyFamily(gym.Env):
    """The three methods; tasks are numbers from 0 to 1."""

    task: Any = None

    def sample_tasks(self, n: int) -> list[Any]:
        return [*self.np_random.uniform(size=n).tolist()]

    def set_task(self, task: Any) -> None:
        self.task = task

    def get_task(self) -> Any:
        return self.task


class EarlyEnd(ToyFamily):
    """
    Two actions; the reward of step t is ``task + action + t / 10``. An episode terminates with success at the third
    action 1, and is truncated after ten steps.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def _observe(self) -> np.ndarray:
        return self.np_random.normal(size=2).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.ones, self.time = 0, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = self.task + float(action) + self.time / 10
        self.ones += int(action)
        self.time += 1
        ended = self.ones == 3
        return self._observe(), reward, ended, self.time == 10, {"is_success": ended, "ones": self.ones}


def early_end(episodes_per_trial: int = 2, **kwargs: Any) -> gym.Env:
    """Return the family, ready for training."""
    return PreviousTransitionObservation(MultiEpisodeTrial(EarlyEnd(), episodes_per_trial=episodes_per_trial, **kwargs))


class NoisyReach(ToyFamily):
    """
    Random states and a Box action; the reward is ``-abs(first number of the action - task)``. An episode terminates
    with probability 0.1 at each step, and is truncated after six.
    """

    observation_space = VECTOR
    action_space = BOX_ACTION

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, size=3).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        terminated = bool(self.np_random.random() < 0.1)
        return self._observe(), -abs(float(action[0]) - self.task), terminated, self.time == 6, {}


def noisy_reach(episodes_per_trial: int = 2, across_episodes: str = "keep", **kwargs: Any) -> gym.Env:
    """Return the family, ready for training."""
    trials = MultiEpisodeTrial(NoisyReach(), episodes_per_trial=episodes_per_trial, **kwargs)
    return PreviousTransitionObservation(trials, across_episodes=across_episodes)
