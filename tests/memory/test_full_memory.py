"""The full-context memory: the key/value cache and cached acting against naive versions, training, saving."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import BasePolicy

from sb3_trmrl.memory.encoder import attend_to_visible
from sb3_trmrl.memory.extractor import sinusoidal_positions
from sb3_trmrl.memory.full_memory import KeyValueCache
from sb3_trmrl.memory.sequences import Sequences
from sb3_trmrl.transformer_ppo import TransformerPPO
from tests.helpers.agents import (
    ACTION_SPACES,
    BOX_ACTION,
    IMAGE_FIRST,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    assert_equal_weights,
    by_name,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import assert_learns, assert_learns_on_policy, play
from tests.helpers.naive_rollouts import NaiveHistory
from tests.helpers.naive_transformer import FULL_CONTEXT, WIDTH, RandomTransformer, assert_close

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
    rng = np.random.default_rng(transformer.seed)
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
            histories[env].append(rng.normal(size=WIDTH).astype(np.float32))
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


def naive_actions(policy: Any, history: NaiveHistory) -> np.ndarray:
    """Return the deterministic actions after one masked pass over the history of each environment, (B, A)."""

    def encode(preprocessed: Any) -> th.Tensor:
        extractor = policy.pi_features_extractor
        x = extractor.embedding(extractor.token_extractor(preprocessed))[None]
        places = th.arange(x.shape[1])
        if extractor.positional_encoding == "sinusoidal":
            x = x + sinusoidal_positions(places, x.shape[-1])
        age = places[:, None] - places
        visible = attend_to_visible((age >= 0) & (age < policy.context_length))
        for layer in extractor.encoder.layers:
            x = layer(x, x, visible)
        newest: th.Tensor = x[:, -1]
        return newest

    memories = []
    for env in range(len(history.observations)):
        tokens = history.window(env).tokens
        sequence = {key: array[0] for key, array in tokens.items()} if isinstance(tokens, dict) else tokens[0]
        memories.append(BasePolicy.extract_features(policy, sequence, encode))  # type: ignore[arg-type]
    latent = policy.mlp_extractor.forward_actor(th.cat(memories))
    return np.asarray(policy._get_action_dist_from_latent(latent).mode().detach())


@pytest.mark.parametrize("positions", ["sinusoidal", "none"])
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


@pytest.mark.parametrize("positions", ["sinusoidal", "none"])
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
    assert_equal_weights(*models, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    **by_name(
        {f"observation-{name}": (space, BOX_ACTION) for name, space in OBSERVATION_SPACES.items()}
        | {f"action-{name}": (TRANSITION, space) for name, space in ACTION_SPACES.items()}
    ),
)
def test_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    model = tiny_model(sampled_vec_env(2, observation_space, action_space), FULL)
    assert_learns(model, 64)
    evaluate_policy(model, sampled_vec_env(3, observation_space, action_space), n_eval_episodes=3, warn=False)


@pytest.mark.parametrize("option", [{}, dict(layer_norm="pre"), dict(layer_norm="post"), dict(embedding_arch=[6])])
def test_save_and_load(option: dict[str, Any], tmp_path: Path) -> None:
    """The loaded model acts as before, and trains with another number of environments."""
    model = tiny_model(sampled_vec_env(2, TRANSITION, BOX_ACTION), {**FULL, **option}).learn(64)
    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", env=sampled_vec_env(3, TRANSITION, BOX_ACTION))
    assert_equal_weights(model, loaded)
    runs = []
    for actor in (model, loaded):
        env = sampled_vec_env(2, TRANSITION, BOX_ACTION)
        env.seed(0)
        runs.append([step.actions for step in play(actor, env, 5)])
    np.testing.assert_array_equal(*runs)
    assert_learns(loaded, 96)
