"""The live memory of ``memory="window"``: the newest N tokens of each environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens, widened_tensor, zero_tensors
from sb3_trmrl.memory.windows import Windows

if TYPE_CHECKING:
    from sb3_trmrl.memory.extractor import TransformerExtractor


class WorkingMemory(NamedTuple):
    """
    Windows of the newest tokens of B environments. Slots are filled from slot 0 on. Once all N slots are filled, the
    oldest token is dropped for each new one (Melo 2022, section 5.1, "Memory Write Logic").

    :param tokens: Raw observations, (B, N, \\*observation), slot 0 the oldest; a dictionary for Dict observations
    :param lengths: Number of filled slots, integers, (B,); the contents of other slots are undefined
    """

    tokens: Tokens
    lengths: Any

    @classmethod
    def empty(
        cls, observation_space: spaces.Space[Any], n_envs: int, transformers: Sequence[TransformerExtractor]
    ) -> WorkingMemory:
        device = transformers[0].device
        tokens = zero_tensors(observation_space, n_envs, transformers[0].context_length, device=device)
        return cls(tokens, th.zeros(n_envs, dtype=th.long, device=device))

    def write(self, obs: Tokens, starts: th.Tensor, transformers: Sequence[TransformerExtractor] = ()) -> WorkingMemory:
        n_slots = first_array(self.tokens).shape[1]
        filled = th.where(starts, 0, self.lengths)
        slide = (filled == n_slots).long()  # a full window drops its oldest token
        rows = th.arange(len(filled), device=filled.device)
        source = (th.arange(n_slots, device=filled.device) + slide[:, None]).clamp(max=n_slots - 1)
        newest = filled - slide

        def append(tokens: th.Tensor, observation: th.Tensor) -> th.Tensor:
            tokens = widened_tensor(tokens, observation)[rows[:, None], source]
            tokens[rows, newest] = observation.reshape(tokens[:, 0].shape).to(tokens.dtype)
            return tokens

        return WorkingMemory(map_tokens(append, self.tokens, obs), newest + 1)

    def batch(self) -> Windows:
        n_envs, n_slots = first_array(self.tokens).shape[:2]
        index = np.arange(n_envs * n_slots).reshape(n_envs, n_slots)
        tokens = map_tokens(lambda tokens: tokens.flatten(0, 1), self.tokens)
        return Windows(tokens, index, self.lengths.cpu().numpy())

    def select(self, indices: Any) -> WorkingMemory:
        return WorkingMemory(map_tokens(lambda tokens: tokens[indices], self.tokens), self.lengths[indices])

    def copy(self) -> WorkingMemory:
        return self  # writing creates a new memory

    def numpy(self) -> WorkingMemory:
        return WorkingMemory(map_tokens(lambda tokens: tokens.cpu().numpy(), self.tokens), self.lengths.cpu().numpy())

    def to(self, device: th.device | str) -> WorkingMemory:
        tokens = map_tokens(lambda tokens: th.as_tensor(tokens, device=device), self.tokens)
        return WorkingMemory(tokens, th.as_tensor(self.lengths, device=device))

    def shape_mismatch(self, expected: Any) -> str:
        def shapes(memory: WorkingMemory) -> tuple[Any, Any]:
            return map_tokens(lambda tokens: tuple(tokens.shape), memory.tokens), tuple(memory.lengths.shape)

        n_slots = first_array(self.tokens).shape[1]
        if shapes(self) != shapes(expected) or bool(((self.lengths < 0) | (self.lengths > n_slots)).any()):
            return f"the shapes {shapes(self)} instead of {shapes(expected)}"
        return ""
