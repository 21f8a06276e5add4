"""Rollouts and histories in lists: what the memory holds at each step, and advantages as the sum that defines them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.memory.working_memory import WorkingMemory

#: Upper bound of the number of tokens in a test
MAX_TOKENS = 10_000

OBSERVATION_SPACES: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "number": spaces.Discrete(MAX_TOKENS),
    "dict": spaces.Dict(
        matrix=spaces.Box(-np.inf, np.inf, (2, 1), np.float64),
        image=spaces.Box(0, 255, (1, 2, 2), np.uint8),
        number=spaces.Discrete(MAX_TOKENS),
    ),
}
ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 7]),
    "multi-binary": spaces.MultiBinary(3),
}


def observe(name: str, number: int) -> Any:
    """Return the observation of the token with this number, which no other token has."""
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
    """Return the action that follows the token with this number, (A,)."""
    if name == "box":
        return np.array([0.25 * number, -number], np.float32)
    if name == "discrete":
        return np.array([number % 5])
    if name == "multi-discrete":
        return np.array([number % 3, number % 7])
    return np.array([number % 2, number // 2 % 2, 1], np.int8)


def stack(observations: list[Any]) -> Any:
    """Stack observations along a new first axis, as a VecEnv does."""
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)


@dataclass
class Transition:
    """One step of one environment. Its memory is the numbers of all tokens since it was emptied, this one included."""

    memory: list[int]
    episode_start: bool  # of SB3's episode, which is the trial
    reward: float
    value: float
    advantage: float = np.nan

    @property
    def number(self) -> int:
        return self.memory[-1]


@dataclass
class NaiveRollouts:
    """Environments whose memory is emptied where a trial begins and, as by ``prev_done``, at other steps."""

    n_envs: int
    rng: np.random.Generator
    emptied: float  # probability that a step empties the memory; half of these steps begin a trial
    memories: list[list[int]] = field(init=False)
    n_tokens: int = 0

    def __post_init__(self) -> None:
        self.memories = [[] for _ in range(self.n_envs)]

    def forget(self) -> None:
        """Empty all memories, as ``set_env`` does."""
        self.memories = [[] for _ in range(self.n_envs)]

    def step(self) -> list[Transition]:
        """Return the next step of each environment."""
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
        """Return values after the last step of a rollout, and whether a trial ended with it, (n_envs,) each."""
        return self.rng.normal(size=self.n_envs), self.rng.random(self.n_envs) < 0.3


def fill_advantages(
    steps: list[list[Transition]], last_values: np.ndarray, dones: np.ndarray, gamma: float, gae_lambda: float
) -> None:
    """Compute A_t = sum_k (gamma lambda)^k delta_(t + k) over the rest of the trial or of the rollout."""
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
    """Yield the transitions of the rollout from one step that empties the memory to the next."""
    for env in range(len(steps[0])):
        sequence: list[Transition] = []
        for step in steps:
            if sequence and len(step[env].memory) == 1:
                yield sequence
                sequence = []
            sequence.append(step[env])
        yield sequence


class NaiveHistory:
    """The newest observations of each environment since its memory was emptied, at most ``maxlen``."""

    def __init__(self, n_envs: int, maxlen: int | None = None, resets_on_prev_done: bool = True) -> None:
        self.resets_on_prev_done = resets_on_prev_done
        self.observations: list[deque[Any]] = [deque(maxlen=maxlen) for _ in range(n_envs)]

    def see(self, observations: Any, starts: Any) -> None:
        is_dict = isinstance(observations, dict)
        for env, history in enumerate(self.observations):
            token = {key: value[env] for key, value in observations.items()} if is_dict else observations[env]
            if starts[env] or (is_dict and self.resets_on_prev_done and token["prev_done"] > 0):
                history.clear()
            history.append(token)

    @property
    def lengths(self) -> list[int]:
        return [len(history) for history in self.observations]

    def window(self, env: int) -> WorkingMemory:
        """Return a window of the observations of one environment, without unfilled slots."""
        tokens = map_tokens(lambda array: th.as_tensor(array[None]), stack(list(self.observations[env])))
        return WorkingMemory(tokens, th.tensor([len(self.observations[env])]))


def naive_actions(policy: Any, history: NaiveHistory) -> np.ndarray:
    """Return the deterministic actions that follow the history of each environment alone, (B, A)."""
    windows = [history.window(env) for env in range(len(history.observations))]
    with th.no_grad():
        if policy.memory == "window":
            return np.concatenate([policy.get_distribution(window).mode() for window in windows])
        # One masked pass over the whole history
        memories = th.cat([policy.trace(window).memories[-1][:, -1] for window in windows])
        latent = policy.mlp_extractor.forward_actor(memories)
        return np.asarray(policy._get_action_dist_from_latent(latent).mode())
