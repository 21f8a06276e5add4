"""Rollout buffer of a policy with working memory."""

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.memory.sequences import Sequences
from sb3_trmrl.memory.windows import Windows, filled_slots
from sb3_trmrl.memory.working_memory import Tokens, WorkingMemory, first_array, map_spaces, map_tokens, token_dtype


class MemoryRolloutBufferSamples(NamedTuple):
    """SB3's ``RolloutBufferSamples`` with windows or sequences of tokens in place of observations."""

    observations: Windows | Sequences
    actions: th.Tensor
    old_values: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor


class MemoryRolloutBuffer(RolloutBuffer):
    """
    Rollout buffer that keeps each token once: those of the rollout and, before them, those of earlier rollouts that its
    first memories reach back to.

    Parameters are those of ``RolloutBuffer``; array, image and Dict observations are all kept here.
    """

    tokens: Tokens  # (n_carried + n_steps, n_envs, *observation)
    lengths: np.ndarray  # (n_steps, n_envs), tokens in the memory at each step
    n_carried: int = 0

    def reset(self) -> None:
        self.pos = 0
        self.full = False
        self.generator_ready = False
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros((*shape, self.action_dim), dtype=self.action_space.dtype)
        self.lengths = np.zeros(shape, dtype=np.int64)
        for name in ("rewards", "returns", "episode_starts", "values", "log_probs", "advantages"):
            setattr(self, name, np.zeros(shape, dtype=np.float32))

    def carry_over(self, memory: Any) -> None:
        """
        Begin a rollout with the memory that its first observations will be written to.

        :param memory: Memory of the ``n_envs`` environments before the first step of the rollout
        """
        raise NotImplementedError

    def _begin(self, n_carried: int) -> None:
        """
        :param n_carried: Number of tokens to keep from earlier rollouts
        """
        self.n_carried = n_carried

        def begin(space: spaces.Space[Any]) -> np.ndarray:
            shape = (n_carried + self.buffer_size, self.n_envs, *(space.shape or ()))
            return np.zeros(shape, dtype=token_dtype(space))

        self.tokens = map_spaces(begin, self.observation_space)

    def add(  # type: ignore[override]
        self,
        obs: Tokens,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: th.Tensor,
        log_prob: th.Tensor,
        lengths: th.Tensor,
    ) -> None:
        """
        :param obs: Newest observation of each environment, (n_envs, \\*observation), or a dictionary
        :param action: Action
        :param reward:
        :param episode_start: Start of episode signal.
        :param value: Estimated value of the newest memory
        :param log_prob: Log probability of the action
        :param lengths: Tokens in the memory that ends with ``obs``, (n_envs,)
        """
        step = self.pos

        def store(tokens: np.ndarray, observation: np.ndarray) -> None:
            tokens[self.n_carried + step] = observation.reshape(tokens.shape[1:])

        map_tokens(store, self.tokens, obs)
        self.lengths[step] = lengths.cpu().numpy()
        self.actions[step] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[step] = reward
        self.episode_starts[step] = episode_start
        self.values[step] = value.cpu().numpy().flatten()
        self.log_probs[step] = log_prob.cpu().numpy().reshape(self.n_envs)
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def get(self, batch_size: int | None = None) -> Generator[MemoryRolloutBufferSamples, None, None]:  # type: ignore[override]
        assert self.full, "the rollout buffer must be full before minibatches are drawn"
        if not self.generator_ready:
            for name in ("actions", "lengths", "values", "log_probs", "advantages", "returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        for batch_inds in self._draw(batch_size or self.buffer_size * self.n_envs):
            yield self._get_samples(batch_inds)

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        """
        :param batch_size: Transitions in a minibatch
        :return: Their indices in the flattened order (environment, step), for each minibatch of an epoch
        """
        raise NotImplementedError

    def _observations(self, batch_inds: np.ndarray) -> Windows | Sequences:
        """
        :param batch_inds: Indices of transitions
        :return: The memories that end with them, in that order
        """
        raise NotImplementedError

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> MemoryRolloutBufferSamples:  # type: ignore[override]
        return MemoryRolloutBufferSamples(
            self._observations(batch_inds),
            # float32 as in SB3: MultiBinary actions are of an integer type the distributions do not take
            self.to_torch(self.actions[batch_inds].astype(np.float32, copy=False)),
            *(
                self.to_torch(values[batch_inds].flatten())
                for values in (self.values, self.log_probs, self.advantages, self.returns)
            ),
        )

    def _gather(self, rows: np.ndarray, envs: np.ndarray) -> Tokens:
        return map_tokens(lambda tokens: self.to_torch(tokens[rows, envs], copy=False), self.tokens)


class WindowRolloutBuffer(MemoryRolloutBuffer):
    """
    Rollout buffer of the window memory: windows are gathered by index when a minibatch is drawn. The N - 1 tokens
    before the rollout are carried over, so that its first windows reach back as they did while acting.
    """

    context_length: int
    # Whether a minibatch holds a token once however many of its windows do: pays where features of tokens are costly
    distinct_tokens: bool = False

    def carry_over(self, memory: WorkingMemory) -> None:
        self.context_length = memory.context_length
        self._begin(self.context_length - 1)
        lengths = memory.lengths.cpu().numpy()
        # Newest tokens at the end of the prefix: slot of prefix row r, or 0 where the memory is not that long
        slots = np.arange(-self.n_carried, 0)[:, None] + lengths  # (N - 1, E)
        envs = np.arange(self.n_envs)

        def fill(tokens: np.ndarray, carried: np.ndarray) -> None:
            tokens[: self.n_carried] = carried[envs, slots.clip(min=0)]

        map_tokens(fill, self.tokens, memory.numpy().tokens)

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        indices = np.random.permutation(self.buffer_size * self.n_envs)
        for start in range(0, len(indices), batch_size):
            batch_inds = indices[start : start + batch_size]
            # The order within a minibatch is free: longer windows first, as `Windows` has them
            yield batch_inds[np.argsort(-self.lengths[batch_inds, 0], kind="stable")]

    def _observations(self, batch_inds: np.ndarray) -> Windows:
        envs, steps = np.divmod(batch_inds, self.buffer_size)
        lengths = self.lengths[batch_inds, 0]
        filled, counts = filled_slots(lengths)
        oldest = steps + self.context_length - lengths  # row of the oldest token in `tokens`
        slots, places = np.nonzero(filled)
        rows, envs = oldest[places] + slots, envs[places]
        columns = None
        if self.distinct_tokens:
            distinct, inverse = np.unique(rows * self.n_envs + envs, return_inverse=True)
            rows, envs = np.divmod(distinct, self.n_envs)
            columns = self.to_torch(inverse, copy=False)
        return Windows(self._gather(rows, envs), counts, columns)


class SequenceRolloutBuffer(MemoryRolloutBuffer):
    """
    Rollout buffer of the full-context memory: minibatches are made of whole sequences, from where the memory was
    emptied, or the rollout began, to where it is emptied next, or the rollout ends. Of a sequence that began in an
    earlier rollout all tokens that still matter are kept, and stand before it as context.
    """

    #: How far back a token's memory reaches, in all layers together
    reach: int = 0

    def carry_over(self, memory: FullMemory) -> None:
        # Its tokens are the newest that were added here
        lengths = np.minimum(memory.steps.cpu().numpy(), self.reach)
        newest, older = self._n_filled, getattr(self, "tokens", None)
        self._begin(int(min(lengths.max(), newest)))
        self._carried_lengths = lengths
        self._steps_before = memory.steps.cpu().numpy()
        if self.n_carried:

            def fill(tokens: np.ndarray, old: np.ndarray) -> None:
                tokens[: self.n_carried] = old[newest - self.n_carried : newest]

            map_tokens(fill, self.tokens, older)

    def newest_tokens(self) -> Tokens:
        """
        :return: The tokens so far, of which later rollouts need the newest, (T, n_envs, \\*observation)
        """
        return map_tokens(lambda tokens: tokens[: self.n_carried + self.pos].copy(), self.tokens)

    def set_newest_tokens(self, tokens: Tokens) -> None:
        """
        :param tokens: What :meth:`newest_tokens` returned, for the rollout that begins next
        """
        self.tokens, self.n_carried, self.pos = tokens, len(first_array(tokens)), 0

    def reset(self) -> None:
        self._n_filled = self.n_carried + getattr(self, "pos", 0)
        super().reset()

    def carried(self) -> tuple[Sequences, np.ndarray]:
        """
        :return: Of environments with tokens from earlier rollouts, those that still matter, and the environment of each
            token, (T,)
        """
        envs = np.flatnonzero(self._carried_lengths)
        lengths = self._carried_lengths[envs]
        rows = _ranges(np.full(len(lengths), self.n_carried), lengths)
        positions = _ranges(self._steps_before[envs], lengths)
        of_token = np.repeat(envs, lengths)
        tokens = self._gather(rows, of_token)
        return Sequences(tokens, tuple(lengths.tolist()), self.to_torch(positions), self.to_torch(rows[:0])), of_token

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        # A sequence begins where the memory holds one token, and where the rollout begins
        begins = self.lengths[:, 0] == 1
        begins[:: self.buffer_size] = True
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(begins))
        order = np.random.permutation(len(starts))
        # As many minibatches as the transitions make, cut between sequences where they come nearest to equal sizes
        n_batches = max(1, round(len(begins) / batch_size))
        sizes = (ends - starts)[order]
        batches = ((np.cumsum(sizes) - sizes / 2) * n_batches / len(begins)).astype(int)
        for batch in np.unique(batches):
            drawn = batches == batch
            yield _ranges(ends[order][drawn], sizes[drawn])

    def _observations(self, batch_inds: np.ndarray) -> Sequences:
        envs, steps = np.divmod(batch_inds, self.buffer_size)
        lengths = self.lengths[batch_inds, 0]
        # Where the next transition does not follow the last one in the same memory
        begins = np.ones(len(batch_inds), dtype=bool)
        begins[1:] = (np.diff(batch_inds) != 1) | (np.diff(lengths) != 1) | (np.diff(envs) != 0)
        firsts = np.flatnonzero(begins)
        sizes = np.diff(np.append(firsts, len(batch_inds)))
        contexts = np.minimum(lengths[firsts] - 1, self.reach)
        sequences = contexts + sizes
        rows = _ranges(self.n_carried + steps[firsts] + sizes, sequences)
        positions = _ranges(lengths[firsts] - 1 + sizes, sequences)
        outputs = _ranges(np.cumsum(sequences), sizes)
        tokens = self._gather(rows, np.repeat(envs[firsts], sequences))
        return Sequences(tokens, tuple(sequences.tolist()), self.to_torch(positions), self.to_torch(outputs))


def _ranges(ends: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """
    :param ends: Ends of ranges, not part of them
    :param sizes: Their sizes
    :return: The integers of all ranges, one range after the other
    """
    before = np.cumsum(sizes) - sizes
    integers: np.ndarray = np.arange(sizes.sum()) + np.repeat(ends - sizes - before, sizes)
    return integers
