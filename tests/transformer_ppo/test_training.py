"""What SB3's and sb3-contrib's own suites ask of PPO and RecurrentPPO: arguments, determinism, evaluation."""

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
    assert_trained,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)

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
    before = parameters_of(model)
    model.learn(64)
    assert_trained(model, before)
    n_steps, n_epochs = kwargs.get("n_steps", 16), kwargs.get("n_epochs", 1)
    assert model.logger.name_to_value["train/n_updates"] == n_epochs * 64 // (2 * n_steps)


def test_a_last_minibatch_of_one() -> None:
    with pytest.warns(UserWarning, match="truncated mini-batch of size 1"):
        model = tiny_model("CartPole-v1", batch_size=15)
    model.learn(16)  # the last minibatch is not normalised, which would give NaN
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_target_kl_ends_the_update() -> None:
    for target_kl, n_updates in ((None, 5), (1e-9, 1)):
        model = tiny_model(sampled_vec_env(2), target_kl=target_kl, n_epochs=5, learning_rate=1e-2, batch_size=8)
        model.learn(32)
        assert model._n_updates == n_updates


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_rollouts_shorter_than_the_memory(n_steps: int, n_envs: int) -> None:
    """Windows of 8 reach back over several rollouts and are full in the last."""
    arguments: dict[str, Any] = dict(n_steps=n_steps, normalize_advantage=False, batch_size=n_steps * n_envs)
    model = tiny_model(sampled_vec_env(n_envs, length=50), dict(context_length=8), **arguments)
    model.learn(12 * n_envs)
    assert (model.rollout_buffer.lengths == 8).all()
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def identity_env(ep_length: int) -> gym.Env:
    return IdentityEnv(4, ep_length=ep_length)


@pytest.mark.parametrize("context_length", [1, 4, 16])
@pytest.mark.parametrize("ep_length", [1, 5, 100])
def test_episodes_end_within_the_rollout(context_length: int, ep_length: int) -> None:
    env = DummyVecEnv([partial(identity_env, ep_length + i) for i in range(2)])
    model = tiny_model(env, dict(context_length=context_length))
    before = parameters_of(model)
    model.learn(64)
    assert_trained(model, before)
    # Environment 0 was reset every ep_length steps, so its windows are no longer than that
    first_env = model.rollout_buffer.lengths.reshape(2, 16)[0]
    expected = [min(step % ep_length + 1, context_length) for step in range(16, 32)]
    assert first_env.tolist() == expected


# -- Training and evaluation mode -------------------------------------------------------------------------------------


class BatchNormDropout(BaseFeaturesExtractor):
    """Flattened observations through batch normalization and dropout."""

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.batch_norm = nn.BatchNorm1d(self.features_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.dropout(self.batch_norm(observations.flatten(1)))


def batch_norm_of(model: TransformerPPO) -> list[th.Tensor]:
    """:return: Copies of bias and running mean of the actor's :class:`BatchNormDropout` and the critic's"""
    modules = [module for module in model.policy.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(modules) == 2
    return [tensor.detach().clone() for module in modules for tensor in (module.bias, module.running_mean)]  # type: ignore[union-attr]


@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_batch_norm_moves_only_in_training(env_id: str, critic_input: str) -> None:
    model = tiny_model(env_id, dict(features_extractor_class=BatchNormDropout, critic_input=critic_input))
    initial = batch_norm_of(model)

    _, callback = model._setup_learn(32)
    for _ in range(2):
        assert model.env is not None
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    assert not model.policy.training
    assert all(th.equal(*pair) for pair in zip(batch_norm_of(model), initial, strict=True))

    model.learn(32)
    assert not any(th.equal(*pair) for pair in zip(batch_norm_of(model), initial, strict=True))

    model.policy.set_training_mode(True)
    trained = batch_norm_of(model)
    observation = model.env.reset()
    start = np.array([True])
    actions = [model.predict(observation, episode_start=start, deterministic=True)[0] for _ in range(5)]
    assert all(np.array_equal(action, actions[0]) for action in actions), "dropout while predicting"
    assert all(th.equal(*pair) for pair in zip(batch_norm_of(model), trained, strict=True))


# -- Determinism ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy_kwargs", "kwargs"),
    [
        *((critic, {}) for critic in CRITICS.values()),
        (dict(positional_encoding="learned", layer_norm="pre", initialization="default"), {}),
        ({}, dict(use_sde=True, sde_sample_freq=4)),
    ],
    ids=str,
)
def test_same_seed_same_run(policy_kwargs: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Bit for bit, and several times: the order of objects in memory must not matter either."""
    runs = [tiny_model("Pendulum-v1", policy_kwargs, seed=3, **kwargs) for _ in range(8)]
    for run in runs[1:]:
        assert_equal_weights(runs[0], run)
    outcomes = []
    for model in runs[:2]:
        model.set_random_seed(3)
        model.learn(48)
        env: Any = model.get_env()
        observations, state, start = env.reset(), None, np.array([True])
        outcome = []
        for _ in range(20):
            actions, state = model.predict(observations, state, start)
            observations, rewards, start, _ = env.step(actions)
            outcome.append((actions.item(), rewards.item()))
        outcomes.append(outcome)
    assert_equal_weights(*runs[:2])
    assert outcomes[0] == outcomes[1]


def test_seeds_differ() -> None:
    names = set(parameters_of(tiny_model("CartPole-v1", seed=0)))
    differing = changed(parameters_of(tiny_model("CartPole-v1", seed=0)), tiny_model("CartPole-v1", seed=1))
    assert {name for name in names if name.endswith("weight")} <= differing


# -- Environments of a model ------------------------------------------------------------------------------------------


def test_set_env(tmp_path: Path) -> None:
    make = lambda n_envs=1: DummyVecEnv([lambda: IdentityEnvBox(-10, 10, ep_length=7)] * n_envs)  # noqa: E731
    model = tiny_model(make()).learn(16)
    other = make()
    model.set_env(other, force_reset=True)
    assert model._last_obs is None and model.get_env() is other
    model.learn(16)
    assert model.num_timesteps == 16
    model.set_env(IdentityEnvBox(-10, 10))
    model.learn(16)
    with pytest.raises(AssertionError):  # another number of environments
        model.set_env(make(2))
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(gym.make("CartPole-v1"))

    env: Any = model.get_env()
    model.set_env(env, force_reset=False)
    assert model._last_obs is not None
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 32

    model.save(tmp_path / "model")
    # The environment goes on where it was
    model = TransformerPPO.load(tmp_path / "model", env=env, force_reset=False)
    assert model._last_obs is not None
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 48
    model = TransformerPPO.load(tmp_path / "model", env=make(), force_reset=True)
    assert model._last_obs is None
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 48


def test_new_environment_empties_the_memory() -> None:
    """The first window of a rollout in another environment holds nothing of the one before."""
    model = tiny_model(sampled_vec_env(2, length=100)).learn(32)
    assert (model._last_memory.lengths == 4).all()
    model.set_env(sampled_vec_env(2, length=100))
    model.learn(32)
    assert model.rollout_buffer.lengths.reshape(2, 16)[:, :5].tolist() == [[1, 2, 3, 4, 4]] * 2


# -- Evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_evaluate_policy(space: spaces.Space, n_envs: int) -> None:
    """Model and bare policy give the same episodes, on any number of environments."""
    model = tiny_model(sampled_vec_env(2, space, BOX_ACTION), dict(action_head_gain=1.0)).learn(32)
    results = []
    for actor in (model, model.policy):
        env = make_vec_env(lambda: SampledEnv(space, BOX_ACTION, length=4), n_envs=n_envs, seed=1)
        rewards, lengths = evaluate_policy(actor, env, n_eval_episodes=6, return_episode_rewards=True)
        assert len(rewards) == len(lengths) == 6  # type: ignore[arg-type]
        results.append((rewards, lengths))
    assert results[0] == results[1]
    with pytest.raises(AssertionError):
        evaluate_policy(model, env, 1, reward_threshold=1e6)


def test_evaluation_leaves_training_alone() -> None:
    """EvalCallback in mid-rollout changes neither the live memory nor the outcome of training."""
    models = []
    for evaluate in (False, True):
        evaluation_env = DummyVecEnv([lambda: Monitor(SampledEnv(length=3))] * 3)
        callback = EvalCallback(evaluation_env, eval_freq=3, n_eval_episodes=2) if evaluate else None
        models.append(tiny_model(sampled_vec_env(2)).learn(64, callback=callback))
    assert_equal_weights(*models)
