"""Windows of the live memory against a naive deque per environment, and the types in which tokens are kept."""

from collections import deque

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import unpack

SPACES = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "float64": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 4]),
    "image": spaces.Box(0, 255, (3, 8, 8), np.uint8),
    "dict": spaces.Dict(
        {
            "vec": spaces.Box(-1.0, 1.0, (3,), np.float32),
            "img": spaces.Box(0, 255, (1, 4, 4), np.uint8),
            "id": spaces.Discrete(3),
        }
    ),
}


def sample(space, n_envs):
    """One observation of each environment, as a VecEnv returns them"""
    if isinstance(space, spaces.Dict):
        return {key: sample(subspace, n_envs) for key, subspace in space.spaces.items()}
    return np.stack([space.sample() for _ in range(n_envs)])


def empty_memory(space: spaces.Space, context_length: int, n_envs: int) -> WorkingMemory:
    extractor = FlattenExtractor(spaces.Box(-1.0, 1.0, (2,)))  # is not used
    return WorkingMemory.empty(space, n_envs, [TransformerExtractor(space, extractor, context_length)])


def to_torch(observation):
    if isinstance(observation, dict):
        return {key: th.as_tensor(value) for key, value in observation.items()}
    return th.as_tensor(observation)


def row(observation, env):
    return {k: v[env] for k, v in observation.items()} if isinstance(observation, dict) else observation[env]


def assert_window_equals(memory, env, expected):
    """Filled slots hold the deque's tokens in order"""
    assert int(memory.lengths[env]) == len(expected)
    for slot, token in enumerate(expected):
        if isinstance(token, dict):
            for key, value in token.items():
                np.testing.assert_allclose(np.asarray(memory.tokens[key][env, slot]), value, rtol=1e-6)
        else:
            np.testing.assert_allclose(np.asarray(memory.tokens[env, slot]), token, rtol=1e-6)


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_live_memory_equals_a_deque(name, data):
    space, context_length = SPACES[name], data.draw(st.integers(1, 6))
    n_envs, n_steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 15))
    memory = empty_memory(space, context_length, n_envs)
    naive = [deque(maxlen=context_length) for _ in range(n_envs)]
    for _ in range(n_steps):
        starts = data.draw(st.lists(st.booleans(), min_size=n_envs, max_size=n_envs))
        observation = sample(space, n_envs)
        before = memory.numpy()
        kept = [[np.copy(leaf) for leaf in (t.values() if isinstance(t, dict) else [t])] for t in (before.tokens,)]
        memory_after = memory.write(to_torch(observation), th.tensor(starts))
        for leaves in kept:  # written functionally: the older memory is as it was
            now = memory.tokens.values() if isinstance(memory.tokens, dict) else [memory.tokens]
            assert all((leaf == np.asarray(value)).all() for leaf, value in zip(leaves, now, strict=True))
        memory = memory_after
        for env in range(n_envs):
            if starts[env]:
                naive[env].clear()
            naive[env].append(row(observation, env))
            assert_window_equals(memory, env, naive[env])
        packed = unpack(memory.batch())
        for env in range(n_envs):
            assert_window_equals(packed, env, naive[env])


def test_buffer_keeps_each_token_once():
    """n_steps + N - 1 tokens for each environment, whatever the number of windows"""
    space = SPACES["box"]
    buffer = WindowRolloutBuffer(100, space, spaces.Discrete(2), device="cpu", n_envs=4)
    buffer.begin_rollout(empty_memory(space, 32, 4))
    assert buffer.tokens.shape == (100 + 31, 4, 3)


def test_memory_holds_float64_in_32_bits_and_keeps_other_types():
    memory = empty_memory(SPACES["float64"], 2, 1)
    assert memory.tokens.dtype == th.float32
    memory = empty_memory(SPACES["dict"], 2, 1)
    assert (memory.tokens["img"].dtype, memory.tokens["id"].dtype) == (th.uint8, th.int64)
