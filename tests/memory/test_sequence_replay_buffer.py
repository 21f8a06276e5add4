"""The replay buffer of the full memory, against lists of all tokens since the memory was emptied."""

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trmrl.memory.replay_buffer import MemoryReplaySamples
from sb3_trmrl.memory.sequence_replay_buffer import SequenceReplayBuffer
from tests.helpers.agents import BOX_ACTION, OBSERVATION_SPACES, SampledEnv
from tests.helpers.replay import played
from tests.helpers.wrong_use import refused

Transition = tuple[list[int], list[int], float, bool]


def memories(batch: Any) -> tuple[list[list[int]], list[int]]:
    """Return the tokens of each memory, and the position of its first one."""
    numbers = batch.tokens["number"][:, 0].int().tolist()
    begins = np.repeat(np.cumsum((0, *batch.lengths[:-1])), batch.lengths)
    rows = batch.outputs.tolist()
    assert (batch.newest()["number"][:, 0] == batch.tokens["number"][batch.outputs, 0]).all()
    for row, begin in enumerate(begins):  # positions count on within a sequence
        assert batch.positions[row] == batch.positions[begin] + row - begin
    return [numbers[begins[row] : row + 1] for row in rows], [int(batch.positions[begins[row]]) for row in rows]


def as_lists(samples: MemoryReplaySamples) -> list[tuple[Transition, tuple[int, int]]]:
    """Return the transitions, and the positions of the first tokens of their memories."""
    (now, first), (after, after_first) = memories(samples.observations), memories(samples.next_observations)
    assert (samples.rewards == samples.actions[:, :1]).all()
    ends = (samples.dones[:, 0] > 0).tolist()
    transitions = list(zip(now, after, samples.rewards[:, 0].tolist(), ends, strict=True))
    return list(zip(transitions, zip(first, after_first, strict=True), strict=True))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_memories_have_all_tokens_since_they_were_emptied(data: st.DataObject) -> None:
    """
    Also where episodes end early, at the seam of the ring, when environments are reset in between, and as far as tokens
    are in the buffer or ``burn_in`` allows.
    """
    capacity, sequence_length = data.draw(st.integers(4, 30)), data.draw(st.integers(1, 6))
    burn_in = data.draw(st.none() | st.integers(0, capacity - 3))
    settings = dict(sequence_length=sequence_length, burn_in=burn_in)
    buffer, envs = played(data, SequenceReplayBuffer, None, capacity, **settings)
    needed = capacity - 2 if burn_in is None else burn_in + 1
    expected = {each[2]: each for env in envs for each in env.within(capacity, needed)}
    assert buffer.size() == len(expected)
    np.random.seed(0)
    drawn = as_lists(buffer.sample(80 * len(expected)))
    assert len(drawn) == 80 * len(expected) and {number for (_, _, number, _), _ in drawn} == set(expected)
    for (now, after, number, end), (first, after_first) in drawn:
        whole_now, whole_after, _, whole_end = expected[number]
        assert end == whole_end and first == len(whole_now) - len(now) and after_first == len(whole_after) - len(after)
        assert whole_now[first:] == now and whole_after[after_first:] == after
        assert min(len(whole_now), needed) <= len(now) < needed + sequence_length
    if burn_in is None and max(len(each[0]) for each in expected.values()) <= needed:
        assert {first for _, first in drawn} == {(0, 0)}


def filled(n_steps: int = 60, **kwargs: Any) -> SequenceReplayBuffer:
    """Return a buffer with episodes of 5 to 9 steps of two environments."""
    env = DummyVecEnv([lambda: SampledEnv(OBSERVATION_SPACES["box"], BOX_ACTION)] * 2)
    env.seed(0)
    buffer = SequenceReplayBuffer(200, env.observation_space, BOX_ACTION, "cpu", 2, **kwargs)
    buffer.bind(50, "episode")
    obs = env.reset()
    for _ in range(n_steps):
        actions = np.random.default_rng(0).uniform(-1, 1, (2, 2)).astype(np.float32)
        new_obs, rewards, dones, infos = env.step(actions)
        buffer.add(obs, new_obs, actions, rewards, dones, infos)
        obs = new_obs
    return buffer


@pytest.mark.parametrize("sequence_length", [1, 3, 20])
@pytest.mark.parametrize("batch_size", [1, 8, 200])
def test_all_steps_of_an_episode_are_drawn_alike(sequence_length: int, batch_size: int) -> None:
    np.random.seed(0)
    buffer = filled(sequence_length=sequence_length)
    counts = np.zeros(5)
    for _ in range(20_000 // batch_size if batch_size > 1 else 5_000):
        batch: Any = buffer.sample(batch_size).observations
        counts += np.bincount(batch.positions[batch.outputs], minlength=5)[:5]  # all episodes have five steps
    assert counts.min() > 0.8 * counts.max()


@pytest.mark.parametrize("lengths", [(3, 60), (1, 10, 200)])
@pytest.mark.parametrize("sequence_length", [1, 8, 32])
def test_steps_of_short_and_long_episodes_are_drawn_alike(lengths: tuple[int, ...], sequence_length: int) -> None:
    np.random.seed(0)
    buffer = SequenceReplayBuffer(900, OBSERVATION_SPACES["box"], BOX_ACTION, "cpu", sequence_length=sequence_length)
    buffer.bind(250, "trial")
    zeros = np.zeros((1, 3), np.float32)
    stored: Counter[int] = Counter()  # transitions by the length of their episode, which is their reward
    for length in (*lengths, *lengths, *lengths, lengths[0]):
        for step in range(1, length + 1):
            buffer.add(zeros, zeros, zeros[:, :2], np.array([length]), np.array([step == length]), [{}])
        stored[length] += length
    drawn: Counter[int] = Counter()
    for _ in range(400):
        drawn.update(buffer.sample(512).rewards[:, 0].int().tolist())
    shares = [drawn[length] / stored[length] for length in lengths]
    assert max(shares) < 1.15 * min(shares), shares


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_minibatch_has_the_given_size(batch_size: int) -> None:
    samples = filled(sequence_length=4).sample(batch_size)
    assert len(samples.rewards) == len(samples.actions) == batch_size
    assert len(samples.observations.newest()) == batch_size  # type: ignore[arg-type]


def test_a_pickled_buffer_draws_the_same() -> None:
    buffer = filled(sequence_length=4, burn_in=3)
    drawn = []
    for each in (buffer, pickle.loads(pickle.dumps(buffer))):
        np.random.seed(0)
        drawn.append(each.sample(30))
    assert th.equal(drawn[0].observations.tokens, drawn[1].observations.tokens)
    assert th.equal(drawn[0].rewards, drawn[1].rewards)


def test_wrong_arguments() -> None:
    def make(**kwargs: Any) -> SequenceReplayBuffer:
        return SequenceReplayBuffer(100, OBSERVATION_SPACES["box"], BOX_ACTION, "cpu", 2, **kwargs)

    with refused(ValueError, "sequence_length", "at least 1", "got 0"):
        make(sequence_length=0)
    with refused(TypeError, "burn_in", "integer", "2.5"):
        make(burn_in=2.5)
    with refused(ValueError, "burn_in", "got -1"):
        make(burn_in=-1)
    with refused(ValueError, "buffer_size", "at least 2052", "got 100"):
        make().bind(1024, "episode")
    with refused(ValueError, "buffer_size", "at least 2052", "got 100"):
        make(burn_in=20).bind(1024, "episode")
    buffer = make()
    buffer.bind(4, "episode")
    with refused(ValueError, "the replay buffer is empty"):
        buffer.sample(3)
