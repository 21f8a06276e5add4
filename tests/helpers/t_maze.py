"""A T-maze after Bakker (2001, "Reinforcement Learning with Long Short-Term Memory"): one bit, to be kept for long."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class TMaze(gym.Env):
    """
    A corridor with a junction at its end. The first observation tells which arm holds the prize, no later one does.

    Observations: (signal -1 or 1 at the start and 0 elsewhere, whether this is the junction). Actions: on, back, up,
    down. The right arm pays 1; every other move than "on" costs 0.1 in the corridor (Bakker: standing still does), so
    that the way is soon found, which is not the point. Without memory the best return is 0.5, with memory 1. An episode
    is truncated at twice the length.

    :param length: Steps from the start to the junction
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
