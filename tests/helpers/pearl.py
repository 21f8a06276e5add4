"""A tiny PEARL, and a naive recorder of what happens inside a trial."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_trmrl import PEARL, MultiEpisodeTrial, PreviousTransitionObservation
from tests.helpers.environments import NoisyReach, noisy_reach

TINY: dict[str, Any] = dict(
    n_train_tasks=4,
    initial_steps=14,
    tasks_per_iteration=2,
    prior_steps=12,
    posterior_steps=12,
    meta_batch_size=3,
    batch_size=4,
    context_batch_size=5,
    gradient_steps=2,
    buffer_size=4000,
    seed=0,
    device="cpu",
    policy_kwargs=dict(net_arch=[8], encoder_net_arch=[8], latent_dim=2),
)


def tiny_pearl(env: gym.Env | VecEnv | None = None, **kwargs: Any) -> PEARL:
    """Return an untrained agent, by default of one :class:`NoisyReach`."""
    return PEARL("PEARLPolicy", noisy_reach() if env is None else env, **{**TINY, **kwargs})


def copies(n: int, make: Callable[..., gym.Env] = noisy_reach, **kwargs: Any) -> VecEnv:
    """Return seeded copies of an environment."""
    env = DummyVecEnv([partial(make, **kwargs)] * n)
    env.seed(0)
    return env


class Step(NamedTuple):
    """One step of an environment inside a trial. ``start`` is the episode's first step since recording began."""

    task: float
    state: np.ndarray
    action: np.ndarray
    reward: float
    next_state: np.ndarray
    terminated: bool
    truncated: bool
    episode: int
    start: int


class Recorder(gym.Wrapper):
    """Appends the steps of an environment inside a trial to a list."""

    def __init__(self, env: gym.Env, steps: list[Step]) -> None:
        super().__init__(env)
        self.steps = steps
        self.episode, self.n_steps = -1, 0

    def set_task(self, task: Any) -> None:
        self.episode = -1  # a trial begins
        self.env.get_wrapper_attr("set_task")(task)

    def reset(self, **kwargs: Any) -> Any:
        self.episode += 1
        self.start = self.n_steps
        self.state, info = self.env.reset(**kwargs)
        return self.state, info

    def step(self, action: Any) -> Any:
        state, reward, terminated, truncated, info = self.env.step(action)
        task = self.env.get_wrapper_attr("get_task")()
        self.steps.append(
            Step(task, self.state, action, float(reward), state, terminated, truncated, self.episode, self.start)
        )
        self.state = state
        self.n_steps += 1
        return state, reward, terminated, truncated, info


def recorded(steps: list[Step], **kwargs: Any) -> gym.Env:
    """Return a :class:`NoisyReach` in trials of two episodes, whose steps are recorded."""
    return PreviousTransitionObservation(MultiEpisodeTrial(Recorder(NoisyReach(), steps), 2, **kwargs))
