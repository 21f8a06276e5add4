"""Rollouts kept in lists: what the memory held at each step, and advantages as the sum that defines them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

#: More than any test makes of them
MAX_TOKENS = 10_000

OBSERVATION_SPACES: dict[str, spaces.Space] = {
    "box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "number": spaces.Discrete(MAX_TOKENS),
    "dict": spaces.Dict(
        matrix=spaces.Box(-np.inf, np.inf, (2, 1), np.float64),
        image=spaces.Box(0, 255, (1, 2, 2), np.uint8),
        number=spaces.Discrete(MAX_TOKENS),
    ),
}
ACTION_SPACES: dict[str, spaces.Space] = {
    "box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 7]),
    "multi-binary": spaces.MultiBinary(3),
}


def observe(name: str, number: int) -> Any:
    """:return: Observation of the token with this number, which no other token has"""
    if name == "box":
        return np.array([number, -number], np.float32)
    if name == "number":
        return np.array(number)
    return dict(
        matrix=np.array([[number], [0.5]]),
        image=np.full((1, 2, 2), number % 251, np.uint8),
        number=np.array(number),
    )


def act(name: str, number: int) -> np.ndarray:
    """:return: Action taken at the token with this number, (A,)"""
    if name == "box":
        return np.array([0.25 * number, -number], np.float32)
    if name == "discrete":
        return np.array([number % 5])
    if name == "multi-discrete":
        return np.array([number % 3, number % 7])
    return np.array([number % 2, number // 2 % 2, 1], np.int8)


def stack(observations: list[Any]) -> Any:
    """:return: Observations side by side, as a VecEnv returns them"""
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)


@dataclass
class Transition:
    """
    :param memory: Numbers of all tokens since the memory was emptied, the last one this step's
    :param episode_start: Whether SB3's episode, the trial, begins here
    :param advantage: Filled in when the rollout is over
    """

    memory: list[int]
    episode_start: bool
    reward: float
    value: float
    advantage: float = np.nan

    @property
    def number(self) -> int:
        return self.memory[-1]


@dataclass
class NaiveRollouts:
    """
    Environments whose memory is emptied where a trial begins and, as by ``prev_done``, at other steps too.

    :param n_envs: Number of environments
    :param rng: Decides everything
    :param emptied: Probability that a step empties the memory; half of these steps begin a trial
    """

    n_envs: int
    rng: np.random.Generator
    emptied: float
    memories: list[list[int]] = field(init=False)
    n_tokens: int = 0

    def __post_init__(self) -> None:
        self.memories = [[] for _ in range(self.n_envs)]

    def forget(self) -> None:
        """What another environment does to a model"""
        self.memories = [[] for _ in range(self.n_envs)]

    def step(self) -> list[Transition]:
        """:return: A step of each environment"""
        transitions = []
        for env in range(self.n_envs):
            emptied = not self.memories[env] or self.rng.random() < self.emptied
            self.memories[env] = [] if emptied else self.memories[env]
            self.memories[env] = [*self.memories[env], self.n_tokens]
            self.n_tokens += 1
            reward, value = self.rng.normal(size=2)
            transitions.append(Transition(self.memories[env], bool(emptied and self.rng.random() < 0.5), reward, value))
        return transitions

    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """:return: Values behind the last step of a rollout, and whether a trial ended with it, (n_envs,) each"""
        return self.rng.normal(size=self.n_envs), self.rng.random(self.n_envs) < 0.3


def fill_advantages(
    steps: list[list[Transition]], last_values: np.ndarray, dones: np.ndarray, gamma: float, gae_lambda: float
) -> None:
    """A_t = sum_k (gamma lambda)^k delta_(t + k) over the rest of the trial, or of the rollout"""
    for env in range(len(last_values)):
        rollout = [step[env] for step in steps]
        for start, transition in enumerate(rollout):
            transition.advantage = 0.0
            for t in range(start, len(rollout)):
                is_last = t + 1 == len(rollout)
                ends = dones[env] if is_last else rollout[t + 1].episode_start
                following = last_values[env] if is_last else rollout[t + 1].value
                delta = rollout[t].reward + (0.0 if ends else gamma * following) - rollout[t].value
                transition.advantage += (gamma * gae_lambda) ** (t - start) * delta
                if ends:
                    break


def whole_sequences(steps: list[list[Transition]]) -> Iterator[list[Transition]]:
    """:return: Transitions of the rollout from where the memory was emptied to where it is emptied next"""
    for env in range(len(steps[0])):
        sequence: list[Transition] = []
        for step in steps:
            if sequence and len(step[env].memory) == 1:
                yield sequence
                sequence = []
            sequence.append(step[env])
        yield sequence
