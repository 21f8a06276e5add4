"""The replay buffer of ``memory="full"``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_int, check_positive_int
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer, MemoryReplaySamples
from sb3_trmrl.memory.sequences import Sequences, ranges


class SequenceReplayBuffer(MemoryReplayBuffer):
    """
    Replay buffer that samples sequences of up to L consecutive transitions. Each is preceded by the earlier tokens that
    its memory depends on (the burn-in of Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement
    Learning", 2019). Each token of a sequence is encoded once for all its transitions.

    The first parameters are those of :class:`~sb3_trmrl.memory.replay_buffer.MemoryReplayBuffer`.

    :param buffer_size: Number of tokens of all environments together
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: PyTorch device of the minibatches
    :param n_envs: Number of environments E
    :param optimize_memory_usage: Has no effect: nothing is stored twice
    :param folder: Folder for memory-mapped files
    :param sequence_length: Maximum number of transitions L in a sequence. With a larger L, a minibatch has fewer
        sequences
    :param burn_in: Maximum number of tokens before the first transition of a sequence. None: all tokens that its memory
        depends on, so that the replayed memory contains the same observations as the live one
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if ``sequence_length`` is below 1 or ``burn_in`` is negative
    """

    counts_beyond_history = True

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        folder: str | os.PathLike[str] | None = None,
        sequence_length: int = 32,
        burn_in: int | None = None,
    ) -> None:
        self.sequence_length = check_positive_int("sequence_length", sequence_length)
        self.burn_in = None if burn_in is None else check_int("burn_in", burn_in)
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, optimize_memory_usage, folder)

    def bind(self, history_length: int, reset_memory_on: str) -> None:
        self._check_size(history_length)  # also with a burn-in, for `refreshed`
        if self.burn_in is not None:
            history_length = min(history_length, self.burn_in + 1)
        super().bind(history_length, reset_memory_on)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> MemoryReplaySamples:  # type: ignore[override]
        length = min(self.sequence_length, batch_size)
        drawn: list[tuple[np.ndarray, ...]] = []
        n_drawn = 0
        while n_drawn < batch_size:
            n_missing = batch_size - n_drawn
            # A draw gives two transitions in the mean, or one if sequences have one
            drawn.append(self._around(*self._draw(-(-n_missing // min(length, 2))), length))
            n_drawn += (drawn[-1][2] - drawn[-1][1] + 1).sum()
        envs, firsts, lasts = map(np.concatenate, zip(*drawn, strict=True))
        kept = np.sort(np.random.permutation(n_drawn)[:batch_size])
        return self._gather(envs, firsts, lasts, kept, env)

    def _around(self, envs: np.ndarray, numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return sequences that begin with some of these transitions, and others that end with them if they are among the
        first of their memory. Uniform draws make all transitions equally likely to be in a sequence. Sequences are
        given by their environments, and by the numbers of the tokens that their first and last transitions begin with.
        """
        assert self.history_length is not None
        steps, lengths = np.arange(1, length), self.lengths[envs, numbers % self.buffer_size]
        later = numbers[:, None] + steps
        own = envs[:, None], later % self.buffer_size
        follows = (later < self.newest[envs][:, None]) & self.is_transition[own]
        follows &= self.lengths[own] == lengths[:, None] + steps  # the memory has not been emptied
        lasts = numbers + np.cumprod(follows, axis=1).sum(axis=1)
        begins, oldest = numbers - lengths + 1, self._oldest()[envs]
        lowest = np.where(begins >= oldest, begins, oldest + self.history_length - 1)
        # How many draws have a sequence with a given transition: `length`, or less if its memory is short. Draws from
        # longer ones are kept with a probability, by systematic sampling, which lets the number kept vary least
        n_draws = np.minimum(lasts - lowest + 2, length)
        shares = np.cumsum(np.minimum(2 / n_draws, 1)) + np.random.rand()
        kept = np.diff(np.floor(shares), prepend=0) > 0
        early = kept & (numbers - lowest < length - 1)
        return (
            np.concatenate((envs[kept], envs[early])),
            np.concatenate((numbers[kept], lowest[early])),
            np.concatenate((lasts[kept], numbers[early])),
        )

    def _gather(
        self, envs: np.ndarray, firsts: np.ndarray, lasts: np.ndarray, kept: np.ndarray, env: VecNormalize | None
    ) -> MemoryReplaySamples:
        """Return some of the transitions of these sequences, given by their indices."""
        assert self.history_length is not None
        n_transitions = lasts - firsts + 1
        n_before = np.minimum(self.lengths[envs, firsts % self.buffer_size], self.history_length) - 1
        sizes = n_before + n_transitions + 1  # with the last next observation
        token_envs, rows = np.repeat(envs, sizes), ranges(lasts + 2, sizes) % self.buffer_size
        lengths = self.lengths[token_envs, rows].astype(np.int64)
        ends = np.cumsum(sizes)
        # A last observation that begins a new memory is a sequence of its own
        is_apart = (lengths[ends - 1] == 1).astype(np.int64)
        pieces = np.stack((sizes - is_apart, is_apart), axis=1).ravel()
        outputs = ranges(ends - 1, n_transitions)[kept]
        sequences = Sequences(
            self._tokens(token_envs, rows, env),
            tuple(pieces[pieces > 0].tolist()),
            self.to_torch(lengths - 1),
            self.to_torch(outputs),
        )
        after = sequences._replace(outputs=sequences.outputs + 1)
        return self._samples(sequences, after, token_envs[outputs], rows[outputs], env)

    def refreshed(  # type: ignore[override]
        self, memory: FullMemory, transformers: Sequence[TransformerExtractor], env: VecNormalize | None = None
    ) -> FullMemory:
        steps = memory.steps.cpu().numpy()
        envs = np.flatnonzero((steps > 0) & ~self._begins)
        n_tokens = np.minimum(steps[envs], transformers[0].receptive_field)
        is_same = self.lengths[envs, (self.newest[envs] - 1) % self.buffer_size] == steps[envs]
        if not (len(envs) and is_same.all() and n_tokens.all()):
            return memory
        token_envs = np.repeat(envs, n_tokens)
        tokens = self._tokens(token_envs, ranges(self.newest[envs], n_tokens) % self.buffer_size, env)
        positions = self.to_torch(ranges(steps[envs], n_tokens))
        sequences = Sequences(tokens, tuple(n_tokens.tolist()), positions, positions[:0])
        return memory.recomputed(transformers, sequences, self.to_torch(token_envs))
