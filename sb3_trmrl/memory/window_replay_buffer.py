"""The replay buffer of ``memory="window"``."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer, MemoryReplaySamples
from sb3_trmrl.memory.windows import Windows


class WindowReplayBuffer(MemoryReplayBuffer):
    """Replay buffer that samples single transitions, each with its window of N tokens."""

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> MemoryReplaySamples:  # type: ignore[override]
        return self._gather(*self._draw(batch_size), env)

    def _gather(self, envs: np.ndarray, numbers: np.ndarray, env: VecNormalize | None = None) -> MemoryReplaySamples:
        """Return the transitions that begin with these tokens."""
        assert self.history_length is not None
        n_slots, n_rows = self.history_length, self.history_length + 1
        # A transition's N tokens and the next one. Those before the window's first are not used
        rows = (numbers[:, None] + np.arange(1 - n_slots, 2)) % self.buffer_size  # (B, N + 1)
        tokens = self._tokens(np.repeat(envs, n_rows), rows.ravel(), env)
        first, slots = np.arange(len(envs))[:, None] * n_rows, np.arange(n_slots)

        def windows(newest: int) -> Windows:  # place of the newest token among the N + 1
            lengths = self.lengths[envs, rows[:, newest]].astype(np.int64)
            index = first + np.minimum(newest + 1 - lengths[:, None] + slots, newest)
            return Windows(tokens, index, lengths)

        return self._samples(windows(n_slots - 1), windows(n_slots), envs, rows[:, -2], env)
