"""What the test suites of SB3 and sb3-contrib check for PPO and RecurrentPPO: arguments, determinism, evaluation."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_trmrl.transformer_ppo import TransformerPPO
from tests.helpers.agents import (
    BOX_ACTION,
    CRITICS,
    TRANSITION,
    VECTOR,
    SampledEnv,
    assert_equal_weights,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import assert_learns, play

# -- Arguments of PPO -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(clip_range_vf=0.2),
        dict(clip_range_vf=lambda progress: 0.1 + progress),
        dict(clip_range=lambda progress: 0.1 * progress),
        dict(learning_rate=lambda progress: 1e-3 * progress),
        dict(vf_learning_rate=lambda progress: 1e-2 * progress),
        dict(normalize_advantage=False),
        dict(ent_coef=0.01, vf_coef=1.0, max_grad_norm=0.1),
        dict(gamma=1.0, gae_lambda=1.0),
        dict(n_epochs=3, batch_size=8),
        dict(n_steps=1, batch_size=1, normalize_advantage=False),
    ],
    ids=lambda kwargs: "-".join(f"{key}={'schedule' if callable(value) else value}" for key, value in kwargs.items()),
)
def test_arguments_of_ppo(kwargs: dict[str, Any]) -> None:
    model = tiny_model(sampled_vec_env(2), **kwargs)
    assert_learns(model, 64)
    n_steps, n_epochs = kwargs.get("n_steps", 16), kwargs.get("n_epochs", 1)
    assert model.logger.name_to_value["train/n_updates"] == n_epochs * 64 // (2 * n_steps)


def test_last_minibatch_of_one_transition() -> None:
    with pytest.warns(UserWarning, match="truncated mini-batch of size 1"):
        model = tiny_model("CartPole-v1", batch_size=15)
    assert_learns(model, 16)  # its advantage is not normalized, which would give NaN


@pytest.mark.parametrize(("target_kl", "n_updates"), [(None, 5), (1e-9, 1)])
def test_target_kl_ends_the_update(target_kl: float | None, n_updates: int) -> None:
    model = tiny_model(sampled_vec_env(2), target_kl=target_kl, n_epochs=5, learning_rate=1e-2, batch_size=8)
    assert model.learn(32)._n_updates == n_updates


@pytest.mark.parametrize("context_length", [1, 4, 16])
@pytest.mark.parametrize("ep_length", [1, 5, 100])
def test_episodes_end_within_the_rollout(context_length: int, ep_length: int) -> None:
    env_fns: list[Any] = [partial(IdentityEnv[int], 4, ep_length=ep_length + i) for i in range(2)]
    model = tiny_model(DummyVecEnv(env_fns), dict(context_length=context_length))
    assert_learns(model, 64)
    first_env = model.rollout_buffer.lengths.reshape(2, 16)[0]
    assert first_env.tolist() == [min(step % ep_length + 1, context_length) for step in range(16, 32)]


@pytest.mark.parametrize(
    ("learning_rate", "vf_learning_rate"),
    [(lambda x: 1e-3 * x, None), (1e-3, lambda x: 1e-2 * (1 + x)), (lambda x: 1e-3 * x, lambda x: 5e-2 * x)],
    ids=["one schedule", "critic's own schedule", "two schedules"],
)
def test_learning_rates_follow_their_schedules(learning_rate: Any, vf_learning_rate: Any) -> None:
    """The rates of both parameter groups at each of four updates, which SB3 makes at progress 0.75, 0.5, 0.25 and 0."""
    model = tiny_model(sampled_vec_env(2), learning_rate=learning_rate, vf_learning_rate=vf_learning_rate)
    rate = FloatSchedule(learning_rate)
    vf_rate = rate if vf_learning_rate is None else FloatSchedule(vf_learning_rate)
    seen = []
    train = model.train

    def train_and_record() -> None:
        train()
        seen.append([group["lr"] for group in model.policy.optimizer.param_groups])

    model.train = train_and_record
    model.learn(128)
    np.testing.assert_allclose(seen, [[rate(progress), vf_rate(progress)] for progress in (0.75, 0.5, 0.25, 0.0)])
    logged = model.logger.name_to_value
    assert logged["train/learning_rate"] == rate(0.0)
    assert logged.get("train/vf_learning_rate") == (None if vf_learning_rate is None else vf_rate(0.0))


# -- Training and evaluation mode -------------------------------------------------------------------------------------


class BatchNormDropout(BaseFeaturesExtractor):
    """Flattened observations through batch normalization and dropout."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(self.features_dim), nn.Dropout(0.5))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


def batch_norms(model: Any) -> list[th.Tensor]:
    """Return copies of bias and running mean of the batch normalizations of actor and critic."""
    modules: list[Any] = [module for module in model.policy.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(modules) == 2
    return [tensor.detach().clone() for module in modules for tensor in (module.bias, module.running_mean)]


def equal(tensors: list[th.Tensor], others: list[th.Tensor]) -> list[bool]:
    return [th.equal(*pair) for pair in zip(tensors, others, strict=True)]


@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_batch_norm_changes_in_training_only(env_id: str, critic_input: str) -> None:
    model = tiny_model(env_id, dict(features_extractor_class=BatchNormDropout, critic_input=critic_input))
    initial = batch_norms(model)
    _, callback = model._setup_learn(32)
    for _ in range(2):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    assert not model.policy.training
    assert all(equal(batch_norms(model), initial))

    model.learn(32)
    assert not any(equal(batch_norms(model), initial))

    model.policy.set_training_mode(True)
    trained = batch_norms(model)
    observation, start = model.env.reset(), np.array([True])
    actions = [model.predict(observation, episode_start=start, deterministic=True)[0] for _ in range(5)]
    assert all(np.array_equal(action, actions[0]) for action in actions), "dropout while predicting"
    assert all(equal(batch_norms(model), trained))


# -- Determinism ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy_kwargs", "kwargs"),
    [
        *((critic, {}) for critic in CRITICS.values()),
        (dict(memory="window", positional_encoding="learned", layer_norm="pre", initialization="default"), {}),
        ({}, dict(use_sde=True, sde_sample_freq=4)),
    ],
    ids=str,
)
def test_same_seed_same_run(policy_kwargs: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Bit for bit. Several models are made, because the order of objects in memory must not matter."""
    models = [tiny_model("Pendulum-v1", policy_kwargs, seed=3, **kwargs) for _ in range(8)]
    for model in models[1:]:
        assert_equal_weights(models[0], model)
    outcomes = []
    for model in models[:2]:
        model.set_random_seed(3)
        model.learn(48)
        steps = play(model, model.get_env(), 20, deterministic=False)
        outcomes.append([(step.actions.item(), step.rewards.item()) for step in steps])
    assert_equal_weights(*models[:2])
    assert outcomes[0] == outcomes[1]


def test_seeds_differ() -> None:
    before = parameters_of(tiny_model("CartPole-v1", seed=0))
    differing = changed(before, tiny_model("CartPole-v1", seed=1))
    assert {name for name in before if name.endswith("weight")} <= differing


# -- Environments of a model ------------------------------------------------------------------------------------------


def identity_envs(n_envs: int = 1) -> DummyVecEnv:
    return DummyVecEnv([partial(IdentityEnvBox, -10, 10, ep_length=7)] * n_envs)


def test_set_env(tmp_path: Path) -> None:
    model = tiny_model(identity_envs()).learn(16)
    other = identity_envs()
    model.set_env(other, force_reset=True)
    assert model._last_obs is None and model.get_env() is other
    assert model.learn(16).num_timesteps == 16
    model.set_env(IdentityEnvBox(-10, 10))
    model.learn(16)
    with pytest.raises(AssertionError):  # another number of environments
        model.set_env(identity_envs(2))
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(gym.make("CartPole-v1"))

    env = model.get_env()
    model.set_env(env, force_reset=False)
    assert model._last_obs is not None
    assert model.learn(16, reset_num_timesteps=False).num_timesteps == 32

    model.save(tmp_path / "model")
    # Without a reset, the environment continues where it was
    for other, force_reset in ((env, False), (identity_envs(), True)):
        loaded = TransformerPPO.load(tmp_path / "model", env=other, force_reset=force_reset)
        assert (loaded._last_obs is None) == force_reset
        assert loaded.learn(16, reset_num_timesteps=False).num_timesteps == 48


@pytest.mark.parametrize(("memory", "longest"), [("window", 4), ("full", 16)])
def test_new_environment_empties_the_memory(memory: str, longest: int) -> None:
    """The first memories of a rollout in another environment hold no token of the previous one."""
    model = tiny_model(sampled_vec_env(2, length=100), dict(memory=memory)).learn(32)
    assert (model._last_memory.lengths == longest).all()
    model.set_env(sampled_vec_env(2, length=100))
    model.learn(32)
    lengths = [min(step + 1, longest) for step in range(16)]
    assert model.rollout_buffer.lengths.reshape(2, 16).tolist() == [lengths] * 2


# -- Evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_evaluate_policy(space: spaces.Space[Any], n_envs: int) -> None:
    """Model and bare policy give the same episodes, in any number of environments."""
    model = tiny_model(sampled_vec_env(2, space, BOX_ACTION), dict(action_head_gain=1.0)).learn(32)
    results = []
    for actor in (model, model.policy):
        env = make_vec_env(partial(SampledEnv, space, BOX_ACTION, length=4), n_envs=n_envs, seed=1)
        results.append(evaluate_policy(actor, env, n_eval_episodes=6, return_episode_rewards=True))
    assert [len(values) for values in results[0]] == [6, 6]  # type: ignore[arg-type]
    assert results[0] == results[1]
    with pytest.raises(AssertionError):
        evaluate_policy(model, env, 1, reward_threshold=1e6)


def test_evaluation_does_not_affect_training() -> None:
    """EvalCallback in the middle of a rollout changes neither the live memory nor the outcome of training."""
    models = []
    for evaluate in (False, True):
        evaluation_env = DummyVecEnv([lambda: Monitor(SampledEnv(length=3))] * 3)
        callback = EvalCallback(evaluation_env, eval_freq=3, n_eval_episodes=2) if evaluate else None
        models.append(tiny_model(sampled_vec_env(2)).learn(64, callback=callback))
    assert_equal_weights(*models)
