"""A family of tasks that follows a script of episodes, with given rewards and ends."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from tests.helpers.families import ToyFamily

ACTION_SPACES: dict[str, spaces.Space] = {
    "box": spaces.Box(-2.0, 3.0, (2, 2), np.float32),
    "box-float64": spaces.Box(np.array([-1.0, 0.0]), np.array([0.5, 7.0]), dtype=np.float64),
    "box-int": spaces.Box(-3, 9, (3,), np.int32),
    "discrete": spaces.Discrete(4),
    "discrete-start": spaces.Discrete(3, start=-1),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 1]),
    "multi-discrete-matrix": spaces.MultiDiscrete(np.array([[2, 3], [4, 2]]), start=np.array([[0, -1], [5, 0]])),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary-matrix": spaces.MultiBinary((2, 2)),
}


@dataclass(frozen=True)
class Episode:
    """Rewards of all steps, the end (one of both at least), and ``is_success`` at each step; None: not written."""

    rewards: tuple[float, ...]
    terminated: bool
    truncated: bool
    successes: tuple[bool | None, ...]


def episodes(successes: list[bool | None]) -> st.SearchStrategy[Episode]:
    """Episodes of one to four steps, whose successes are among the given ones."""

    def make(steps: list[tuple[float, bool | None]], ends: tuple[bool, bool]) -> Episode:
        rewards, successes = zip(*steps, strict=True)
        return Episode(rewards, *ends, successes)

    step = st.tuples(st.sampled_from([0.0, 1.0, -2.5, 0.125]), st.sampled_from(successes))
    ends = st.sampled_from([(True, False), (False, True), (True, True)])
    return st.builds(make, st.lists(step, min_size=1, max_size=4), ends)


class Scripted(ToyFamily):
    """
    Each reset starts the next episode of the script, and the first one after the last. All observations differ: they
    contain a running number and the task. Tasks are consecutive numbers from a thousand times the last seed.
    """

    def __init__(self, script: list[Episode], action_space: spaces.Space, dict_observation: bool = False) -> None:
        number = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.is_dict = dict_observation
        self.observation_space = spaces.Dict(a=number, b=spaces.Discrete(10_000)) if dict_observation else number
        self.action_space = action_space
        self.script, self.n_resets, self.n_observations, self.next_task = script, 0, 0, 0
        self.task: Any = -1  # can be reset before a task is set
        #: All calls in order
        self.calls: list[tuple[str, Any, Any]] = []

    def sample_tasks(self, n: int) -> list[int]:
        self.calls.append(("sample", n, None))
        self.next_task += n
        return list(range(self.next_task - n, self.next_task))

    def set_task(self, task: int) -> None:
        self.calls.append(("set", task, None))
        super().set_task(task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.calls.append(("reset", seed, options))
        if seed is not None:
            self.next_task = 1_000 * seed
        self.episode, self.time = self.script[self.n_resets % len(self.script)], 0
        self.n_resets += 1
        return self._observe(), {"begins": self.n_resets}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.time += 1
        episode, is_last = self.episode, self.time == len(self.episode.rewards)
        observation, reward = self._observe(), episode.rewards[self.time - 1]
        info: dict[str, Any] = {"own": self.n_observations}
        if episode.successes[self.time - 1] is not None:
            info["is_success"] = episode.successes[self.time - 1]
        if is_last:  # what wrappers around the inner environment write
            info.update({"episode": {"r": 0.0}, "TimeLimit.truncated": True, "terminal_observation": observation})
        return observation, reward, is_last and episode.terminated, is_last and episode.truncated, info

    def _observe(self) -> Any:
        self.n_observations += 1
        return numbered(self.n_observations, self.task, self.is_dict)


def numbered(number: int, task: Any, is_dict: bool) -> Any:
    """Return the observation with this number."""
    vector = np.array([number, -1.0 if task is None else task])
    return {"a": vector, "b": np.int64(number)} if is_dict else vector
