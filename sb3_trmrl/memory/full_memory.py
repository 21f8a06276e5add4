"""The live memory of ``memory="full"``: keys and values of earlier tokens, so that a step computes one token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch as th
import torch.nn.functional as F
from gymnasium import spaces

from sb3_trmrl.memory.encoder import Attend, attention_mask
from sb3_trmrl.memory.sequences import Sequences, attend_within_sequences
from sb3_trmrl.memory.tokens import Tokens, map_tokens, widened_tensor, zero_tensors

if TYPE_CHECKING:
    from sb3_trmrl.memory.extractor import TransformerExtractor

#: Initial number of slots; doubled when the cache is full
_FIRST_CAPACITY = 16


def slot_ages(steps: th.Tensor, n_slots: int, context_length: int) -> th.Tensor:
    """
    :param steps: Number of tokens so far, (B,)
    :param n_slots: Number of slots N, at most ``context_length``
    :param context_length: Number of slots after which the first one is used again
    :return: Number of steps from the token in each slot to the newest one, negative if the slot is not filled, (B, N)
    """
    newest = steps[:, None] - 1
    ages = newest - th.arange(n_slots, device=steps.device)
    return th.where(newest < context_length, ages, ages % context_length)


class KeyValueCache(NamedTuple):
    """
    Keys and values of the newest tokens of B environments in every layer of one transformer. The token at position p is
    in slot p modulo ``context_length``. Slots are allocated on demand.

    :param keys: (n_layers, B, slots, H, D / H)
    :param values: (n_layers, B, slots, H, D / H)
    """

    keys: Any
    values: Any

    @classmethod
    def empty(cls, transformer: TransformerExtractor, n_envs: int) -> KeyValueCache:
        """
        :param transformer: The transformer
        :param n_envs: Number of environments B
        :return: A cache without tokens
        """
        n_heads = transformer.encoder.layers[0].attention.n_heads
        head_dim = transformer.features_dim // n_heads
        zeros = th.zeros((len(transformer.encoder.layers), n_envs, 0, n_heads, head_dim), device=transformer.device)
        return cls(zeros, zeros.clone())

    @classmethod
    def of_sequences(
        cls, transformer: TransformerExtractor, sequences: Sequences, envs: th.Tensor, n_envs: int
    ) -> KeyValueCache:
        """
        Fill a cache with many tokens at once.

        :param transformer: The transformer
        :param sequences: Tokens so far, of the environments that have any
        :param envs: Environment of each token, (T,)
        :param n_envs: Number of environments B
        :return: The cache after these tokens
        """
        context_length = transformer.context_length
        layers: list[tuple[th.Tensor, th.Tensor]] = []
        within = attend_within_sequences(sequences.lengths, transformer)

        def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
            layers.append((k, v))
            return within(q, k, v)

        sequences.refine(transformer, attend)
        n_slots = min(int(sequences.positions.max()) + 1, context_length)
        cache = cls.empty(transformer, n_envs)._with_slots(n_slots, context_length)
        # Of the tokens that share a slot, only the newest may be written
        lengths = th.as_tensor(sequences.lengths, device=envs.device)
        last = th.repeat_interleave(sequences.positions[lengths.cumsum(0) - 1], lengths)
        kept = sequences.positions > last - context_length
        slots = sequences.positions[kept] % context_length
        for index, (keys, values) in enumerate(layers):
            cache.keys[index, envs[kept], slots] = keys[kept]
            cache.values[index, envs[kept], slots] = values[kept]
        return cache

    def append(
        self, transformer: TransformerExtractor, tokens: Tokens, steps: th.Tensor
    ) -> tuple[KeyValueCache, th.Tensor]:
        """
        Compute the newest token of each environment. Its keys and values are written to this cache in place.

        :param transformer: The transformer
        :param tokens: Newest tokens, (B, \\*observation), or a dictionary
        :param steps: Number of tokens since the memory was emptied, including these, (B,)
        :return: The cache, or a larger copy of it, and the episodic memories, (B, D)
        """
        n_visible = min(int(steps.max()), transformer.context_length)
        cache = self._with_slots(n_visible, transformer.context_length)
        distances = slot_ages(steps, n_visible, transformer.context_length)
        mask = attention_mask(transformer.encoder.relative_positions, distances[:, None])
        slots = (steps - 1) % transformer.context_length
        memories = transformer.working_memories(tokens, positions=steps - 1)
        for index, layer in enumerate(transformer.encoder.layers):
            memories = layer(memories, memories, cache._attend(index, slots, mask))
        return cache, transformer.encoder.final_norm(memories)

    def _with_slots(self, n_slots: int, context_length: int) -> KeyValueCache:
        """Return this cache, or a larger copy if it has fewer slots."""
        capacity = self.keys.shape[2]
        if n_slots <= capacity:
            return self
        larger = min(max(n_slots, 2 * capacity, _FIRST_CAPACITY), context_length)
        padding = (0, 0, 0, 0, 0, larger - capacity)
        return KeyValueCache(F.pad(self.keys, padding), F.pad(self.values, padding))

    def _attend(self, layer: int, slots: th.Tensor, mask: th.Tensor) -> Attend:
        """Return the attention of the newest tokens (B, H, D / H), which are first written to their slots (B,)."""
        rows, n_visible = th.arange(len(slots), device=slots.device), mask.shape[-1]

        def attend(q: th.Tensor, k: th.Tensor, v: th.Tensor) -> th.Tensor:
            self.keys[layer, rows, slots] = k
            self.values[layer, rows, slots] = v
            keys, values = (x[layer, :, :n_visible].transpose(1, 2) for x in (self.keys, self.values))
            return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask)[:, :, 0]

        return attend


class FullMemory(NamedTuple):
    """
    Memory of B environments that holds all tokens since it was emptied.

    Writing reuses the caches: once the next memory has been written, this one must not be used any more. The results of
    :meth:`copy` and :meth:`select` stay valid.

    :param steps: Number of tokens since the memory was emptied, (B,)
    :param tokens: The newest token, raw, (B, \\*observation), or a dictionary
    :param caches: Keys and values, one cache for each transformer of the policy; in the state of ``predict``, only that
        of the actor
    :param episodic: Episodic memory of the newest token in each transformer, (B, D)
    """

    steps: Any
    tokens: Tokens
    caches: tuple[KeyValueCache, ...]
    episodic: tuple[Any, ...]

    @classmethod
    def empty(
        cls, observation_space: spaces.Space[Any], n_envs: int, transformers: Sequence[TransformerExtractor]
    ) -> FullMemory:
        device = transformers[0].device
        return cls(
            th.zeros(n_envs, dtype=th.long, device=device),
            zero_tensors(observation_space, n_envs, device=device),
            tuple(KeyValueCache.empty(transformer, n_envs) for transformer in transformers),
            tuple(th.zeros((n_envs, transformer.features_dim), device=device) for transformer in transformers),
        )

    @property
    def lengths(self) -> Any:
        return self.steps

    def write(self, obs: Tokens, starts: th.Tensor, transformers: Sequence[TransformerExtractor]) -> FullMemory:
        def copied(new: th.Tensor, old: th.Tensor) -> th.Tensor:
            # Contiguous, because transposed images change the rounding of convolutions
            return th.empty_like(widened_tensor(old, new)).copy_(new.reshape(old.shape))

        tokens = map_tokens(copied, obs, self.tokens)
        steps = th.where(starts, 1, self.steps + 1)
        read = transformers[: len(self.caches)]  # the state of `predict` has a cache of the actor only
        written = [
            cache.append(transformer, tokens, steps) for transformer, cache in zip(read, self.caches, strict=True)
        ]
        return FullMemory(steps, tokens, tuple(cache for cache, _ in written), tuple(new for _, new in written))

    def recomputed(
        self, transformers: Sequence[TransformerExtractor], sequences: Sequences, envs: th.Tensor
    ) -> FullMemory:
        """
        Recompute the caches, which were computed with earlier weights.

        :param transformers: The policy's transformers
        :param sequences: Tokens so far, of the environments that have any
        :param envs: Environment of each token, (T,)
        :return: The same memory for the current weights
        """
        n_envs = len(self.steps)
        with th.no_grad():
            caches = [KeyValueCache.of_sequences(each, sequences, envs, n_envs) for each in transformers]
        return self._replace(caches=tuple(caches))

    def batch(self) -> FullMemory:
        return self  # its episodic memories were computed when it was written

    def newest(self) -> Tokens:
        return self.tokens

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        if transformer.number >= len(self.episodic):
            raise ValueError(
                "this memory contains what the actor reads only, as the state of predict() does: to compute values, "
                "begin with empty_memory() and write each observation with remember()"
            )
        episodic: th.Tensor = self.episodic[transformer.number]
        return episodic

    def select(self, indices: Any) -> FullMemory:
        caches = (KeyValueCache(cache.keys[:, indices], cache.values[:, indices]) for cache in self.caches)
        selected = self._replace(caches=())._map(lambda x: x[indices])
        return selected._replace(caches=tuple(caches))

    def copy(self) -> FullMemory:
        return self._replace(caches=tuple(KeyValueCache(c.keys.clone(), c.values.clone()) for c in self.caches))

    def numpy(self) -> FullMemory:
        return self._map(lambda x: x.cpu().numpy())

    def to(self, device: th.device | str) -> FullMemory:
        return self._map(lambda x: th.as_tensor(x, device=device))

    def _map(self, function: Callable[[Any], Any]) -> FullMemory:
        """Apply a function to every array."""
        return FullMemory(
            function(self.steps),
            map_tokens(function, self.tokens),
            tuple(KeyValueCache(function(cache[0]), function(cache[1])) for cache in self.caches),
            tuple(function(features) for features in self.episodic),
        )

    def shape_mismatch(self, expected: Any) -> str:
        def shapes(memory: FullMemory) -> tuple[Any, ...]:
            # The number of slots may differ
            caches = tuple((*x.shape[:2], *x.shape[3:]) for cache in memory.caches for x in cache)
            tokens = map_tokens(lambda tokens: tuple(tokens.shape), memory.tokens)
            return tuple(memory.steps.shape), tokens, caches

        if shapes(self) != shapes(expected):
            return f"the shapes {shapes(self)} instead of {shapes(expected)}"
        return ""
