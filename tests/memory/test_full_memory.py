"""The full-context memory: banded attention, cached acting and whole-sequence training against naive versions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import BasePolicy

from sb3_trmrl import TransformerPPO
from sb3_trmrl.memory.encoder import attend_to_visible
from sb3_trmrl.memory.extractor import sinusoidal_positions
from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.sequences import Sequences, banded_attention
from tests.helpers.agents import (
    ACTION_SPACES,
    BOX_ACTION,
    IMAGE_FIRST,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    assert_equal_weights,
    assert_trained,
    by_name,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)
from tests.transformer_ppo.test_transformer_ppo import BeforeUpdate, assert_on_policy, make_envs

#: Actions of every size, so that none is clipped
WIDE = spaces.Box(-100.0, 100.0, (2,), np.float32)
FULL: dict[str, Any] = dict(memory="full", positional_encoding="sinusoidal", log_std_init=-1.0, action_head_gain=1.0)


def band(n_tokens: int, context_length: int) -> th.Tensor:
    """:return: Token i sees j where i - C < j <= i, (T, T)"""
    return th.tensor([[i - context_length < j <= i for j in range(n_tokens)] for i in range(n_tokens)])


@pytest.mark.parametrize("n_tokens", [1, 2, 5, 8, 9, 13])
@pytest.mark.parametrize("context_length", [1, 2, 3, 4, 8, 20])
def test_banded_attention_equals_a_masked_softmax(n_tokens: int, context_length: int) -> None:
    """Values and gradients"""
    th.manual_seed(0)
    inputs = [th.randn(2, 3, n_tokens, 4, requires_grad=True) for _ in range(3)]
    q, k, v = inputs
    scores = (q @ k.transpose(-2, -1) / 2).masked_fill(~band(n_tokens, context_length), -th.inf)
    expected = scores.softmax(-1) @ v
    actual = banded_attention(q, k, v, context_length)
    th.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    weights = th.randn_like(expected)
    for got, wanted in zip(
        th.autograd.grad((actual * weights).sum(), inputs),
        th.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        th.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


class NaiveMemory:
    """All observations since the memory was emptied, and one masked pass over them for each output."""

    def __init__(self, model: TransformerPPO, n_envs: int) -> None:
        self.policy: Any = model.policy
        self.histories: list[list[Any]] = [[] for _ in range(n_envs)]

    def see(self, observations: Any, starts: np.ndarray) -> None:
        for env, history in enumerate(self.histories):
            columns = observations if isinstance(observations, dict) else {"": observations}
            observation = {key: value[env] for key, value in columns.items()}
            if starts[env] or observation.get("prev_done", 0) > 0:
                history.clear()
            history.append(observation)

    def memories(self, env: int, extractor: Any) -> th.Tensor:
        """:return: Episodic memory of one environment's newest token, (1, D)"""
        history = self.histories[env]
        tokens: Any = {key: th.as_tensor(np.array([token[key] for token in history])) for key in history[0]}
        tokens = tokens.get("", tokens)

        def encode(preprocessed: Any) -> th.Tensor:
            x = extractor.embedding(extractor.token_extractor(preprocessed))[None]
            if extractor.positional_encoding == "sinusoidal":
                x = x + sinusoidal_positions(th.arange(len(history)), x.shape[-1])
            visible = attend_to_visible(band(len(history), self.policy.context_length))
            for layer in extractor.encoder.layers:
                x = layer(x, x, visible)
            return x[:, -1]

        return BasePolicy.extract_features(self.policy, tokens, encode)

    def actions(self) -> np.ndarray:
        """:return: Deterministic actions, (B, A)"""
        policy = self.policy
        with th.no_grad():
            memories = th.cat([self.memories(env, policy.pi_features_extractor) for env in range(len(self.histories))])
            latent = policy.mlp_extractor.forward_actor(memories)
            return policy._get_action_dist_from_latent(latent).mode().numpy()


@pytest.mark.parametrize("positions", ["sinusoidal", "none"])
@pytest.mark.parametrize("context_length", [1, 3, 20, 64])
@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION, IMAGE_FIRST], ids=["box", "dict", "image"])
def test_cached_acting_equals_one_causal_pass(
    space: spaces.Space, n_envs: int, context_length: int, positions: str
) -> None:
    """Random starts; 45 steps, so that slots are reused, and the cache has to grow"""
    policy_kwargs = {**FULL, "context_length": context_length, "positional_encoding": positions}
    model = tiny_model(sampled_vec_env(2, space, WIDE), policy_kwargs)
    env = sampled_vec_env(n_envs, space, WIDE)
    naive, rng = NaiveMemory(model, n_envs), np.random.default_rng(0)
    observations, state, starts = env.reset(), None, np.ones(n_envs, dtype=bool)
    for _ in range(45):
        actions, state = model.predict(observations, state, starts, deterministic=True)
        naive.see(observations, starts)
        np.testing.assert_allclose(actions, naive.actions(), atol=1e-5)
        assert state.lengths.tolist() == [len(history) for history in naive.histories]
        observations, _, _, _ = env.step(actions)
        starts = rng.random(n_envs) < 0.04


@pytest.mark.parametrize("context_length", [1, 3, 64])
@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("critic", [dict(), dict(critic_input="token"), dict(share_features_extractor=True)], ids=str)
@pytest.mark.parametrize("kind, normalize", [("box", False), ("dict", False), ("dict", True)])
def test_no_gap_between_acting_and_training(
    kind: str, normalize: bool, critic: dict[str, Any], reset_memory_on: str, context_length: int
) -> None:
    """Across rollout borders, with weights that change there, resets and truncations; episodes of 5, 7 and 11 steps"""
    kwargs = dict(FULL, **critic, context_length=context_length, reset_memory_on=reset_memory_on, n_layers=2)
    model = tiny_model(make_envs(kind, normalize), kwargs, n_steps=8, batch_size=12, learning_rate=1e-2)
    callback = BeforeUpdate(assert_on_policy)
    model.learn(6 * 24, callback)
    assert callback.n_rollouts == 6


@pytest.mark.parametrize("positions", ["sinusoidal", "none"])
@pytest.mark.parametrize("context_length", [2, 50])
def test_episodes_of_many_rollouts(context_length: int, positions: str) -> None:
    """One endless episode: what lies before the rollout is exactly as far back as it matters."""
    env = sampled_vec_env(2, VECTOR, BOX_ACTION, length=10_000)
    kwargs = dict(FULL, context_length=context_length, n_layers=3, positional_encoding=positions)
    model = tiny_model(env, kwargs, n_steps=4, batch_size=8)
    callback = BeforeUpdate(assert_on_policy)
    model.learn(8 * 20, callback)
    assert callback.n_rollouts == 20
    assert model.rollout_buffer.n_carried == min(3 * (context_length - 1), 4 * 19)


@pytest.mark.parametrize("critic", [dict(), dict(share_features_extractor=True)], ids=str)
def test_context_of_one_equals_the_window_of_one(critic: dict[str, Any]) -> None:
    """Without positions the same weights make the same run, up to the order of minibatches: there is one."""
    models = []
    for memory in ("full", "window"):
        kwargs = dict(FULL, **critic, memory=memory, context_length=1, positional_encoding="none")
        env = sampled_vec_env(2, VECTOR, BOX_ACTION)
        models.append(tiny_model(env, kwargs, batch_size=32, n_epochs=2).learn(96))
    assert_equal_weights(*models, rtol=1e-4, atol=1e-5)


def test_minibatches_have_about_the_size_asked_for() -> None:
    """20 environments with two sequences of 50 steps each: 20 minibatches of two sequences"""
    buffer = SequenceRolloutBuffer(100, VECTOR, spaces.Discrete(2), device="cpu", n_envs=20)
    buffer.begin_rollout(FullMemory(th.zeros(20, dtype=th.long), None, (), ()))
    zeros = np.zeros((20, 1))
    for step in range(100):
        lengths = th.full((20,), step % 50 + 1)
        buffer.add(np.zeros((20, 3)), zeros, zeros[:, 0], zeros[:, 0], th.zeros(20), th.zeros(20), lengths)
    assert [len(batch.old_values) for batch in buffer.get(100)] == [100] * 20
    assert [len(batch.old_values) for batch in buffer.get()] == [2_000]


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    **by_name(
        {f"observation-{name}": (space, BOX_ACTION) for name, space in OBSERVATION_SPACES.items()}
        | {f"action-{name}": (TRANSITION, space) for name, space in ACTION_SPACES.items()}
    ),
)
def test_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    model = tiny_model(sampled_vec_env(2, observation_space, action_space), FULL)
    before = parameters_of(model)
    model.learn(64)
    assert_trained(model, before)
    evaluate_policy(model, sampled_vec_env(3, observation_space, action_space), n_eval_episodes=3, warn=False)


@pytest.mark.parametrize("option", [{}, dict(layer_norm="pre"), dict(layer_norm="post"), dict(embedding_arch=[6])])
def test_save_and_load(option: dict[str, Any], tmp_path: Path) -> None:
    """Same weights and actions; training goes on with another number of environments."""
    env = sampled_vec_env(2, TRANSITION, BOX_ACTION)
    model = tiny_model(env, {**FULL, **option}).learn(64)
    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", env=sampled_vec_env(3, TRANSITION, BOX_ACTION))
    assert_equal_weights(model, loaded)
    observations, states = env.reset(), [None, None]
    for _ in range(5):
        actions = []
        for index, actor in enumerate((model, loaded)):
            action, states[index] = actor.predict(observations, states[index], np.zeros(2, bool), deterministic=True)
            actions.append(action)
        np.testing.assert_array_equal(*actions)
        observations, _, _, _ = env.step(actions[0])
    before = parameters_of(loaded)
    loaded.learn(96)
    assert_trained(loaded, before)


def test_state_is_not_changed_in_place() -> None:
    model = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), FULL)
    observations = np.random.default_rng(0).normal(size=(3, 1, 3)).astype(np.float32)
    _, state = model.predict(observations[0], episode_start=np.ones(1), deterministic=True)
    first, _ = model.predict(observations[1], state, np.zeros(1), deterministic=True)
    model.predict(observations[2], state, np.zeros(1), deterministic=True)
    again, _ = model.predict(observations[1], state, np.zeros(1), deterministic=True)
    np.testing.assert_array_equal(first, again)


def test_wrong_state() -> None:
    model = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), FULL)
    _, state = model.predict(np.zeros((2, 3), np.float32), episode_start=np.ones(2))
    with pytest.raises(ValueError, match="3 observations"):
        model.predict(np.zeros((3, 3), np.float32), state, np.zeros(3))
    with pytest.raises(ValueError, match="`state`"):
        model.predict(np.zeros((2, 3), np.float32), (1, 2, 3, 4), np.zeros(2))


def test_plain_observations_are_the_first_of_an_episode() -> None:
    model = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), FULL)
    observations = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected, _ = model.predict(observations, episode_start=np.ones(4), deterministic=True)
    with th.no_grad():
        actual = model.policy.get_distribution(th.as_tensor(observations)).mode().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_newest_tokens_of_sequences() -> None:
    sequences = Sequences(th.arange(5.0)[:, None], (2, 3), th.tensor([0, 1, 0, 1, 2]), th.tensor([1, 4]))
    assert sequences.newest().flatten().tolist() == [1.0, 4.0]


def test_defaults_depend_on_the_memory() -> None:
    env = sampled_vec_env(1, VECTOR, BOX_ACTION)
    for memory, context_length, positions in (("window", 16, "sinusoidal"), ("full", 1024, "none")):
        extractor = TransformerPPO("TrMRLPolicy", env, policy_kwargs=dict(memory=memory)).policy.pi_features_extractor
        assert (extractor.context_length, extractor.positional_encoding) == (context_length, positions)
