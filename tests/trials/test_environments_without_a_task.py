"""Environments that cannot be reset before a task is set, such as MetaWorld's own classes."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation, TransformerPPO


class Strict(gym.Env):
    """A family whose reset needs a task; the first observation is drawn at random."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, raises: bool = False) -> None:
        self.task: float | None = None
        self.raises = raises

    def sample_tasks(self, n: int) -> list[float]:
        return list(self.np_random.uniform(size=n))

    def set_task(self, task: float) -> None:
        self.task = task

    def get_task(self) -> float | None:
        if self.raises and self.task is None:
            raise RuntimeError("no task yet")
        return self.task

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        assert self.task is not None, "set_task must be called before reset"
        super().reset(seed=seed)
        self.n_steps = 0
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        return np.zeros(1, np.float32), float(self.task or 0), self.n_steps == 3, False, {}


@pytest.mark.parametrize("raises", [False, True])
def test_seeded_trial(raises: bool) -> None:
    """Task and first observation follow from the seed, whether or not the environment had a task before."""
    env = MultiEpisodeTrial(Strict(raises))
    first = env.reset(seed=3)
    env.reset()
    assert first == env.reset(seed=3) == MultiEpisodeTrial(Strict(raises)).reset(seed=3)
    assert first != env.reset(seed=4)


def test_seeded_model() -> None:
    env = PreviousTransitionObservation(MultiEpisodeTrial(Strict()))
    TransformerPPO("TrMRLPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu").learn(8)
