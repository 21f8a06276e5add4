"""Windows of the live memory against a naive deque per environment, and the types in which tokens are stored."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import OBSERVATION_SPACES, VECTOR, unpack
from tests.helpers.naive_rollouts import NaiveHistory, stack

NAMES = ("box", "box-float64", "box-matrix", "box-small-image", "discrete", "multi-discrete", "dict")


def empty_memory(space: spaces.Space[Any], context_length: int, n_envs: int) -> WorkingMemory:
    flat = VECTOR if isinstance(space, spaces.Dict) else space  # only the context length of the transformer is read
    return WorkingMemory.empty(space, n_envs, [TransformerExtractor(flat, None, context_length)])


def assert_windows(memory: WorkingMemory, naive: NaiveHistory) -> None:
    """Filled slots hold the tokens of the deque in order."""
    assert memory.lengths.tolist() == naive.lengths
    for env, history in enumerate(naive.observations):
        for slot, token in enumerate(history):
            stored = map_tokens(lambda tokens, place=(env, slot): np.asarray(tokens[place]), memory.tokens)
            map_tokens(lambda array, expected: np.testing.assert_allclose(array, expected, rtol=1e-6), stored, token)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_live_memory_equals_a_deque(name: str, data: st.DataObject) -> None:
    space, context_length, n_envs = OBSERVATION_SPACES[name], data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    memory = empty_memory(space, context_length, n_envs)
    naive = NaiveHistory(n_envs, context_length, resets_on_prev_done=False)
    for _ in range(data.draw(st.integers(1, 15))):
        starts = data.draw(st.lists(st.booleans(), min_size=n_envs, max_size=n_envs))
        observations = stack([space.sample() for _ in range(n_envs)])
        older, content = memory, map_tokens(th.clone, memory.tokens)
        memory = memory.write(map_tokens(th.as_tensor, observations), th.tensor(starts))
        map_tokens(lambda now, before: th.testing.assert_close(now, before, rtol=0, atol=0), older.tokens, content)
        naive.see(observations, starts)
        assert_windows(memory, naive)
        assert_windows(unpack(memory.batch()), naive)


def test_tokens_are_stored_in_their_own_type_except_float64() -> None:
    tokens = empty_memory(OBSERVATION_SPACES["dict"], 2, 1).tokens
    expected = dict(vector=th.float32, wide=th.float32, choice=th.int64, image=th.uint8)
    assert {key: array.dtype for key, array in tokens.items()} == expected
