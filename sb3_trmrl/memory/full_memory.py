"""The full-context memory while acting: keys and values of earlier tokens, so that a step computes one token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th
import torch.nn.functional as F
from gymnasium import spaces

from sb3_trmrl.memory.working_memory import Tokens, map_spaces, map_tokens, token_dtype

#: Slots that a cache has at first; it doubles when it is full
_FIRST_CAPACITY = 16


class KeyValueCache(NamedTuple):
    """
    Keys and values of the newest tokens of B environments in every layer of one transformer. The token at position p is
    in slot p modulo ``context_length``; the slots are as many as have been needed so far.

    :param keys: (n_layers, B, slots, H, D / H)
    :param values: likewise
    """

    keys: Any
    values: Any

    @classmethod
    def empty(cls, n_layers: int, n_envs: int, n_heads: int, head_dim: int, device: th.device | str) -> KeyValueCache:
        """
        :param n_layers: Layers of the transformer
        :param n_envs: Number of environments B
        :param n_heads: Heads H
        :param head_dim: Width of a head
        :param device: PyTorch device
        :return: A cache without tokens
        """
        shape = (n_layers, n_envs, 0, n_heads, head_dim)
        return cls(th.zeros(shape, device=device), th.zeros(shape, device=device))

    def with_slots(self, n_slots: int, context_length: int) -> KeyValueCache:
        """
        :param n_slots: Slots that are needed
        :param context_length: Slots that there are at most
        :return: This cache, or a larger copy
        """
        capacity = self.keys.shape[2]
        if n_slots <= capacity:
            return self
        larger = min(max(n_slots, 2 * capacity, _FIRST_CAPACITY), context_length)
        padding = (0, 0, 0, 0, 0, larger - capacity)
        return KeyValueCache(F.pad(self.keys, padding), F.pad(self.values, padding))

    def attend(
        self, layer: int, steps: th.Tensor, n_visible: int, context_length: int
    ) -> Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]:
        """
        :param layer: Index of the layer
        :param steps: Tokens since the memory was emptied, the newest among them, (B,)
        :param n_visible: The most tokens that any environment sees
        :param context_length: Width of the band C
        :return: Attention of the newest token, which is written here first: queries, keys and values (B, H, D / H)
        """
        rows = th.arange(len(steps), device=steps.device)
        slots = (steps - 1) % context_length
        visible = (th.arange(n_visible, device=steps.device) < steps[:, None])[:, None, None]  # (B, 1, 1, n_visible)

        def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
            self.keys[layer, rows, slots] = k
            self.values[layer, rows, slots] = v
            keys, values = (x[layer, :, :n_visible].transpose(1, 2) for x in (self.keys, self.values))
            return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=visible)[:, :, 0]

        return attend


class FullMemory(NamedTuple):
    """
    Memory of B environments that holds all tokens since it was emptied.

    Caches are written in place: of two memories that follow each other only the newer may be used, unless it comes from
    :meth:`copy` or :meth:`select`.

    :param steps: Tokens since the memory was emptied, (B,)
    :param tokens: The newest token, raw, (B, \\*observation), or a dictionary
    :param caches: One for each transformer of the policy
    :param episodic: Episodic memory of the newest token in each of them, (B, D)
    """

    steps: Any
    tokens: Tokens
    caches: tuple[KeyValueCache, ...]
    episodic: tuple[Any, ...]

    @classmethod
    def empty(
        cls,
        observation_space: spaces.Space[Any],
        caches: tuple[KeyValueCache, ...],
        n_envs: int,
        device: th.device | str,
    ) -> FullMemory:
        """
        :param observation_space: Observation space of one environment
        :param caches: Empty ones
        :param n_envs: Number of environments B
        :param device: PyTorch device
        :return: A memory without tokens
        """

        def zeros(space: spaces.Space[Any]) -> th.Tensor:
            dtype = th.as_tensor(token_dtype(space).type(0)).dtype
            return th.zeros((n_envs, *(space.shape or ())), dtype=dtype, device=device)

        episodic = tuple(
            th.zeros((n_envs, cache.keys.shape[3] * cache.keys.shape[4]), device=device) for cache in caches
        )
        steps = th.zeros(n_envs, dtype=th.long, device=device)
        return cls(steps, map_spaces(zeros, observation_space), caches, episodic)

    @property
    def lengths(self) -> Any:
        """Tokens since the memory was emptied, (B,)"""
        return self.steps

    def select(self, indices: Any) -> FullMemory:
        """
        :param indices: Which environments
        :return: Copies of their memories, in that order
        """
        return FullMemory(
            self.steps[indices],
            map_tokens(lambda tokens: tokens[indices], self.tokens),
            tuple(KeyValueCache(cache.keys[:, indices], cache.values[:, indices]) for cache in self.caches),
            tuple(features[indices] for features in self.episodic),
        )

    def copy(self) -> FullMemory:
        """
        :return: The same memory with caches of its own
        """
        return self._replace(caches=tuple(KeyValueCache(c.keys.clone(), c.values.clone()) for c in self.caches))

    def numpy(self) -> FullMemory:
        """
        :return: The same memory in numpy arrays
        """
        return self._map(lambda x: x.cpu().numpy())

    def to(self, device: th.device | str) -> FullMemory:
        """
        :param device: PyTorch device
        :return: The same memory in tensors on that device
        """
        return self._map(lambda x: th.as_tensor(x, device=device))

    def _map(self, function: Callable[[Any], Any]) -> FullMemory:
        return FullMemory(
            function(self.steps),
            map_tokens(function, self.tokens),
            tuple(KeyValueCache(function(cache[0]), function(cache[1])) for cache in self.caches),
            tuple(function(features) for features in self.episodic),
        )

    def misfit(self, expected: Any) -> str:
        """
        :param expected: A memory of the right shape
        :return: What is wrong with this one in comparison, or nothing
        """

        def shapes(memory: FullMemory) -> tuple[Any, ...]:
            # Slots are as many as were needed
            caches = tuple((*x.shape[:2], *x.shape[3:]) for cache in memory.caches for x in cache)
            tokens = map_tokens(lambda tokens: tuple(tokens.shape), memory.tokens)
            return tuple(memory.steps.shape), tokens, caches

        if shapes(self) != shapes(expected):
            return f"the shapes {shapes(self)} instead of {shapes(expected)}"
        return ""
