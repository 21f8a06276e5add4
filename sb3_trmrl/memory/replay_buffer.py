"""
Base class of the replay buffers.

Shapes: E environments, R rows in the ring of each environment, B batch, T tokens.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_instance, check_positive_int
from sb3_trmrl.memory.interface import Batch, Memory
from sb3_trmrl.memory.tokens import Tokens, inner_starts, map_tokens, widened, zero_tokens

if TYPE_CHECKING:
    from sb3_trmrl.memory.extractor import TransformerExtractor

#: Arrays with one entry for each row of each ring, and their types
_ROW_ARRAYS: dict[str, type] = {
    "rewards": np.float32,
    "lengths": np.int32,  # number of tokens in the memory that ends with the row's token
    "is_transition": bool,  # False for the last token of an episode
    "terminated": bool,
}
#: Arrays besides the tokens
_STORED = ("actions", *_ROW_ARRAYS)


class MemoryReplaySamples(NamedTuple):
    """SB3's ``ReplayBufferSamples`` with batches of memories, which share their tokens, in place of observations."""

    observations: Batch
    actions: th.Tensor
    next_observations: Batch
    dones: th.Tensor
    rewards: th.Tensor


class MemoryReplayBuffer(ReplayBuffer):
    """
    Replay buffer that stores each observation once, as a token. The memories of a minibatch are assembled by index.
    They begin where the live memory was emptied, and contain the same observations.

    Each environment has a ring of its own, in which the tokens of its episodes follow each other. The last observation
    of an episode is a token too, which no transition begins with. So the next observation is always the next token,
    also after a truncation. Transitions whose memory has been overwritten in part are not drawn.

    :param buffer_size: Number of tokens of all environments together
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: PyTorch device of the minibatches
    :param n_envs: Number of environments E
    :param optimize_memory_usage: Has no effect: nothing is stored twice
    :param folder: Folder for memory-mapped files, which may be larger than the main memory. They are removed when the
        buffer is deleted. None: the buffer is kept in main memory
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if the folder cannot be written to
    """

    tokens: Tokens  # (E, R, *observation)
    actions: np.ndarray  # (E, R, A)
    rewards: np.ndarray  # (E, R), and so are the others
    lengths: np.ndarray
    is_transition: np.ndarray
    terminated: np.ndarray
    #: Number of tokens that a memory depends on, the newest included
    history_length: int | None = None
    reset_memory_on: str = "episode"
    #: Whether lengths are counted beyond ``history_length``
    counts_beyond_history: bool = False

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        check_positive_int("buffer_size", buffer_size)
        check_instance("folder", folder, (str, os.PathLike, type(None)), "a folder or None")
        BaseBuffer.__init__(self, max(buffer_size // n_envs, 1), observation_space, action_space, device, n_envs)
        self.folder = folder
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._n_files = 0
        self._allocate()

    def bind(self, history_length: int, reset_memory_on: str) -> None:
        """
        Set what determines the memories.

        :param history_length: Number of tokens that a memory depends on, the newest included: the slots N of a window
        :param reset_memory_on: Where the memory is emptied, ``"trial"`` or ``"episode"``, as the policy's argument
        :raises ValueError: if the buffer is too small, or holds the tokens of another policy
        """
        if self.history_length is not None and (self.history_length, self.reset_memory_on) != (
            history_length,
            reset_memory_on,
        ):
            raise ValueError(
                f"the replay buffer must hold memories of {history_length} tokens with reset_memory_on="
                f"{reset_memory_on!r}, got {self.history_length} and {self.reset_memory_on!r}"
            )
        self._check_size(history_length)
        self.history_length = history_length
        self.reset_memory_on = reset_memory_on

    def _check_size(self, history_length: int) -> None:
        """Require that the ring of an environment holds a memory and two tokens."""
        if self.buffer_size < history_length + 2:
            raise ValueError(
                f"`buffer_size` must be at least {(history_length + 2) * self.n_envs}, a memory of {history_length} "
                f"and two tokens for each of {self.n_envs} environments, got {self.buffer_size * self.n_envs}"
            )

    def _allocate(self) -> None:
        """Allocate empty rings."""
        rows = (self.n_envs, self.buffer_size)
        empty = zero_tokens(self.observation_space, 1)
        self.tokens = map_tokens(lambda token: self._zeros((*rows, *token.shape[1:]), token.dtype), empty)
        self.actions = self._zeros((*rows, self.action_dim), np.dtype(np.float32))
        for name, dtype in _ROW_ARRAYS.items():
            setattr(self, name, self._zeros(rows, np.dtype(dtype)))
        #: Number of the newest token of each environment, which no transition begins with yet, (E,)
        self.newest = np.zeros(self.n_envs, dtype=np.int64)
        self._begins = np.ones(self.n_envs, dtype=bool)  # whether the next transition begins an episode
        self._is_empty = True

    def _zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if self.folder is None:
            return np.zeros(shape, dtype)
        if self._files is None:
            try:
                self._files = tempfile.TemporaryDirectory(prefix="replay_buffer_", dir=self.folder)
            except OSError as error:
                raise ValueError(f"cannot write to `folder` {os.fspath(self.folder)!r}: {error}") from error
        self._n_files += 1
        path = Path(self._files.name, str(self._n_files))
        return np.memmap(path, dtype, "w+", shape=shape)

    def reset(self) -> None:
        before, self._files = self._files, None
        self._allocate()
        if before is not None:
            before.cleanup()

    def begin_episodes(self) -> None:
        """Let the next transitions begin episodes, because the environments have been reset."""
        self._begins = np.ones(self.n_envs, dtype=bool)

    def add(
        self,
        obs: Tokens,
        next_obs: Tokens,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Add a transition of each environment. Their observations follow those of the last call, except at the beginning
        of episodes.

        :param obs: Observations, (E, \\*observation), or a dictionary
        :param next_obs: Next observations of the same episode, also where it has ended
        :param action: Actions, scaled to [-1, 1]
        :param reward: Rewards, (E,)
        :param done: Whether the episode has ended, (E,)
        :param infos: Infos, which tell whether it was truncated
        """
        assert self.history_length is not None, "`bind` comes first"
        envs, done = np.arange(self.n_envs), np.array(done, dtype=bool)
        begins = self._begins.copy()
        if not self._is_empty:
            # The newest token stays where it is, as the last of its episode
            self.is_transition[envs[begins], self.newest[begins] % self.buffer_size] = False
            self.newest = self.newest + begins  # not in place: a state that has been taken keeps the array
        rows = self.newest % self.buffer_size
        self._write(envs, rows, obs)
        self.lengths[envs[begins], rows[begins]] = 1
        self.actions[envs, rows] = np.reshape(action, (self.n_envs, self.action_dim))
        self.rewards[envs, rows] = reward
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], dtype=bool)
        self.terminated[envs, rows] = done & ~truncated
        self.is_transition[envs, rows] = True

        self.newest = self.newest + 1
        next_rows = self.newest % self.buffer_size
        self._write(envs, next_rows, next_obs)
        next_lengths = self.lengths[envs, rows] + 1
        if not self.counts_beyond_history:
            next_lengths = np.minimum(next_lengths, self.history_length)
        if self.reset_memory_on == "episode" and (inner := inner_starts(next_obs, self.n_envs)) is not None:
            # Not at the end: the value of a truncated trial is that of going on
            next_lengths[inner & ~done] = 1
        self.lengths[envs, next_rows] = next_lengths
        self.is_transition[envs, next_rows] = False
        self._begins = done
        self._is_empty = False

    def _write(self, envs: np.ndarray, rows: np.ndarray, observations: Tokens) -> None:
        def write(stored: np.ndarray, new: np.ndarray) -> np.ndarray:
            wider = widened(stored[:0], np.asarray(new)).dtype
            if wider != stored.dtype:
                narrow, stored = stored, self._zeros(stored.shape, wider)
                stored[:] = narrow
            stored[envs, rows] = np.reshape(new, (self.n_envs, *stored.shape[2:]))
            return stored

        self.tokens = map_tokens(write, self.tokens, observations)

    def _oldest(self) -> np.ndarray:
        """Return the number of the oldest token of each environment that has not been overwritten, (E,)."""
        return np.maximum(self.newest + 1 - self.buffer_size, 0)

    def size(self) -> int:
        """
        :return: Number of transitions that can be drawn
        """
        return int(sum(len(self._valid(env, np.arange(*ends))) for env, ends in enumerate(self._ends())))

    def _ends(self) -> np.ndarray:
        return np.stack((self._oldest(), self.newest), axis=1)

    def _valid(self, envs: Any, numbers: np.ndarray) -> np.ndarray:
        """Return the indices of tokens that begin a transition and whose memory is stored."""
        assert self.history_length is not None
        rows = numbers % self.buffer_size
        n_tokens = np.minimum(self.lengths[envs, rows], self.history_length)
        is_complete = numbers - n_tokens + 1 >= self._oldest()[envs]
        return np.flatnonzero(self.is_transition[envs, rows] & is_complete)

    def _draw(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw transitions with replacement. Return their environments and the numbers of their tokens, (B,) each."""
        if self._is_empty:
            raise ValueError("the replay buffer is empty: no transition has been added")
        ends = self._ends()
        sizes = ends[:, 1] - ends[:, 0]
        last = np.cumsum(sizes)
        envs, numbers = np.zeros((2, batch_size), dtype=np.int64)
        missing = np.arange(batch_size)
        while len(missing):
            drawn = np.random.randint(last[-1], size=len(missing))
            envs[missing] = np.searchsorted(last, drawn, side="right")
            chosen = envs[missing]
            numbers[missing] = drawn - (last - sizes)[chosen] + ends[chosen, 0]
            missing = np.delete(missing, self._valid(chosen, numbers[missing]))
        return envs, numbers

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> MemoryReplaySamples:  # type: ignore[override]
        """
        Draw transitions with NumPy's global generator, as SB3's buffers do.

        :param batch_size: Number of transitions B
        :param env: VecNormalize, which standardises observations and rewards with its current statistics
        :return: Transitions, whose observations are memories
        :raises ValueError: if the buffer is empty
        """
        raise NotImplementedError

    def _samples(
        self,
        observations: Batch,
        next_observations: Batch,
        envs: np.ndarray,
        rows: np.ndarray,
        env: VecNormalize | None,
    ) -> MemoryReplaySamples:
        """Return the transitions that begin with the tokens in these rows, (B,), with their memories."""
        own = envs, rows
        reward = self._normalize_reward(self.rewards[own], env)
        columns = (self.actions[own], self.terminated[own][:, None], reward[:, None])
        actions, dones, rewards = (self.to_torch(column.astype(np.float32)) for column in columns)
        return MemoryReplaySamples(observations, actions, next_observations, dones, rewards)

    def _tokens(self, envs: np.ndarray, rows: np.ndarray, env: VecNormalize | None) -> Tokens:
        """Return the tokens in these rows, standardised by VecNormalize, as tensors (T, \\*observation)."""
        tokens = map_tokens(lambda stored: stored[envs, rows], self.tokens)
        return map_tokens(self.to_torch, self._normalize_obs(tokens, env))

    def refreshed(
        self, memory: Memory, transformers: Sequence[TransformerExtractor], env: VecNormalize | None = None
    ) -> Memory:
        """
        Recompute the keys and values of earlier tokens in the live memory with the current weights.

        :param memory: Memory of the training environments, to which the last ``next_obs`` of :meth:`add` have not been
            written yet
        :param transformers: The policy's transformers
        :param env: VecNormalize, which standardises observations with its current statistics
        :return: The same memory for the current weights; unchanged if the buffer does not have its tokens, because
            another buffer has been loaded
        """
        return memory  # a window stores raw tokens, which do not depend on the weights

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> MemoryReplaySamples:  # type: ignore[override]
        raise NotImplementedError("transitions are drawn by `sample`")

    def move_to(self, folder: str | os.PathLike[str] | None) -> None:
        """
        Move the buffer.

        :param folder: Folder for memory-mapped files, None for the main memory
        """
        if folder == self.folder:
            return
        self.folder = folder
        self._reallocate()

    def _reallocate(self) -> None:
        """Copy all arrays to the buffer's place, and remove the files of the old ones."""
        before, self._files = self._files, None
        self._copy_arrays()
        if before is not None:
            before.cleanup()

    def _copy_arrays(self) -> None:
        """Replace all arrays, which may have their first rows only, by copies of full size in the buffer's place."""

        def copied(array: np.ndarray) -> np.ndarray:
            copy = self._zeros((self.n_envs, self.buffer_size, *array.shape[2:]), array.dtype)
            copy[:, : array.shape[1]] = array
            return copy

        self.tokens = map_tokens(copied, self.tokens)
        for name in _STORED:
            setattr(self, name, copied(getattr(self, name)))

    def state_dict(self) -> dict[str, Any]:
        """
        :return: Everything in the buffer, copied to main memory, without the rows that have not been filled yet
        """
        n_rows = int(min(self.newest.max() + 1, self.buffer_size))
        state = {**vars(self), "folder": None, "_files": None}

        def filled(array: np.ndarray) -> np.ndarray:
            return np.array(array[:, :n_rows])

        state["tokens"] = map_tokens(filled, self.tokens)
        return state | {name: filled(getattr(self, name)) for name in _STORED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Replace everything in the buffer, which stays on its device and in its folder.

        :param state: What :meth:`state_dict` returned, of a buffer of the same size
        """
        vars(self).update(state, folder=self.folder, _files=self._files, device=self.device)
        self._reallocate()

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "context_length" in state:  # its name before there were other memories than windows
            state = {"history_length": state["context_length"], **state}
        vars(self).update(state)
        self._copy_arrays()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> type[MemoryReplayBuffer]:
        """Return a class that was in this module when older zips and replay buffers were written."""
        if name != "WindowReplayBuffer":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from sb3_trmrl.memory.window_replay_buffer import WindowReplayBuffer

        return WindowReplayBuffer
