"""
Interface of a kind of memory.

The policy and the algorithm only use what is declared here. Each kind is a family of four classes:

* a live :class:`Memory` of the environments, written while acting; it is also the ``state`` of ``predict``
* a :class:`Batch` of memories, which a transformer encodes
* a :class:`~sb3_trmrl.memory.buffers.MemoryRolloutBuffer`, which stores each token once and makes the minibatches
* a :class:`~sb3_trmrl.memory.replay_buffer.MemoryReplayBuffer`, its counterpart for off-policy algorithms

The families are registered in :data:`sb3_trmrl.memory.kinds.MEMORY_KINDS`.

Shapes: B batch or environments, D width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch as th
from gymnasium import spaces

from sb3_trmrl.memory.tokens import Tokens

if TYPE_CHECKING:
    from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
    from sb3_trmrl.memory.extractor import TransformerExtractor
    from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer


class Batch(Protocol):
    """A batch of B memories, as transformers read them."""

    def newest(self) -> Tokens:
        """
        :return: Newest token of each memory, (B, \\*observation), or a dictionary
        """

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        """
        :param transformer: One of the policy's transformers
        :return: Episodic memory of the newest token of each memory, (B, D)
        """


class Memory(Protocol):
    """The live memory of B environments. It is a named tuple of arrays or tensors and is not modified in place."""

    @classmethod
    def empty(
        cls, observation_space: spaces.Space[Any], n_envs: int, transformers: Sequence[TransformerExtractor]
    ) -> Memory:
        """
        :param observation_space: Observation space of one environment
        :param n_envs: Number of environments B
        :param transformers: The policy's transformers
        :return: A memory without tokens
        """

    @property
    def lengths(self) -> Any:
        """Number of tokens in each memory, integers, (B,)"""

    def write(self, obs: Tokens, starts: th.Tensor, transformers: Sequence[TransformerExtractor]) -> Memory:
        """
        :param obs: Newest observations, tensors (B, \\*observation), or a dictionary
        :param starts: Mask of memories to empty before writing, booleans, (B,)
        :param transformers: The policy's transformers
        :return: The memory that ends with ``obs``
        """

    def batch(self) -> Batch:
        """
        :return: The B memories, for a transformer to encode
        """

    def select(self, indices: Any) -> Memory:
        """
        :param indices: Indices of environments
        :return: Copies of their memories, in that order
        """

    def copy(self) -> Memory:
        """
        :return: A memory that can be written to without affecting this one
        """

    def numpy(self) -> Memory:
        """
        :return: The same memory in NumPy arrays
        """

    def to(self, device: th.device | str) -> Memory:
        """
        :param device: PyTorch device
        :return: The same memory in tensors on that device
        """

    def shape_mismatch(self, expected: Any) -> str:
        """
        :param expected: A memory with the right shapes
        :return: Description of the difference in shapes, or an empty string if they match
        """


class MemoryKind(NamedTuple):
    """
    A kind of memory: its classes and the defaults of the policy.

    :param memory: Class of the live memory
    :param of_single_tokens: Function that builds a batch of memories with one token each, as at the first step of an
        episode, from observation tensors (B, \\*observation), or a dictionary of tensors
    :param buffer: Class of the rollout buffer
    :param replay_buffer: Class of the replay buffer
    :param context_length: Default ``context_length`` of the policy
    :param positional_encoding: Default ``positional_encoding`` of the policy
    :param bounded_positions: Whether all positions are below ``context_length``
    """

    memory: type[Memory]
    of_single_tokens: Callable[[Tokens], Batch]
    buffer: type[MemoryRolloutBuffer]
    replay_buffer: type[MemoryReplayBuffer]
    context_length: int
    positional_encoding: str
    bounded_positions: bool
