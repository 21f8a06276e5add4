"""The full-context memory: the key/value cache and cached acting against naive versions, and training."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_trmrl.memory.full_memory import KeyValueCache
from sb3_trmrl.memory.sequences import Sequences
from tests.helpers.agents import (
    BOX_ACTION,
    IMAGE_FIRST,
    TRANSITION,
    VECTOR,
    assert_equal_weights,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import assert_learns_on_policy, play
from tests.helpers.naive_rollouts import NaiveHistory, naive_actions
from tests.helpers.naive_transformer import FULL_CONTEXT, RandomTransformer, assert_close

#: A space so large that no action is clipped
WIDE = spaces.Box(-100.0, 100.0, (2,), np.float32)
FULL: dict[str, Any] = dict(memory="full", positional_encoding="sinusoidal", log_std_init=-1.0, action_head_gain=1.0)


@pytest.mark.usefixtures("one_thread")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    transformer=FULL_CONTEXT,
    n_envs=st.integers(1, 3),
    n_steps=st.integers(1, 25),
    emptied=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_cache(transformer: RandomTransformer, n_envs: int, n_steps: int, emptied: float) -> None:
    """
    Tokens are appended one at a time, and memories are emptied at random steps. At some steps the cache is filled again
    with the tokens in the receptive field, as after an update.
    """
    rng = transformer.rng
    histories: list[list[np.ndarray]] = [[] for _ in range(n_envs)]
    outputs: list[list[np.ndarray]] = [[] for _ in range(n_envs)]
    cache = KeyValueCache.empty(transformer.extractor, n_envs)
    for step in range(n_steps + 1):
        if rng.random() < 0.2:
            cache = refilled(transformer, histories) or cache
        for env, history in enumerate(histories):
            if history and (step == n_steps or rng.random() < emptied):
                assert_close(np.array(outputs[env]), transformer.expected(np.array(history)))
                histories[env], outputs[env] = [], []
            histories[env].append(transformer.random_tokens())
        newest = th.as_tensor(np.array([history[-1] for history in histories]))
        steps = th.tensor([len(history) for history in histories])
        with th.no_grad():
            cache, memories = cache.append(transformer.extractor, newest, steps)
        for env, memory in enumerate(memories.numpy()):
            outputs[env].append(memory)


def refilled(transformer: RandomTransformer, histories: list[list[np.ndarray]]) -> Any:
    """Return a cache that is filled with the newest tokens of each environment, or None if there are none."""
    reach = transformer.receptive_field
    kept = {env: history[-reach:] for env, history in enumerate(histories) if history and reach}
    if not kept:
        return None
    positions = [place for env in kept for place in range(len(histories[env]))[-reach:]]
    tokens = th.as_tensor(np.array([token for history in kept.values() for token in history]))
    envs = th.tensor([env for env, history in kept.items() for _ in history])
    sequences = Sequences(tokens, tuple(map(len, kept.values())), th.tensor(positions), th.tensor([], dtype=th.long))
    with th.no_grad():
        return KeyValueCache.of_sequences(transformer.extractor, sequences, envs, len(histories))


@pytest.mark.parametrize("positions", ["sinusoidal", "relative", "none"])
@pytest.mark.parametrize("context_length", [1, 3, 20, 64])
@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION, IMAGE_FIRST], ids=["box", "dict", "image"])
def test_cached_acting_equals_one_causal_pass(
    space: spaces.Space[Any], n_envs: int, context_length: int, positions: str
) -> None:
    """In 45 steps slots are reused and the cache has to grow. Memories are emptied at random steps."""
    policy_kwargs = {**FULL, "context_length": context_length, "positional_encoding": positions}
    model = tiny_model(sampled_vec_env(2, space, WIDE), policy_kwargs)
    history = NaiveHistory(n_envs)
    for step in play(model, sampled_vec_env(n_envs, space, WIDE), 45, start_probability=0.04):
        history.see(step.observations, step.starts)
        np.testing.assert_allclose(step.actions, naive_actions(model.policy, history), atol=1e-5)
        assert step.state.lengths.tolist() == history.lengths


@pytest.mark.parametrize("positions", ["sinusoidal", "relative", "none"])
@pytest.mark.parametrize("context_length", [2, 50])
def test_episodes_of_many_rollouts(context_length: int, positions: str) -> None:
    """In an endless episode, the tokens carried over from earlier rollouts reach back to the receptive field."""
    env = sampled_vec_env(2, VECTOR, BOX_ACTION, length=10_000)
    kwargs = dict(FULL, context_length=context_length, n_layers=3, positional_encoding=positions)
    model = tiny_model(env, kwargs, n_steps=4, batch_size=8)
    assert_learns_on_policy(model, n_rollouts=20)
    assert model.rollout_buffer.n_carried == min(3 * (context_length - 1), 4 * 19)


@pytest.mark.parametrize("critic", [dict(), dict(share_features_extractor=True)], ids=str)
def test_context_of_one_equals_the_window_of_one(critic: dict[str, Any]) -> None:
    """Without positions, equal weights give equal training with one minibatch, where order does not matter."""
    models = []
    for memory in ("full", "window"):
        kwargs = dict(FULL, **critic, memory=memory, context_length=1, positional_encoding="none")
        env = sampled_vec_env(2, VECTOR, BOX_ACTION)
        models.append(tiny_model(env, kwargs, batch_size=32, n_epochs=2).learn(96))
    assert_equal_weights(models[0], models[1], rtol=1e-4, atol=1e-5)
