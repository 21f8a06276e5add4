"""Rollout buffers against lists: windows, sequences and every number of a transition, in rollouts on end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import unpack
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


@dataclass
class Case:
    """What a buffer is made and filled with"""

    n_envs: int
    n_steps: int
    batch_size: int | None
    gamma: float
    gae_lambda: float
    emptied: float
    observation: str
    action: str
    seed: int

    def make(self, buffer_class: type[MemoryRolloutBuffer]) -> Any:
        return buffer_class(
            self.n_steps,
            OBSERVATION_SPACES[self.observation],
            ACTION_SPACES[self.action],
            device="cpu",
            n_envs=self.n_envs,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )


CASES = st.builds(
    Case,
    n_envs=st.integers(1, 4),
    n_steps=st.integers(1, 12),
    batch_size=st.one_of(st.none(), st.integers(1, 60)),
    gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    gae_lambda=st.sampled_from([0.0, 0.8, 1.0]),
    emptied=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    observation=st.sampled_from(sorted(OBSERVATION_SPACES)),
    action=st.sampled_from(sorted(ACTION_SPACES)),
    seed=st.integers(0, 2**16),
)


def rollouts(case: Case, buffer: Any, live_memory: Any) -> Iterator[tuple[list[list[Transition]], NaiveRollouts]]:
    """
    Fill the buffer several times. Some rollouts are broken off, and some begin with empty memories.

    :param live_memory: Makes the memory that a rollout begins with from what the lists hold
    :return: The steps of each rollout that was completed
    """
    rng = np.random.default_rng(case.seed)
    naive = NaiveRollouts(case.n_envs, rng, case.emptied)
    for _ in range(N_ROLLOUTS):
        if rng.random() < 0.2:
            naive.forget()
        buffer.reset()
        buffer.begin_rollout(live_memory(naive))
        is_broken_off = rng.random() < 0.2
        n_steps = int(rng.integers(case.n_steps)) if is_broken_off else case.n_steps
        steps = []
        for _ in range(n_steps):
            steps.append(naive.step())
            add(case, buffer, steps[-1])
        if is_broken_off:
            continue
        values, dones = naive.last()
        buffer.compute_returns_and_advantage(th.as_tensor(values, dtype=th.float32), dones)
        fill_advantages(steps, values, dones, case.gamma, case.gae_lambda)
        yield steps, naive


def add(case: Case, buffer: Any, step: list[Transition]) -> None:
    """The number of a token stands in for its log-probability, by which its transition is found again."""
    buffer.add(
        stack([observe(case.observation, each.number) for each in step]),
        np.stack([act(case.action, each.number) for each in step]),
        np.array([each.reward for each in step]),
        np.array([each.episode_start for each in step]),
        th.tensor([[each.value] for each in step]),
        th.tensor([float(each.number) for each in step]),
        th.tensor([lengths_seen(buffer, each) for each in step]),
    )


def lengths_seen(buffer: Any, transition: Transition) -> int:
    """:return: Length of the memory as the live memory has it: a window is full at some length"""
    length = len(transition.memory)
    return min(length, buffer.context_length) if isinstance(buffer, WindowRolloutBuffer) else length


def assert_tokens(tokens: Any, case: Case, numbers: list[int]) -> None:
    """These are the observations of the tokens with these numbers, in this order."""
    expected = stack([observe(case.observation, number) for number in numbers])
    for key, array in expected.items() if isinstance(expected, dict) else [(None, expected)]:
        np.testing.assert_array_equal(np.asarray(tokens if key is None else tokens[key]), array)


def assert_numbers(batch: Any, case: Case, transitions: list[Transition]) -> None:
    """Actions, values, log-probabilities, advantages and returns are those of these transitions, in this order."""
    actions = np.stack([act(case.action, each.number) for each in transitions])
    np.testing.assert_array_equal(batch.actions, actions)
    assert batch.actions.dtype == th.float32
    values, advantages = (np.array([getattr(t, name) for t in transitions]) for name in ("value", "advantage"))
    np.testing.assert_allclose(batch.old_values, values, rtol=1e-6)
    np.testing.assert_allclose(batch.advantages, advantages, atol=1e-4)
    np.testing.assert_allclose(batch.returns, advantages + values, atol=1e-4)


def by_number(steps: list[list[Transition]]) -> dict[int, Transition]:
    return {transition.number: transition for step in steps for transition in step}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(case=CASES, context_length=st.integers(1, 15))
def test_windows(case: Case, context_length: int) -> None:
    """A window is the newest N tokens since the memory was emptied, whatever lies in its slots that are not filled."""

    def live_memory(naive: NaiveRollouts) -> WorkingMemory:
        windows = [memory[-context_length:] for memory in naive.memories]
        padded = [window + [9_999] * (context_length - len(window)) for window in windows]
        tokens = stack([stack([observe(case.observation, number) for number in slots]) for slots in padded])
        as_dict = tokens if isinstance(tokens, dict) else {None: tokens}
        tensors = {key: th.as_tensor(array) for key, array in as_dict.items()}
        return WorkingMemory(tensors.get(None, tensors), th.tensor([len(window) for window in windows]))

    buffer = case.make(WindowRolloutBuffer)
    n_transitions = case.n_envs * case.n_steps
    for steps, _ in rollouts(case, buffer, live_memory):
        expected = by_number(steps)
        for _ in range(2):  # epochs
            seen: list[int] = []
            sizes = []
            for batch in buffer.get(case.batch_size):
                numbers = batch.old_log_prob.long().tolist()
                transitions = [expected[number] for number in numbers]
                assert_numbers(batch, case, transitions)
                windows = [transition.memory[-context_length:] for transition in transitions]
                packed = unpack(batch.observations)
                assert packed.lengths.tolist() == [len(window) for window in windows]
                for index, window in enumerate(windows):
                    assert_tokens(filled(packed.tokens, index, len(window)), case, window)
                assert_tokens(batch.observations.newest(), case, numbers)
                seen += numbers
                sizes.append(len(numbers))
            assert sorted(seen) == sorted(expected)
            assert set(sizes[:-1]) <= {case.batch_size} and sizes[-1] <= (case.batch_size or n_transitions)


def filled(tokens: Any, index: int, length: int) -> Any:
    """:return: The filled slots of one window"""
    if isinstance(tokens, dict):
        return {key: array[index, :length] for key, array in tokens.items()}
    return tokens[index, :length]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(case=CASES, receptive_field=st.integers(0, 15))
def test_sequences(case: Case, receptive_field: int) -> None:
    """
    A minibatch is made of whole sequences; before one that began in an earlier rollout stand as many of its tokens as
    reach into it, and no more.
    """

    def live_memory(naive: NaiveRollouts) -> FullMemory:
        return FullMemory(th.tensor([len(memory) for memory in naive.memories]), None, (), ())

    buffer = case.make(SequenceRolloutBuffer)
    buffer.receptive_field = receptive_field
    n_transitions = case.n_envs * case.n_steps
    for steps, _ in rollouts(case, buffer, live_memory):
        expected = by_number(steps)
        sequences = {sequence[0].number: sequence for sequence in whole_sequences(steps)}
        n_batches = max(1, round(n_transitions / (case.batch_size or n_transitions)))
        longest = max(map(len, sequences.values()))
        for _ in range(2):  # epochs
            seen: list[int] = []
            sizes = []
            for batch in buffer.get(case.batch_size):
                numbers = batch.old_log_prob.long().tolist()
                assert_numbers(batch, case, [expected[number] for number in numbers])
                check_packed(batch.observations, numbers, sequences, receptive_field, case)
                assert_tokens(batch.observations.newest(), case, numbers)
                seen += numbers
                sizes.append(len(numbers))
            assert sorted(seen) == sorted(expected)
            assert len(sizes) <= n_batches
            assert max(sizes) <= n_transitions / n_batches + longest


def check_packed(
    packed: Any, numbers: list[int], sequences: dict[int, list[Transition]], receptive_field: int, case: Case
) -> None:
    """Sequence after sequence: its tokens, their positions, and which of them are read"""
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
    """What a cache is filled with again: of each memory that is not empty the newest tokens, as far as they reach"""
    expected: list[list[int]] = []
    positions: list[int] = []

    def live_memory(naive: NaiveRollouts) -> FullMemory:
        expected[:] = [memory[-receptive_field:] for memory in naive.memories]
        positions[:] = [place for memory in naive.memories for place in list(range(len(memory)))[-receptive_field:]]
        return FullMemory(th.tensor([len(memory) for memory in naive.memories]), None, (), ())

    buffer = case.make(SequenceRolloutBuffer)
    buffer.receptive_field = receptive_field
    for _ in rollouts(case, buffer, live_memory):
        carried, envs = buffer.carried()
        assert list(carried.lengths) == [len(tokens) for tokens in expected if tokens]
        assert envs.tolist() == [env for env, tokens in enumerate(expected) for _ in tokens]
        assert carried.positions.tolist() == positions
        if any(expected):
            assert_tokens(carried.tokens, case, [number for tokens in expected for number in tokens])
