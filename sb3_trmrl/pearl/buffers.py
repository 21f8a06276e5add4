"""The replay buffer of PEARL: the transitions of each training task, and the newest ones gathered with the prior."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sb3_trmrl.common.checks import check_positive_int


class Transitions(NamedTuple):
    """
    Transitions as float32 arrays. ``...`` stands for M tasks and N transitions of each.

    :param states: (..., S)
    :param actions: Scaled to [-1, 1], (..., A)
    :param rewards: (..., 1)
    :param next_states: (..., S)
    :param dones: 1 where the task's episode terminated, 0 after a truncation, (..., 1)
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_states: np.ndarray
    dones: np.ndarray


class TaskReplayBuffer:
    """
    The newest transitions of each task. Those since the task was last begun, gathered with latents from the prior, are
    also its *context*, from which the encoder learns.

    :param buffer_size: Transitions of all tasks together; each task keeps the same number
    :param n_tasks: Number of tasks
    :param state_dim: Numbers S of a state
    :param action_dim: Numbers A of an action
    """

    def __init__(self, buffer_size: int, n_tasks: int, state_dim: int, action_dim: int) -> None:
        self.n_tasks = check_positive_int("n_tasks", n_tasks)
        self.capacity = max(buffer_size // n_tasks, 1)
        self._dims = (state_dim, action_dim, 1, state_dim, 1)
        # They grow up to the capacity, so that small buffers are quick to save
        self._arrays = [np.zeros((n_tasks, 0, dim), dtype=np.float32) for dim in self._dims]
        #: Transitions added for each task so far, including those that have been overwritten, (n_tasks,)
        self.n_added = np.zeros(n_tasks, dtype=np.int64)
        self._context_start = np.zeros(n_tasks, dtype=np.int64)
        self._context_end = np.zeros(n_tasks, dtype=np.int64)

    @property
    def dims(self) -> tuple[int, ...]:
        """Numbers of state, action, reward, next state and done flag"""
        return self._dims

    def sizes(self) -> np.ndarray:
        """Return the number of stored transitions of each task, (n_tasks,)."""
        return np.minimum(self.n_added, self.capacity)

    def context_sizes(self) -> np.ndarray:
        """Return the number of transitions in the context of each task, (n_tasks,)."""
        return self._context_end - np.maximum(self._context_start, self.n_added - self.capacity)

    def begin_task(self, task: int) -> None:
        """
        Forget the context of a task, of which new data will be collected.

        :param task: Index of the task
        """
        self._context_start[task] = self._context_end[task] = self.n_added[task]

    def add(
        self,
        task: int,
        state: np.ndarray,
        action: np.ndarray,
        reward: float,
        next_state: np.ndarray,
        done: bool,
        is_context: bool,
    ) -> None:
        """
        Add a transition of a task.

        :param task: Index of the task
        :param state: (S,)
        :param action: Scaled to [-1, 1], (A,)
        :param reward: Reward
        :param next_state: (S,)
        :param done: Whether the episode terminated
        :param is_context: Whether the latent was drawn from the prior. Such transitions come before all others since
            the task was begun
        """
        position = self.n_added[task] % self.capacity
        allocated = self._arrays[0].shape[1]
        if position >= allocated:
            more = min(max(allocated, 256), self.capacity - allocated)
            self._arrays = [np.pad(array, ((0, 0), (0, more), (0, 0))) for array in self._arrays]
        values: tuple[Any, ...] = (state, action, reward, next_state, done)
        for array, value in zip(self._arrays, values, strict=True):
            array[task, position] = value
        self.n_added[task] += 1
        if is_context:
            self._context_end[task] = self.n_added[task]

    def sample(self, tasks: np.ndarray, n: int) -> Transitions:
        """
        Draw transitions of each task with replacement, with NumPy's global generator, as SB3's buffers do.

        :param tasks: Indices of M tasks, (M,)
        :param n: Number of transitions N of each
        :return: Transitions, (M, N, ...)
        """
        return self._draw(tasks, np.maximum(self.n_added - self.capacity, 0), self.n_added, n)

    def sample_context(self, tasks: np.ndarray, n: int) -> Transitions:
        """
        Draw transitions of the context of each task, as :meth:`sample`.

        :param tasks: Indices of M tasks, (M,)
        :param n: Number of transitions N of each
        :return: Transitions, (M, N, ...)
        """
        start = np.maximum(self._context_start, self.n_added - self.capacity)
        return self._draw(tasks, start, self._context_end, n)

    def _draw(self, tasks: np.ndarray, start: np.ndarray, end: np.ndarray, n: int) -> Transitions:
        numbers = np.random.randint(start[tasks, None], end[tasks, None], size=(len(tasks), n))
        return Transitions(*(array[tasks[:, None], numbers % self.capacity] for array in self._arrays))
