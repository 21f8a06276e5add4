"""The rollout buffer of ``memory="window"``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens
from sb3_trmrl.memory.windows import Windows
from sb3_trmrl.memory.working_memory import WorkingMemory


class WindowRolloutBuffer(MemoryRolloutBuffer):
    """
    Rollout buffer of the window memory. Windows are gathered by index when a minibatch is drawn. The N - 1 tokens
    before the rollout are kept, because the first windows of the rollout reach back to them.
    """

    context_length: int
    _stored: Tokens  # all tokens as tensors, ((n_carried + n_steps) * n_envs, *observation)

    def begin_rollout(self, memory: WorkingMemory) -> WorkingMemory:  # type: ignore[override]
        tokens, lengths = memory.numpy()
        self.context_length = first_array(tokens).shape[1]
        # The carried rows end with the newest token; rows before the oldest are in no window and repeat slot 0
        slots = np.arange(1 - self.context_length, 0)[:, None] + lengths  # (N - 1, E)
        self._allocate(map_tokens(lambda tokens: tokens[np.arange(self.n_envs), slots.clip(min=0)], tokens))
        return memory

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        self._stored = map_tokens(
            lambda tokens: self.to_torch(tokens.reshape(-1, *tokens.shape[2:]), copy=False), self.tokens
        )
        indices = np.random.permutation(self.buffer_size * self.n_envs)
        for start in range(0, len(indices), batch_size):
            batch_inds = indices[start : start + batch_size]
            # The order within a minibatch is free. Longest windows first is the order that short windows are packed in
            yield batch_inds[np.argsort(-self.lengths[batch_inds, 0], kind="stable")]

    def _observations(self, batch_inds: np.ndarray) -> Windows:
        envs, steps = np.divmod(batch_inds, self.buffer_size)
        lengths = self.lengths[batch_inds, 0]
        oldest = self.n_carried + steps + 1 - lengths
        rows = oldest[:, None] + np.minimum(np.arange(self.context_length), lengths[:, None] - 1)  # (B, N)
        return Windows(self._stored, rows * self.n_envs + envs[:, None], lengths)
