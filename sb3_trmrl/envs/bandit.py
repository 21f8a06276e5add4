"""The Bernoulli bandit of RL^2 (Duan et al. 2016, section 3.1)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_trmrl.common.checks import check_number, check_positive_int
from sb3_trmrl.envs.tasks import TaskEnv, check_range, in_trials
from sb3_trmrl.envs.text_render import TextRender, bars


class BernoulliBanditEnv(TextRender, TaskEnv):
    """
    Pull one of k arms, n times; arm i pays 1 with its own probability and 0 otherwise.

    The task is the tuple of the arms' probabilities. The observation is one zero: all there is to know are the previous
    action and reward. One episode is n pulls, after which it terminates: nothing follows that a value could stand for.

    :param n_arms: Number of arms k
    :param n_pulls: Number of pulls n
    :param mean_range: Lowest and highest probability, sampled uniformly and independently for each arm
    :param horizon: ``n_pulls`` under the name it has in the other environments; used if given
    :param render_mode: ``"human"`` prints a line for each pull, ``"rgb_array"`` draws the probabilities
    """

    def __init__(
        self,
        n_arms: int = 5,
        n_pulls: int = 10,
        mean_range: tuple[float, float] = (0.0, 1.0),
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode)
        self.n_arms = check_positive_int("n_arms", n_arms)
        self.n_pulls = check_positive_int("n_pulls", n_pulls)
        if horizon is not None:
            self.n_pulls = check_positive_int("horizon", horizon)
        self.mean_range = check_range("mean_range", mean_range, 0.0, 1.0)
        self.action_space = spaces.Discrete(self.n_arms)
        self.observation_space = spaces.Box(0.0, 1.0, shape=(1,), dtype=np.float32)
        self._means = (sum(self.mean_range) / 2,) * self.n_arms
        self._pulls_left = 0

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

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._pulls_left = self.n_pulls
        self.show(
            f"new episode, arms {', '.join(f'{mean:.2f}' for mean in self._means)}", partial(bars, self._means, None)
        )
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._pulls_left == 0:
            raise ResetNeeded("Cannot call env.step() before calling env.reset(), or after the last pull")
        if not self.action_space.contains(action):
            raise ValueError(f"`action` must be an arm, 0 to {self.n_arms - 1}, got {action!r}")
        arm = int(action)
        reward = float(self.np_random.random() < self._means[arm])
        self._pulls_left -= 1
        self.show(f"pull {self.n_pulls - self._pulls_left}: arm {arm} pays {reward:g}", partial(bars, self._means, arm))
        return np.zeros(1, dtype=np.float32), reward, self._pulls_left == 0, False, {}


#: What is registered: one episode is one trial, see ``in_trials`` for the arguments of a trial
bernoulli_bandit = partial(in_trials, BernoulliBanditEnv, episodes_per_trial=1)
