"""Batches of windows of tokens: what the window memory is trained on and acts with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch as th

from sb3_trmrl.memory import short_windows
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens

if TYPE_CHECKING:
    from sb3_trmrl.memory.extractor import TransformerExtractor


class Windows(NamedTuple):
    """
    B windows of at most N tokens, as indices into one array of tokens, which windows may share.

    :param tokens: Raw observations, (U, \\*observation); a dictionary for Dict observations
    :param index: Row of ``tokens`` in each slot, slot 0 the oldest, integers, (B, N); entries of slots that are not
        filled are undefined
    :param lengths: Number of filled slots of each window, at least 1, integers, (B,)
    """

    tokens: Tokens
    index: np.ndarray  # type: ignore[assignment]  # tuples have a method of this name
    lengths: np.ndarray

    @classmethod
    def of_single_tokens(cls, tokens: Tokens) -> Windows:
        n_windows = len(first_array(tokens))
        return cls(tokens, np.arange(n_windows)[:, None], np.ones(n_windows, dtype=np.int64))

    def newest(self) -> Tokens:
        rows = self.index[np.arange(len(self.index)), self.lengths - 1]
        newest = th.as_tensor(rows, device=first_array(self.tokens).device)
        return map_tokens(lambda tokens: tokens[newest], self.tokens)

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        encoder, longest = transformer.encoder, int(self.lengths.max())
        if short_windows.are_faster(encoder, len(self.lengths), longest):
            return short_windows.encode(transformer, self.tokens, self.index, self.lengths)
        # Only filled slots are embedded, slot after slot
        is_filled = np.arange(longest)[:, None] < self.lengths  # (longest, B)
        slots, windows = np.nonzero(is_filled)
        memories = transformer.working_memories(self.tokens, self.index[windows, slots], slots)
        # Other slots may hold anything: the causal mask hides them from the newest slot
        place = np.zeros(is_filled.shape, dtype=np.int64)
        place[is_filled] = np.arange(len(slots))
        device = memories.device
        lengths = th.as_tensor(self.lengths, device=device)
        episodic: th.Tensor = encoder(memories[th.as_tensor(place.T, device=device)], lengths)
        return episodic
