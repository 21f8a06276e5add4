"""Families of tasks as a user would write them: with the three methods and nothing else."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation


class ToyFamily(gym.Env):
    """The three methods; tasks are numbers from 0 to 1."""

    task: Any = None

    def sample_tasks(self, n: int) -> list[Any]:
        return self.np_random.uniform(size=n).tolist()

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

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
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
