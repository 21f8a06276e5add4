"""The passive T-maze of Ni et al. (2023, "When Do Transformers Shine in RL?", section 5.1): one bit to be kept for long."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class TMaze(gym.Env):
    """
    A corridor with a junction at its end. The first observation tells which arm holds the prize, no later one does.

    Observations: (signal -1 or 1 at the start and 0 elsewhere, whether this is the junction). Actions: right, left, up,
    down. A step that falls behind the fastest way costs 1 / (length - 1); the right arm pays 1. An agent without memory
    gets 0.5 at best, one with memory 1.

    :param length: Steps through the corridor; an episode has one more
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
        if self.steps > self.length:
            reached = self.x == self.length and action == (2 if self.prize > 0 else 3)
            return self._observe(), float(reached), True, False, {}
        self.x = int(np.clip(self.x + {0: 1, 1: -1}.get(int(action), 0), 0, self.length))
        reward = 0.0 if self.x >= self.steps else -1.0 / (self.length - 1)
        return self._observe(), reward, False, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([0.0, self.x == self.length], np.float32)
