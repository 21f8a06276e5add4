"""Rollout buffers against lists: windows, sequences and every number of a transition, in several rollouts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import VECTOR, unpack
from tests.helpers.naive_rollouts import (
    ACTION_SPACES,
    OBSERVATION_SPACES,
    NaiveRollouts,
    Transition,
    act,
    fill_advantages,
    observe,
    stack,
    whole_sequences,
)

N_ROLLOUTS = 4
N_EPOCHS = 2


@dataclass
class Case:
    """The arguments and the contents of a buffer."""

    n_steps: int
    batch_size: int | None
    arguments: dict[str, Any]
    emptied: float
    observation: str
    action: str
    seed: int

    def make(self, buffer_class: type[MemoryRolloutBuffer]) -> Any:
        spaces_ = OBSERVATION_SPACES[self.observation], ACTION_SPACES[self.action]
        return buffer_class(self.n_steps, *spaces_, device="cpu", **self.arguments)

    def observations(self, numbers: list[int]) -> Any:
        return stack([observe(self.observation, number) for number in numbers])

    def actions(self, transitions: list[Transition]) -> np.ndarray:
        return np.stack([act(self.action, each.number) for each in transitions])


CASES = st.builds(
    Case,
    n_steps=st.integers(1, 12),
    batch_size=st.one_of(st.none(), st.integers(1, 60)),
    arguments=st.fixed_dictionaries(
        dict(
            n_envs=st.integers(1, 4),
            gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
            gae_lambda=st.sampled_from([0.0, 0.8, 1.0]),
        )
    ),
    emptied=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    observation=st.sampled_from(sorted(OBSERVATION_SPACES)),
    action=st.sampled_from(sorted(ACTION_SPACES)),
    seed=st.integers(0, 2**16),
)


def rollouts(case: Case, buffer: Any, live_memory: Callable[[NaiveRollouts], Any]) -> Iterator[list[list[Transition]]]:
    """Fill the buffer several times and yield complete rollouts. Some are interrupted, some begin with no memory."""
    rng = np.random.default_rng(case.seed)
    naive = NaiveRollouts(buffer.n_envs, rng, case.emptied)
    for _ in range(N_ROLLOUTS):
        if rng.random() < 0.2:
            naive.forget()
        buffer.reset()
        buffer.begin_rollout(live_memory(naive))
        is_interrupted = rng.random() < 0.2
        n_steps = int(rng.integers(case.n_steps)) if is_interrupted else case.n_steps
        steps = []
        for _ in range(n_steps):
            steps.append(naive.step())
            add(case, buffer, steps[-1])
        if is_interrupted:
            continue
        values, dones = naive.last()
        buffer.compute_returns_and_advantage(th.as_tensor(values, dtype=th.float32), dones)
        fill_advantages(steps, values, dones, buffer.gamma, buffer.gae_lambda)
        yield steps


def add(case: Case, buffer: Any, step: list[Transition]) -> None:
    """Add a step. The number of a token serves as log-probability, by which its transition is identified later."""
    longest = getattr(buffer, "context_length", N_ROLLOUTS * case.n_steps)  # windows are full at some length
    buffer.add(
        case.observations([each.number for each in step]),
        case.actions(step),
        np.array([each.reward for each in step]),
        np.array([each.episode_start for each in step]),
        th.tensor([[each.value] for each in step]),
        th.tensor([float(each.number) for each in step]),
        th.tensor([min(len(each.memory), longest) for each in step]),
    )


def assert_tokens(tokens: Any, case: Case, numbers: list[int]) -> None:
    """Check that these are the observations with these numbers, in this order."""
    map_tokens(np.testing.assert_array_equal, tokens, case.observations(numbers))


def epochs(case: Case, buffer: Any, steps: list[list[Transition]]) -> Iterator[list[tuple[Any, list[Transition]]]]:
    """Yield the minibatches of each epoch. Each transition is drawn once, with its own numbers and newest token."""
    expected = {transition.number: transition for step in steps for transition in step}
    for _ in range(N_EPOCHS):
        drawn = []
        for batch in buffer.get(case.batch_size):
            transitions = [expected[number] for number in batch.old_log_prob.long().tolist()]
            np.testing.assert_array_equal(batch.actions, case.actions(transitions))
            assert batch.actions.dtype == th.float32
            values, advantages = (np.array([getattr(t, name) for t in transitions]) for name in ("value", "advantage"))
            np.testing.assert_allclose(batch.old_values, values, rtol=1e-6)
            np.testing.assert_allclose(batch.advantages, advantages, atol=1e-4)
            np.testing.assert_allclose(batch.returns, advantages + values, atol=1e-4)
            assert_tokens(batch.observations.newest(), case, [each.number for each in transitions])
            drawn.append((batch.observations, transitions))
        assert sorted(each.number for _, transitions in drawn for each in transitions) == sorted(expected)
        yield drawn


@settings(max_examples=80, deadline=None, derandomize=True)
@given(case=CASES, context_length=st.integers(1, 15))
def test_windows(case: Case, context_length: int) -> None:
    """A window holds the newest N tokens since the memory was emptied, whatever is in its unfilled slots."""

    def live_memory(naive: NaiveRollouts) -> WorkingMemory:
        windows = [memory[-context_length:] for memory in naive.memories]
        padded = [window + [9_999] * (context_length - len(window)) for window in windows]
        tokens = map_tokens(th.as_tensor, stack([case.observations(slots) for slots in padded]))
        return WorkingMemory(tokens, th.tensor([len(window) for window in windows]))

    buffer = case.make(WindowRolloutBuffer)
    batch_size = case.batch_size or buffer.n_envs * case.n_steps
    for steps in rollouts(case, buffer, live_memory):
        for batches in epochs(case, buffer, steps):
            sizes = [len(transitions) for _, transitions in batches]
            assert set(sizes[:-1]) <= {batch_size} and sizes[-1] <= batch_size
            for batch, transitions in batches:
                windows = [transition.memory[-context_length:] for transition in transitions]
                packed = unpack(batch)
                assert packed.lengths.tolist() == [len(window) for window in windows]
                for index, window in enumerate(windows):
                    filled = (index, slice(len(window)))
                    assert_tokens(map_tokens(lambda tokens, filled=filled: tokens[filled], packed.tokens), case, window)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(case=CASES, receptive_field=st.integers(0, 15))
def test_sequences(case: Case, receptive_field: int) -> None:
    """
    A minibatch consists of whole sequences. A sequence that began in an earlier rollout is preceded by its earlier
    tokens within the receptive field, and no others.
    """
    buffer = case.make(SequenceRolloutBuffer)
    buffer.receptive_field = receptive_field
    n_transitions = buffer.n_envs * case.n_steps
    n_batches = max(1, round(n_transitions / (case.batch_size or n_transitions)))
    for steps in rollouts(case, buffer, full_memory):
        sequences = {sequence[0].number: sequence for sequence in whole_sequences(steps)}
        longest = max(map(len, sequences.values()))
        for batches in epochs(case, buffer, steps):
            assert len(batches) <= n_batches
            assert max(len(transitions) for _, transitions in batches) <= n_transitions / n_batches + longest
            for batch, transitions in batches:
                check_packed(batch, [each.number for each in transitions], sequences, receptive_field, case)


def full_memory(naive: NaiveRollouts) -> FullMemory:
    return FullMemory(th.tensor([len(memory) for memory in naive.memories]), None, (), ())


def check_packed(
    packed: Any, numbers: list[int], sequences: dict[int, list[Transition]], receptive_field: int, case: Case
) -> None:
    """Check the tokens of each sequence, their positions, and which of them are read."""
    tokens: list[int] = []
    positions: list[int] = []
    outputs: list[int] = []
    lengths: list[int] = []
    place = 0
    while place < len(numbers):
        sequence = sequences[numbers[place]]
        assert numbers[place : place + len(sequence)] == [transition.number for transition in sequence]
        memory = sequence[-1].memory
        n_before = min(len(sequence[0].memory) - 1, receptive_field)
        lengths.append(n_before + len(sequence))
        outputs += range(len(tokens) + n_before, len(tokens) + lengths[-1])
        tokens += memory[-lengths[-1] :]
        positions += range(len(memory) - lengths[-1], len(memory))
        place += len(sequence)
    assert list(packed.lengths) == lengths
    assert packed.positions.tolist() == positions
    assert packed.outputs.tolist() == outputs
    assert_tokens(packed.tokens, case, tokens)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=CASES, receptive_field=st.integers(1, 15))
def test_tokens_of_earlier_rollouts(case: Case, receptive_field: int) -> None:
    """Caches are filled again from the newest tokens of each memory, as far back as the receptive field."""
    expected: list[list[int]] = []
    positions: list[int] = []

    def live_memory(naive: NaiveRollouts) -> FullMemory:
        expected[:] = [memory[-receptive_field:] for memory in naive.memories]
        positions[:] = [place for memory in naive.memories for place in list(range(len(memory)))[-receptive_field:]]
        return full_memory(naive)

    buffer = case.make(SequenceRolloutBuffer)
    buffer.receptive_field = receptive_field
    for _ in rollouts(case, buffer, live_memory):
        carried, envs = buffer.carried()
        assert list(carried.lengths) == [len(tokens) for tokens in expected if tokens]
        assert envs.tolist() == [env for env, tokens in enumerate(expected) for _ in tokens]
        assert carried.positions.tolist() == positions
        if any(expected):
            assert_tokens(carried.tokens, case, [number for tokens in expected for number in tokens])


def test_sequence_minibatches_have_about_the_requested_size() -> None:
    """20 environments with two sequences of 50 steps each give 20 minibatches of two sequences."""
    buffer = SequenceRolloutBuffer(100, VECTOR, spaces.Discrete(2), device="cpu", n_envs=20)
    buffer.begin_rollout(FullMemory(th.zeros(20, dtype=th.long), None, (), ()))
    zeros = np.zeros((20, 1))
    for step in range(100):
        lengths = th.full((20,), step % 50 + 1)
        buffer.add(np.zeros((20, 3)), zeros, zeros[:, 0], zeros[:, 0], th.zeros(20), th.zeros(20), lengths)
    assert [len(batch.old_values) for batch in buffer.get(100)] == [100] * 20
    assert [len(batch.old_values) for batch in buffer.get()] == [2_000]


def test_window_buffer_stores_each_token_once() -> None:
    """It stores n_steps + N - 1 tokens for each environment, whatever the number of windows."""
    buffer = WindowRolloutBuffer(100, VECTOR, spaces.Discrete(2), device="cpu", n_envs=4)
    buffer.begin_rollout(WorkingMemory(th.zeros(4, 32, 3), th.zeros(4, dtype=th.long)))
    assert buffer.tokens.shape == (100 + 31, 4, 3)
