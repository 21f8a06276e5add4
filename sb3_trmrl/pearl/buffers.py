"""The replay buffer of PEARL: the transitions of each training task, and the newest ones gathered with the prior."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_trmrl.common.checks import check_positive_int


class Transitions(NamedTuple):
    """
    N transitions of each of M tasks, as float32.

    :param states: (M, N, S)
    :param actions: Scaled to [-1, 1], (M, N, A)
    :param rewards: (M, N, 1)
    :param next_states: (M, N, S)
    :param dones: 1 where the task's episode terminated, 0 after a truncation, (M, N, 1)
    """

    states: th.Tensor
    actions: th.Tensor
    rewards: th.Tensor
    next_states: th.Tensor
    dones: th.Tensor


class TaskReplayBuffer:
    """
    The newest transitions of each task. Those since the task was last begun, gathered with latents from the prior, are
    also its *context*, from which the encoder learns.

    :param buffer_size: Transitions of all tasks together; each task keeps the same number
    :param n_tasks: Number of tasks
    :param state_dim: Numbers S of a state
    :param action_dim: Numbers A of an action
    :param device: Device of the sampled transitions
    """

    def __init__(
        self, buffer_size: int, n_tasks: int, state_dim: int, action_dim: int, device: th.device | str = "cpu"
    ) -> None:
        self.n_tasks = check_positive_int("n_tasks", n_tasks)
        self.capacity = max(buffer_size // n_tasks, 1)
        self.device = device
        #: Numbers of state, action, reward, next state and done flag
        self.dims = (state_dim, action_dim, 1, state_dim, 1)
        # They grow up to the capacity, so that small buffers are quick to save
        self._arrays = [np.zeros((n_tasks, 0, dim), dtype=np.float32) for dim in self.dims]
        #: Transitions added for each task so far, including those that have been overwritten, (n_tasks,)
        self.n_added = np.zeros(n_tasks, dtype=np.int64)
        self._context_start = np.zeros(n_tasks, dtype=np.int64)
        self._context_end = np.zeros(n_tasks, dtype=np.int64)

    def sizes(self) -> np.ndarray:
        """Return the number of stored transitions of each task, (n_tasks,)."""
        return np.minimum(self.n_added, self.capacity)

    def context_sizes(self) -> np.ndarray:
        """Return the number of transitions in the context of each task, (n_tasks,)."""
        return self._context_end - np.maximum(self._context_start, self.n_added - self.capacity)

    def contexts(self) -> np.ndarray:
        """Return a copy of the bounds of the context of each task, for :meth:`set_contexts`, (n_tasks, 2)."""
        return np.stack((self._context_start, self._context_end), axis=1)

    def set_contexts(self, tasks: np.ndarray, contexts: np.ndarray) -> None:
        """
        Restore contexts of some tasks.

        :param tasks: Indices of M tasks, (M,)
        :param contexts: What :meth:`contexts` returned, (n_tasks, 2)
        """
        self._context_start[tasks], self._context_end[tasks] = contexts[tasks].T

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

    def sample_context(self, tasks: np.ndarray, n: int) -> th.Tensor:
        """
        Draw sets of transitions for the encoder from the contexts, as :meth:`sample`.

        :param tasks: Indices of M tasks, (M,)
        :param n: Number of transitions N of each
        :return: States, actions and rewards, (M, N, S + A + 1)
        """
        start = np.maximum(self._context_start, self.n_added - self.capacity)
        return th.cat(self._draw(tasks, start, self._context_end, n)[:3], dim=2)

    def _draw(self, tasks: np.ndarray, start: np.ndarray, end: np.ndarray, n: int) -> Transitions:
        empty = tasks[start[tasks] == end[tasks]]
        if len(empty):
            raise ValueError(
                f"no transitions of training task {empty[0]} with a known next state have been stored: `initial_steps` "
                "and `prior_steps` must be larger"
            )
        numbers = np.random.randint(start[tasks, None], end[tasks, None], size=(len(tasks), n))
        rows = (array[tasks[:, None], numbers % self.capacity] for array in self._arrays)
        return Transitions(*(th.as_tensor(each, device=self.device) for each in rows))
