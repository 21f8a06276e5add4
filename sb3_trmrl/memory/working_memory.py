"""
The working memory: the newest N tokens of each environment.

One structure serves the live memory while acting, the ``state`` of ``predict`` and the windows of a minibatch, so that
the encoder is called in one way only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces

#: One batch of observations or tokens: an array, or for Dict observations one array per key
Tokens = Any


def map_tokens(function: Callable[..., Any], *tokens: Tokens) -> Tokens:
    """
    Apply a function to an array, or to each entry of a Dict observation.

    :param function: Takes one array of each of ``tokens``
    :param tokens: Arrays (numpy, torch) or dictionaries with the same keys
    :return: The result, or a dictionary of results
    """
    if isinstance(tokens[0], dict):
        return {key: function(*(token[key] for token in tokens)) for key in tokens[0]}
    return function(*tokens)


def map_spaces(function: Callable[[spaces.Space[Any]], Any], space: spaces.Space[Any]) -> Any:
    """
    Apply a function to an observation space, or to each subspace of a Dict space.

    :param function: Takes a space that is no Dict
    :param space: Observation space
    :return: The result, or a dictionary of results
    """
    if isinstance(space, spaces.Dict):
        return {key: function(subspace) for key, subspace in space.spaces.items()}
    return function(space)


def token_dtype(space: spaces.Space[Any]) -> np.dtype:
    """
    :param space: Observation space that is no Dict
    :return: The type in which tokens are kept: the space's own, but 32 bits for 64-bit floats, as networks read them,
        and signed integers for the unsigned ones that PyTorch cannot index
    """
    replaced = {"float64": "float32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
    return np.dtype(replaced.get(str(space.dtype), space.dtype))


def first_array(tokens: Tokens) -> Any:
    """
    :param tokens: An array or a dictionary of arrays
    :return: The array, or one of them, to read what they have in common: batch size, number of slots, device
    """
    return next(iter(tokens.values())) if isinstance(tokens, dict) else tokens


class WorkingMemory(NamedTuple):
    """
    Windows of the newest tokens of B environments, written from slot 0 until all N slots are filled and
    first-in first-out from then on (Melo 2022, section 5.1, "Memory Write Logic").

    It is never changed in place: :meth:`write` returns the memory that holds one token more.

    :param tokens: Raw observations, shape (B, N, \\*observation), slot 0 the oldest; a dictionary for Dict observations
    :param lengths: Number of filled slots, shape (B,), integers; what lies in the other slots has no meaning
    """

    tokens: Tokens
    lengths: Any

    @classmethod
    def empty(
        cls, observation_space: spaces.Space[Any], context_length: int, n_envs: int, device: th.device | str = "cpu"
    ) -> WorkingMemory:
        """
        :param observation_space: Observation space of one environment
        :param context_length: Number of slots N
        :param n_envs: Number of environments B
        :param device: PyTorch device
        :return: A memory without tokens
        """

        def zeros(space: spaces.Space[Any]) -> th.Tensor:
            slots = np.zeros((n_envs, context_length, *(space.shape or ())), dtype=token_dtype(space))
            return th.as_tensor(slots, device=device)

        lengths = th.zeros(n_envs, dtype=th.long, device=device)
        return cls(map_spaces(zeros, observation_space), lengths)

    def write(self, observations: Tokens, starts: th.Tensor) -> WorkingMemory:
        """
        :param observations: The newest observation of each environment, shape (B, \\*observation)
        :param starts: Where the memory is emptied before it is written, booleans, shape (B,)
        :return: The memory that ends with ``observations``
        """
        n_slots = self.context_length
        filled = th.where(starts, 0, self.lengths)
        slide = (filled == n_slots).long()  # a full window drops its oldest token
        rows = th.arange(len(filled), device=filled.device)
        source = (th.arange(n_slots, device=filled.device) + slide[:, None]).clamp(max=n_slots - 1)
        newest = filled - slide

        def append(tokens: th.Tensor, observation: th.Tensor) -> th.Tensor:
            tokens = tokens[rows[:, None], source]
            tokens[rows, newest] = observation.reshape(tokens[:, 0].shape).to(tokens.dtype)
            return tokens

        return WorkingMemory(map_tokens(append, self.tokens, observations), newest + 1)

    def select(self, indices: Any) -> WorkingMemory:
        """
        :param indices: Which environments
        :return: Their memories, in that order
        """
        return WorkingMemory(map_tokens(lambda tokens: tokens[indices], self.tokens), self.lengths[indices])

    @property
    def context_length(self) -> int:
        """Number of slots N"""
        n_slots: int = first_array(self.tokens).shape[1]
        return n_slots

    def misfit(self, expected: Any) -> str:
        """
        :param expected: A memory of the right shape
        :return: What is wrong with this one in comparison, or nothing
        """

        def shapes(memory: WorkingMemory) -> tuple[Any, Any]:
            return map_tokens(lambda tokens: tuple(tokens.shape), memory.tokens), tuple(memory.lengths.shape)

        if shapes(self) != shapes(expected) or bool(((self.lengths < 0) | (self.lengths > self.context_length)).any()):
            return f"the shapes {shapes(self)} instead of {shapes(expected)}"
        return ""

    def numpy(self) -> WorkingMemory:
        """
        :return: The same memory in numpy arrays
        """
        return WorkingMemory(map_tokens(lambda tokens: tokens.cpu().numpy(), self.tokens), self.lengths.cpu().numpy())

    def to(self, device: th.device | str) -> WorkingMemory:
        """
        :param device: PyTorch device
        :return: The same memory in tensors on that device
        """
        return WorkingMemory(
            map_tokens(lambda tokens: th.as_tensor(tokens, device=device), self.tokens),
            th.as_tensor(self.lengths, device=device),
        )
