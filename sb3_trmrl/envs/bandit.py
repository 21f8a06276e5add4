"""The Bernoulli bandit of RL^2 (Duan et al. 2016, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trmrl.common.checks import check_number, check_positive_int
from sb3_trmrl.envs.batch import Batch
from sb3_trmrl.envs.pictures import bars
from sb3_trmrl.envs.small_problem import SmallProblem
from sb3_trmrl.envs.tasks import check_range, in_trials


class _BanditBatch(Batch):
    def __init__(self, envs: Sequence[BernoulliBanditEnv]) -> None:
        super().__init__(envs)
        self._means = np.zeros((len(envs), envs[0].n_arms))
        self._last_arms: list[int | None] = [None] * len(envs)
        self._draws: list[Any] = [None] * len(envs)

    def load(self, copy: int) -> None:
        env = self.envs[copy]
        self._means[copy], self._last_arms[copy], self._draws[copy] = env._means, env._last_arm, env.np_random.random

    def store(self, copy: int) -> None:
        self.envs[copy]._last_arm = self._last_arms[copy]

    def start(self, copies: np.ndarray) -> None:
        for copy in copies:
            self._last_arms[copy] = None

    def act(self, actions: np.ndarray) -> np.ndarray:
        self._last_arms = actions.tolist()
        numbers = np.array([draw() for draw in self._draws])
        return np.where(numbers < self._means[self._numbers, actions], 1.0, 0.0)

    def observe(self) -> np.ndarray:
        return np.zeros((len(self.envs), 1), dtype=np.float32)


class BernoulliBanditEnv(SmallProblem):
    """
    Pull one of k arms, n times. Each arm pays 1 with its own probability, otherwise 0.

    The task is the tuple of the arms' probabilities. The observation is always zero: only the previous action and
    reward carry information. An episode terminates after n pulls: there is nothing left to bootstrap.

    :param n_arms: Number of arms k
    :param n_pulls: Number of pulls n
    :param mean_range: Lowest and highest probability, sampled uniformly and independently for each arm
    :param horizon: Alias of ``n_pulls``, under the name that the other environments use; it takes precedence if given
    :param render_mode: ``"human"`` prints a line for each pull, ``"rgb_array"`` draws the probabilities
    """

    batch_class = _BanditBatch

    def __init__(
        self,
        n_arms: int = 5,
        n_pulls: int = 10,
        mean_range: tuple[float, float] = (0.0, 1.0),
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.n_arms = check_positive_int("n_arms", n_arms)
        self.n_pulls = check_positive_int("n_pulls", n_pulls)
        if horizon is not None:
            self.n_pulls = check_positive_int("horizon", horizon)
        super().__init__(self.n_pulls, render_mode)
        self.mean_range = check_range("mean_range", mean_range, 0.0, 1.0)
        self.action_space = spaces.Discrete(self.n_arms)
        self.observation_space = spaces.Box(0.0, 1.0, shape=(1,), dtype=np.float32)
        self._means = (sum(self.mean_range) / 2,) * self.n_arms
        self._last_arm: int | None = None

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[tuple[float, ...]]:
        return [tuple(means) for means in rng.uniform(*self.mean_range, size=(n, self.n_arms)).tolist()]

    def set_task(self, task: Any) -> None:
        if not isinstance(task, (tuple, list, np.ndarray)):
            raise TypeError(f"`task` must be a tuple of {self.n_arms} probabilities, got {task!r}")
        means = tuple(check_number(f"task[{arm}]", mean) for arm, mean in enumerate(task))
        if len(means) != self.n_arms or not all(0.0 <= mean <= 1.0 for mean in means):
            raise ValueError(f"`task` must be a tuple of {self.n_arms} probabilities in [0, 1], got {task!r}")
        self._means = means

    def get_task(self) -> tuple[float, ...]:
        return self._means

    def _start(self) -> None:
        self._last_arm = None

    def _act(self, action: Any) -> float:
        arm = self._last_arm = self._check_discrete(action, f"an arm, 0 to {self.n_arms - 1}")
        return float(self.np_random.random() < self._means[arm])

    def _describe(self) -> str:
        return f"arms {', '.join(f'{mean:.2f}' for mean in self._means)}"

    def _outcome(self, action: Any, reward: float) -> str:
        return f"pull {self.n_pulls - self._steps_left}: arm {action} pays {reward:g}"

    def _observe(self) -> np.ndarray:
        return np.zeros(1, dtype=np.float32)

    def _picture(self) -> np.ndarray:
        return bars(self._means, self._last_arm)


#: The registered environment; its trials are single episodes
bernoulli_bandit = partial(in_trials, BernoulliBanditEnv, episodes_per_trial=1)
