"""Base class of the rollout buffers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.interface import Batch, Memory
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens, widened, zero_tokens


class MaskedBatch(NamedTuple):
    """
    A batch of B memories, and which actions were valid at their newest tokens.

    :param memories: The memories
    :param action_masks: Masks of valid actions, booleans, (B, M), see :meth:`sb3_trmrl.TransformerPPO.predict`
    """

    memories: Batch
    action_masks: th.Tensor

    def newest(self) -> Tokens:
        return self.memories.newest()

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        return self.memories.encode(transformer)


class MemoryRolloutBufferSamples(NamedTuple):
    """SB3's ``RolloutBufferSamples`` with a batch of memories in place of observations."""

    observations: Batch
    actions: th.Tensor
    old_values: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor


class MemoryRolloutBuffer(RolloutBuffer):
    """
    Rollout buffer that stores each token once: the tokens of the rollout, preceded by the tokens of earlier rollouts
    that the first memories still contain.

    The parameters are those of ``RolloutBuffer``. Array, image and Dict observations are all stored here.
    """

    tokens: Tokens  # (n_carried + n_steps, n_envs, *observation)
    lengths: np.ndarray  # (n_steps, n_envs), number of tokens in the memory at each step
    action_masks: np.ndarray | None = None  # (n_steps, n_envs, M)
    n_carried: int = 0
    transformers: Sequence[TransformerExtractor] = ()

    def bind(self, transformers: Sequence[TransformerExtractor]) -> None:
        """
        :param transformers: The transformers of the policy, which encode what this buffer stores
        """
        self.transformers = transformers

    def reset(self) -> None:
        self.pos = 0
        self.full = False
        self.generator_ready = False
        shape = (self.buffer_size, self.n_envs)
        # Distributions sample 32-bit floats for every Box, also for a Box of integers
        action_dtype = np.float32 if isinstance(self.action_space, spaces.Box) else self.action_space.dtype
        self.actions = np.zeros((*shape, self.action_dim), dtype=action_dtype)
        self.lengths = np.zeros(shape, dtype=np.int64)
        self.action_masks = None
        for name in ("rewards", "returns", "episode_starts", "values", "log_probs", "advantages"):
            setattr(self, name, np.zeros(shape, dtype=np.float32))

    def begin_rollout(self, memory: Memory) -> Memory:
        """
        Keep the tokens of earlier rollouts that this memory holds. To be called after :meth:`reset`.

        :param memory: Memory of the ``n_envs`` environments before the first step of the rollout
        :return: The same memory; anything derived from the tokens is recomputed with the current weights
        """
        raise NotImplementedError

    def memory_state(self, memory: Memory) -> dict[str, Any]:
        """
        :param memory: What :meth:`begin_rollout` returned
        :return: What :meth:`load_memory_state` needs, in NumPy arrays
        """
        return {"memory": memory.numpy()}

    def load_memory_state(self, state: dict[str, Any]) -> Memory:
        """
        :param state: What :meth:`memory_state` returned
        :return: The memory to begin the next rollout with
        """
        memory: Memory = state["memory"]
        return memory.to(self.device)

    def add(  # type: ignore[override]
        self,
        obs: Tokens,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: th.Tensor,
        log_prob: th.Tensor,
        lengths: th.Tensor,
        action_masks: np.ndarray | None = None,
    ) -> None:
        """
        :param obs: Newest observation of each environment, (n_envs, \\*observation), or a dictionary
        :param action: Action
        :param reward: Reward, (n_envs,)
        :param episode_start: Start of episode signal.
        :param value: Estimated value of the memory that ends with ``obs``
        :param log_prob: Log probability of the action
        :param lengths: Number of tokens in the memory that ends with ``obs``, (n_envs,)
        :param action_masks: Masks of valid actions, (n_envs, M), at every step of a rollout or at none
        """
        step = self.pos

        def store(tokens: np.ndarray, observation: np.ndarray) -> np.ndarray:
            tokens = widened(tokens, observation)
            tokens[self.n_carried + step] = observation.reshape(tokens.shape[1:])
            return tokens

        self.tokens = map_tokens(store, self.tokens, obs)
        self.lengths[step] = lengths.cpu().numpy()
        if action_masks is not None:
            if self.action_masks is None:
                self.action_masks = np.zeros((self.buffer_size, *action_masks.shape), dtype=bool)
            self.action_masks[step] = action_masks
        self.actions[step] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[step] = reward
        self.episode_starts[step] = episode_start
        self.values[step] = value.cpu().numpy().flatten()
        self.log_probs[step] = log_prob.cpu().numpy().reshape(self.n_envs)
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def get(self, batch_size: int | None = None) -> Generator[MemoryRolloutBufferSamples, None, None]:  # type: ignore[override]
        assert self.full, "the rollout buffer must be full before minibatches are drawn"
        if not self.generator_ready:
            for name in ("actions", "lengths", "values", "log_probs", "advantages", "returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            if self.action_masks is not None:
                self.action_masks = self.swap_and_flatten(self.action_masks)
            self.generator_ready = True
        for batch_inds in self._draw(batch_size or self.buffer_size * self.n_envs):
            yield self._get_samples(batch_inds)

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        """Yield the transitions of each minibatch, as indices in the flattened order (environment, step)."""
        raise NotImplementedError

    def _observations(self, batch_inds: np.ndarray) -> Batch:
        """Return the memories that end with these transitions, in this order."""
        raise NotImplementedError

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> MemoryRolloutBufferSamples:  # type: ignore[override]
        observations = self._observations(batch_inds)
        if self.action_masks is not None:
            observations = MaskedBatch(observations, self.to_torch(self.action_masks[batch_inds]))
        return MemoryRolloutBufferSamples(
            observations,
            # float32 as in SB3: MultiBinary actions have an integer type that the distributions do not accept
            self.to_torch(self.actions[batch_inds].astype(np.float32, copy=False)),
            *(
                self.to_torch(values[batch_inds].flatten())
                for values in (self.values, self.log_probs, self.advantages, self.returns)
            ),
        )

    def _allocate(self, carried: Tokens | None = None) -> None:
        """Allocate storage for the tokens of a rollout, after those of earlier rollouts (n_carried, n_envs, ...)."""
        if carried is None:
            carried = zero_tokens(self.observation_space, 0, self.n_envs)
        self.n_carried = len(first_array(carried))

        def begin(empty: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            stored = widened(empty, tokens)
            stored[: self.n_carried] = tokens
            return stored

        empty = zero_tokens(self.observation_space, self.n_carried + self.buffer_size, self.n_envs)
        self.tokens = map_tokens(begin, empty, carried)
