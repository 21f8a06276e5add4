"""Windows of tokens, packed for the encoder: only the slots that are filled, each distinct token once if that pays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch as th

from sb3_trmrl.memory.working_memory import Tokens, WorkingMemory, first_array, map_tokens


class Windows(NamedTuple):
    """
    The filled slots of B windows, slot after slot, longer windows first. With ``counts[s]`` windows that fill slot s,
    the columns ``sum(counts[:s])`` to ``sum(counts[:s + 1])`` hold slot s of the windows 0 to ``counts[s]``, T columns
    in all.

    :param tokens: Raw observations, (T, \\*observation), or (U, \\*observation) with ``columns``; a dictionary for Dict
        observations
    :param counts: Number of windows that fill each slot, not increasing; its sum is T and its first entry B
    :param columns: Row of ``tokens`` that each column holds, (T,); None if row and column are the same
    :param order: Place of each window in the caller's order, (B,); None if that order is the one above
    """

    tokens: Tokens
    counts: tuple[int, ...]
    columns: th.Tensor | None = None
    order: th.Tensor | None = None

    @classmethod
    def of(cls, memory: WorkingMemory) -> Windows:
        """
        :param memory: A memory with a token or more in each window
        :return: Its windows
        """
        lengths = memory.lengths.cpu().numpy()
        ranks = np.argsort(-lengths, kind="stable")
        filled, counts = filled_slots(lengths[ranks])
        slots, places = np.nonzero(filled)
        device = memory.lengths.device
        index = th.as_tensor(ranks[places], device=device), th.as_tensor(slots, device=device)
        order = None
        if counts[-1] < len(lengths):
            order = th.as_tensor(np.argsort(ranks), device=device)
        return cls(map_tokens(lambda tokens: tokens[index], memory.tokens), counts, None, order)

    def __len__(self) -> int:
        return self.counts[0]

    def newest_columns(self) -> np.ndarray:
        """
        :return: Column of each window's newest token, (B,), longer windows first
        """
        lengths = self.lengths()
        columns: np.ndarray = self._first_columns()[lengths - 1] + np.arange(len(lengths))
        return columns

    def padded_columns(self) -> np.ndarray:
        """
        :return: Column of each slot of each window, (B, N), longer windows first; slots not filled repeat the newest
        """
        lengths = self.lengths()[:, None]
        slots = np.minimum(np.arange(len(self.counts)), lengths - 1)
        columns: np.ndarray = self._first_columns()[slots] + np.arange(len(lengths))[:, None]
        return columns

    def _first_columns(self) -> np.ndarray:
        return np.cumsum((0, *self.counts[:-1]))

    def newest(self) -> Tokens:
        """
        :return: Newest token of each window in the caller's order, (B, \\*observation)
        """
        newest = th.as_tensor(self.newest_columns(), device=first_array(self.tokens).device)
        if self.columns is not None:
            newest = self.columns[newest]
        newest = self.restore_order(newest)
        return map_tokens(lambda tokens: tokens[newest], self.tokens)

    def restore_order(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: One row for each window, longer windows first
        :return: The same in the caller's order
        """
        return x if self.order is None else x[self.order]

    def lengths(self) -> np.ndarray:
        """
        :return: Number of filled slots of each window, (B,), longer windows first
        """
        lengths: np.ndarray = (np.asarray(self.counts)[:, None] > np.arange(self.counts[0])).sum(axis=0)
        return lengths


def filled_slots(lengths: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """
    :param lengths: Number of filled slots of each window, (B,), at least 1, not increasing
    :return: Which slots are filled, (longest, B), and their number in each row
    """
    filled = np.arange(lengths[0])[:, None] < lengths
    return filled, tuple(filled.sum(axis=1).tolist())
