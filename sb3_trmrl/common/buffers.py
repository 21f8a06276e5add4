"""Rollout buffer of a policy with working memory."""

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_trmrl.common.windows import Windows, filled_slots
from sb3_trmrl.common.working_memory import Tokens, WorkingMemory, map_spaces, map_tokens, token_dtype


class WindowRolloutBufferSamples(NamedTuple):
    """SB3's ``RolloutBufferSamples`` with a window of tokens in place of each observation."""

    observations: Windows
    actions: th.Tensor
    old_values: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor


class WindowRolloutBuffer(RolloutBuffer):
    """
    Rollout buffer that keeps each token once and gathers windows by index when a minibatch is drawn.

    ``tokens`` holds the N - 1 tokens before the rollout (the memory carried over) and one per step, so the first
    windows of a rollout reach back into the previous one as they did while acting. Parameters are those of
    ``RolloutBuffer``; array, image and Dict observations are all kept here.
    """

    tokens: Tokens  # (N - 1 + n_steps, n_envs, *observation)
    lengths: np.ndarray  # (n_steps, n_envs), filled slots of the window at each step
    context_length: int
    # Whether a minibatch holds a token once however many of its windows do: pays where features of tokens are costly
    distinct_tokens: bool = False

    def reset(self) -> None:
        self.pos = 0
        self.full = False
        self.generator_ready = False
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros((*shape, self.action_dim), dtype=self.action_space.dtype)
        self.lengths = np.zeros(shape, dtype=np.int64)
        for name in ("rewards", "returns", "episode_starts", "values", "log_probs", "advantages"):
            setattr(self, name, np.zeros(shape, dtype=np.float32))

    def carry_over(self, memory: WorkingMemory) -> None:
        """
        Begin a rollout with the memory that its first observations will be written to.

        :param memory: Memory of the ``n_envs`` environments before the first step of the rollout
        """
        self.context_length = memory.context_length
        n_kept = self.context_length - 1
        lengths = memory.lengths.cpu().numpy()
        # Newest tokens at the end of the prefix: slot of prefix row r, or 0 where the memory is not that long
        slots = np.arange(-n_kept, 0)[:, None] + lengths  # (N - 1, E)
        envs = np.arange(self.n_envs)

        def begin(space: spaces.Space) -> np.ndarray:
            shape = (n_kept + self.buffer_size, self.n_envs, *(space.shape or ()))
            return np.zeros(shape, dtype=token_dtype(space))

        def fill(tokens: np.ndarray, carried: np.ndarray) -> None:
            tokens[:n_kept] = carried[envs, slots.clip(min=0)]

        self.tokens = map_spaces(begin, self.observation_space)
        map_tokens(fill, self.tokens, memory.numpy().tokens)

    def add(  # type: ignore[override]
        self,
        obs: Tokens,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: th.Tensor,
        log_prob: th.Tensor,
        lengths: th.Tensor,
    ) -> None:
        """
        :param obs: Newest observation of each environment, (n_envs, \\*observation), or a dictionary
        :param action: Action
        :param reward:
        :param episode_start: Start of episode signal.
        :param value: Estimated value of the newest window
        :param log_prob: Log probability of the action
        :param lengths: Filled slots of the window that ends with ``obs``, (n_envs,)
        """
        step = self.pos

        def store(tokens: np.ndarray, observation: np.ndarray) -> None:
            tokens[self.context_length - 1 + step] = observation.reshape(tokens.shape[1:])

        map_tokens(store, self.tokens, obs)
        self.lengths[step] = lengths.cpu().numpy()
        self.actions[step] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[step] = reward
        self.episode_starts[step] = episode_start
        self.values[step] = value.cpu().numpy().flatten()
        self.log_probs[step] = log_prob.cpu().numpy().reshape(self.n_envs)
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def get(self, batch_size: int | None = None) -> Generator[WindowRolloutBufferSamples, None, None]:  # type: ignore[override]
        assert self.full, "the rollout buffer must be full before minibatches are drawn"
        if not self.generator_ready:
            for name in ("actions", "lengths", "values", "log_probs", "advantages", "returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        size = self.buffer_size * self.n_envs
        indices = np.random.permutation(size)
        for start in range(0, size, batch_size or size):
            yield self._get_samples(indices[start : start + (batch_size or size)])

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> WindowRolloutBufferSamples:  # type: ignore[override]
        # The order within a minibatch is free: longer windows first, as `Windows` has them
        batch_inds = batch_inds[np.argsort(-self.lengths[batch_inds, 0], kind="stable")]
        return WindowRolloutBufferSamples(
            self._windows(batch_inds),
            # float32 as in SB3: MultiBinary actions are of an integer type the distributions do not take
            self.to_torch(self.actions[batch_inds].astype(np.float32, copy=False)),
            *(
                self.to_torch(values[batch_inds].flatten())
                for values in (self.values, self.log_probs, self.advantages, self.returns)
            ),
        )

    def _windows(self, batch_inds: np.ndarray) -> Windows:
        """
        :param batch_inds: Index of transitions in the flattened order (environment, step), (B,), longer windows first
        :return: The window that ends at each of them
        """
        envs, steps = np.divmod(batch_inds, self.buffer_size)
        lengths = self.lengths[batch_inds, 0]
        filled, counts = filled_slots(lengths)
        oldest = steps + self.context_length - lengths  # row of the oldest token in `tokens`
        slots, places = np.nonzero(filled)
        rows, envs = oldest[places] + slots, envs[places]
        columns = None
        if self.distinct_tokens:
            distinct, inverse = np.unique(rows * self.n_envs + envs, return_inverse=True)
            rows, envs = np.divmod(distinct, self.n_envs)
            columns = self.to_torch(inverse, copy=False)
        tokens = map_tokens(lambda tokens: self.to_torch(tokens[rows, envs], copy=False), self.tokens)
        return Windows(tokens, counts, columns)
