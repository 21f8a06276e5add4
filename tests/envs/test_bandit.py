"""The Bernoulli bandit; its known values are in tests/references."""

import gymnasium as gym
import numpy as np


def test_each_arm_pays_with_its_probability() -> None:
    task = (0.0, 0.2, 0.5, 0.9, 1.0)
    env = gym.make("BernoulliBandit-v0", n_pulls=3000)
    for arm, mean in enumerate(task):
        env.reset(seed=arm, options={"task": task})
        rewards = np.array([env.step(arm)[1] for _ in range(3000)])
        assert set(rewards) <= {0.0, 1.0}
        assert abs(rewards.mean() - mean) <= 4 * np.sqrt(mean * (1 - mean) / 3000)
