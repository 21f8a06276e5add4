"""The random tabular MDP of RL^2 (Duan et al. 2016, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trmrl.common.checks import check_number, check_positive, check_positive_int, short_repr
from sb3_trmrl.envs.batch import Batch
from sb3_trmrl.envs.pictures import bars
from sb3_trmrl.envs.small_problem import SmallProblem
from sb3_trmrl.envs.tasks import in_trials


@dataclass(frozen=True, eq=False)
class TabularMDPTask:
    """
    An MDP with S states and A actions. Tasks are compared by value and are immutable; a copy is the same object.

    :param transitions: Probabilities of the next state, shape (S, A, S)
    :param mean_rewards: Mean of the normally distributed reward with standard deviation 1, shape (S, A)
    :raises TypeError: if they are not arrays of numbers
    :raises ValueError: if the shapes do not fit, a number is not finite or a row is not a distribution
    """

    transitions: np.ndarray
    mean_rewards: np.ndarray

    def __post_init__(self) -> None:
        for name in ("transitions", "mean_rewards"):
            try:
                array = np.array(getattr(self, name), dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise TypeError(f"`{name}` must be an array of numbers, got {getattr(self, name)!r}") from error
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        shape = self.mean_rewards.shape
        if len(shape) != 2 or self.transitions.shape != (*shape, shape[0]):
            got = f"got shapes {self.transitions.shape} and {shape}"
            raise ValueError(f"`transitions` must have the shape (S, A, S) and `mean_rewards` (S, A), {got}")
        if not np.isfinite(self.mean_rewards).all():
            raise ValueError(f"`mean_rewards` must be finite, got {short_repr(self.mean_rewards)}")
        if not (self.transitions.min(initial=0.0) >= 0 and (np.abs(self.transitions.sum(-1) - 1.0) <= 1e-5).all()):
            got = short_repr(self.transitions)
            raise ValueError(f"`transitions` must have non-negative rows that sum to 1, got {got}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TabularMDPTask):
            return NotImplemented
        return np.array_equal(self.transitions, other.transitions) and np.array_equal(
            self.mean_rewards, other.mean_rewards
        )

    def __hash__(self) -> int:
        return hash(self.mean_rewards.tobytes())

    def __repr__(self) -> str:
        n_states, n_actions = self.mean_rewards.shape
        return f"TabularMDPTask({n_states} states, {n_actions} actions, mean reward {self.mean_rewards.mean():.3f})"

    # Vectorised environments deep-copy every info
    def __deepcopy__(self, memo: dict[int, Any]) -> TabularMDPTask:
        return self

    def __reduce__(self) -> tuple[type[TabularMDPTask], tuple[np.ndarray, np.ndarray]]:
        return TabularMDPTask, (self.transitions, self.mean_rewards)


class _TabularMDPBatch(Batch):
    def __init__(self, envs: Sequence[TabularMDPEnv]) -> None:
        super().__init__(envs)
        shape = (len(envs), envs[0].n_states, envs[0].n_actions)
        self._mean_rewards = np.zeros(shape)
        self._cumulative = np.zeros((*shape, envs[0].n_states))
        self._states = np.zeros(len(envs), dtype=np.int64)
        self._draw_normal: list[Any] = [None] * len(envs)
        self._draw_uniform: list[Any] = [None] * len(envs)

    def load(self, copy: int) -> None:
        env = self.envs[copy]
        self._mean_rewards[copy], self._cumulative[copy] = env._task.mean_rewards, env._cumulative
        self._states[copy] = env._state
        self._draw_normal[copy], self._draw_uniform[copy] = env.np_random.standard_normal, env.np_random.random

    def store(self, copy: int) -> None:
        self.envs[copy]._state = int(self._states[copy])

    def start(self, copies: np.ndarray) -> None:
        self._states[copies] = 0

    def act(self, actions: np.ndarray) -> np.ndarray:
        now = self._numbers, self._states, actions
        rewards: np.ndarray = self._mean_rewards[now] + [draw() for draw in self._draw_normal]
        numbers = np.array([draw() for draw in self._draw_uniform])
        # As np.searchsorted with side="right"
        self._states = (self._cumulative[now] <= numbers[:, None]).sum(axis=1)
        return rewards

    def observe(self) -> np.ndarray:
        return np.array(self._states)


class TabularMDPEnv(SmallProblem):
    """
    A random MDP: transitions from a flat Dirichlet distribution, reward ~ N(mean, 1) with mean ~ N(1, 1).

    The task is a ``TabularMDPTask``. The observation is the state. Every episode starts in state 0 (the task
    distribution treats all states alike) and terminates after ``horizon`` steps.

    :param n_states: Number of states S
    :param n_actions: Number of actions A
    :param horizon: Steps of an episode
    :param reward_prior: Mean and standard deviation of the normal distribution of the mean rewards
    :param dirichlet_alpha: Concentration of the distribution of transitions; far below 1 they are nearly deterministic
    :param render_mode: ``"human"`` prints a line for each step, ``"rgb_array"`` draws the state
    """

    batch_class = _TabularMDPBatch

    def __init__(
        self,
        n_states: int = 10,
        n_actions: int = 5,
        horizon: int = 10,
        reward_prior: tuple[float, float] = (1.0, 1.0),
        dirichlet_alpha: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(horizon, render_mode)
        self.n_states = check_positive_int("n_states", n_states)
        self.n_actions = check_positive_int("n_actions", n_actions)
        try:
            mean, deviation = (check_number("reward_prior", number) for number in reward_prior)
        except (TypeError, ValueError) as error:
            raise TypeError(f"`reward_prior` must be a pair of finite numbers, got {reward_prior!r}") from error
        if deviation < 0:
            raise ValueError(f"`reward_prior` must have a standard deviation of at least 0, got {reward_prior!r}")
        self.reward_prior = mean, deviation
        self.dirichlet_alpha = check_positive("dirichlet_alpha", dirichlet_alpha)
        self.observation_space = spaces.Discrete(self.n_states)
        self.action_space = spaces.Discrete(self.n_actions)
        self._state = 0
        self.set_task(self.draw_tasks(1, np.random.default_rng(0))[0])

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[TabularMDPTask]:
        size = (self.n_states, self.n_actions)
        alpha = np.full(self.n_states, self.dirichlet_alpha)
        return [
            TabularMDPTask(rng.dirichlet(alpha, size=size), rng.normal(*self.reward_prior, size=size)) for _ in range(n)
        ]

    def set_task(self, task: Any) -> None:
        if not isinstance(task, TabularMDPTask):
            raise TypeError(f"`task` must be a TabularMDPTask, got {task!r}")
        if task.mean_rewards.shape != (self.n_states, self.n_actions):
            raise ValueError(f"`task` must have {self.n_states} states and {self.n_actions} actions, got {task}")
        self._task = task
        self._cumulative = np.cumsum(task.transitions, axis=-1)
        # Rounding must not give probability to states after the last one that can be reached
        self._cumulative[self._cumulative >= self._cumulative[..., -1:]] = 1.0

    def get_task(self) -> TabularMDPTask:
        return self._task

    def task_features(self, task: TabularMDPTask) -> np.ndarray:
        return np.concatenate([task.mean_rewards.ravel(), task.transitions.ravel()]).astype(np.float32)

    def _start(self) -> None:
        self._state = 0

    def _act(self, action: Any) -> float:
        action = self._check_discrete(action, f"0 to {self.n_actions - 1}")
        reward = float(self.np_random.normal(self._task.mean_rewards[self._state, action]))
        cumulative = self._cumulative[self._state, action]
        self._state = int(np.searchsorted(cumulative, self.np_random.random(), side="right"))
        return reward

    def _describe(self) -> str:
        return f"state {self._state}"

    def _outcome(self, action: Any, reward: float) -> str:
        return f"action {action} pays {reward:.2f}, {self._describe()}"

    def _observe(self) -> Any:
        return np.int64(self._state)

    def _picture(self) -> np.ndarray:
        return bars((1.0,) * self.n_states, self._state)


#: The registered environment; its trials have ten episodes
tabular_mdp = partial(in_trials, TabularMDPEnv, episodes_per_trial=10)
