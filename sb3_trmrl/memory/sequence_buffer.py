"""The rollout buffer of ``memory="full"``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_trmrl.distributed.collectives import all_reduce_min
from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.full_memory import FullMemory, KeyValueCache
from sb3_trmrl.memory.sequences import Sequences, ranges
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens, zero_tokens


class SequenceRolloutBuffer(MemoryRolloutBuffer):
    """
    Rollout buffer of the full-context memory. Minibatches consist of whole sequences: each begins where the memory was
    emptied or the rollout began, and ends where the memory is emptied next or the rollout ends. A sequence that began
    in an earlier rollout is preceded by those of its tokens that can still influence its outputs.
    """

    #: Number of earlier tokens that a memory depends on, in all layers together
    receptive_field: int = 0

    def bind(self, transformers: Sequence[TransformerExtractor]) -> None:
        super().bind(transformers)
        self.receptive_field = transformers[0].receptive_field

    def reset(self) -> None:
        self._n_stored = self.n_carried + getattr(self, "pos", 0)  # of the last rollout
        super().reset()

    def begin_rollout(self, memory: FullMemory) -> FullMemory:  # type: ignore[override]
        self._steps_before = memory.steps.cpu().numpy()
        self._carried_lengths = np.minimum(self._steps_before, self.receptive_field)
        # The tokens of the memory are the newest that were added
        n_carried = int(min(self._carried_lengths.max(), self._n_stored))
        stored = getattr(self, "tokens", zero_tokens(self.observation_space, 0, self.n_envs))
        self._allocate(map_tokens(lambda tokens: tokens[self._n_stored - n_carried : self._n_stored], stored))
        return self._recompute(memory)

    def _recompute(self, memory: FullMemory) -> FullMemory:
        """Recompute the caches, which were computed with the weights of earlier rollouts."""
        sequences, envs = self.carried()
        if not sequences.lengths:
            return memory
        return memory.recomputed(self.transformers, sequences, th.as_tensor(envs, device=self.device))

    def carried(self) -> tuple[Sequences, np.ndarray]:
        """
        Return the tokens of earlier rollouts that can still influence the outputs.

        :return: One sequence for each environment that has such tokens, and the environment of each token, (T,)
        """
        envs = np.flatnonzero(self._carried_lengths)
        lengths = self._carried_lengths[envs]
        rows = ranges(np.full(len(lengths), self.n_carried), lengths)
        positions = ranges(self._steps_before[envs], lengths)
        token_envs = np.repeat(envs, lengths)
        tokens = self._gather(rows, token_envs)
        nothing = self.to_torch(rows[:0])
        return Sequences(tokens, tuple(lengths.tolist()), self.to_torch(positions), nothing), token_envs

    def memory_state(self, memory: FullMemory) -> dict[str, Any]:  # type: ignore[override]
        # Keys and values are computed again from the tokens
        tokens = map_tokens(lambda tokens: tokens[: self.n_carried + self.pos].copy(), self.tokens)
        return {"memory": memory._replace(caches=()).numpy(), "tokens": tokens}

    def load_memory_state(self, state: dict[str, Any]) -> FullMemory:
        self.tokens, self.pos = state["tokens"], 0
        self.n_carried = len(first_array(self.tokens))
        memory: FullMemory = state["memory"].to(self.device)
        caches = (KeyValueCache.empty(transformer, self.n_envs) for transformer in self.transformers)
        return memory._replace(caches=tuple(caches))

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        # A sequence begins where the memory holds one token, and where the rollout begins
        begins = self.lengths[:, 0] == 1
        begins[:: self.buffer_size] = True
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(begins))
        order = np.random.permutation(len(starts))
        # The number of minibatches is determined by the number of transitions. Boundaries lie between sequences, such
        # that the sizes are as equal as possible
        n_batches = max(1, round(len(begins) / batch_size))
        sizes = (ends - starts)[order]
        batches = ((np.cumsum(sizes) - sizes / 2) * n_batches / len(begins)).astype(int)
        _, batches = np.unique(batches, return_inverse=True)
        # All ranks must draw the same number of minibatches: ranks with more merge adjacent ones
        n_drawn, n_batches = batches[-1] + 1, all_reduce_min(batches[-1] + 1)
        batches = batches * n_batches // n_drawn
        for batch in range(n_batches):
            drawn = batches == batch
            yield ranges(ends[order][drawn], sizes[drawn])

    def _observations(self, batch_inds: np.ndarray) -> Sequences:
        envs, steps = np.divmod(batch_inds, self.buffer_size)
        lengths = self.lengths[batch_inds, 0]
        # Transitions at which another sequence begins
        begins = np.ones(len(batch_inds), dtype=bool)
        begins[1:] = (np.diff(batch_inds) != 1) | (np.diff(lengths) != 1) | (np.diff(envs) != 0)
        firsts = np.flatnonzero(begins)
        sizes = np.diff(np.append(firsts, len(batch_inds)))
        contexts = np.minimum(lengths[firsts] - 1, self.receptive_field)
        sequences = contexts + sizes
        rows = ranges(self.n_carried + steps[firsts] + sizes, sequences)
        positions = ranges(lengths[firsts] - 1 + sizes, sequences)
        outputs = ranges(np.cumsum(sequences), sizes)
        tokens = self._gather(rows, np.repeat(envs[firsts], sequences))
        return Sequences(tokens, tuple(sequences.tolist()), self.to_torch(positions), self.to_torch(outputs))

    def _gather(self, rows: np.ndarray, envs: np.ndarray) -> Tokens:
        return map_tokens(lambda tokens: self.to_torch(tokens[rows, envs], copy=False), self.tokens)
