"""What Stable-Baselines3's and sb3-contrib's own suites ask of PPO and RecurrentPPO, asked of TransformerPPO."""

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from agent_helpers import (
    IMAGE_FIRST,
    IMAGE_LAST,
    TRANSITION,
    VECTOR,
    SampledEnv,
    assert_equal_weights,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnv, IdentityEnvBox, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)
from torch import nn

from sb3_trmrl.common.working_memory import WorkingMemory, map_tokens
from sb3_trmrl.transformer_ppo import (
    CnnTransformerPolicy,
    MlpTransformerPolicy,
    MultiInputTransformerPolicy,
    TransformerPPO,
    TrMRLPolicy,
)

MIXED = spaces.Dict(
    vector=VECTOR, wide=spaces.Box(-1.0, 1.0, (2, 2), np.float64), choice=spaces.Discrete(4), image=IMAGE_LAST
)
OBSERVATION_SPACES: dict[str, spaces.Space] = {
    "box": VECTOR,
    "box-float64": spaces.Box(-1.0, 1.0, (3,), np.float64),
    "box-float16": spaces.Box(-1.0, 1.0, (3,), np.float16),
    "box-matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "box-unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "box-int32": spaces.Box(-5, 5, (3,), np.int32),
    "box-uint16": spaces.Box(0, 5, (3,), np.uint16),
    "box-uint32": spaces.Box(0, 5, (3,), np.uint32),
    "box-small-image": spaces.Box(0, 255, (1, 8, 8), np.uint8),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([4, 3]),
    "multi-binary": spaces.MultiBinary(5),
    "multi-binary-matrix": spaces.MultiBinary((2, 3)),
    "image-channels-first": IMAGE_FIRST,
    "image-channels-last": IMAGE_LAST,
    "dict": MIXED,
    "dict-transition": TRANSITION,
}
BOX_ACTION = spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([3.0, 5.0], np.float32))
ACTION_SPACES: dict[str, spaces.Space] = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
    "box": BOX_ACTION,
    "box-float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "box-matrix": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
}


def by_name(cases: dict[str, Any]) -> dict[str, Any]:
    """:return: Arguments of ``pytest.mark.parametrize`` for named values"""
    return dict(argvalues=list(cases.values()), ids=list(cases))


def assert_trained(model: TransformerPPO, before: dict[str, th.Tensor]) -> None:
    """The update has reached the encoder and both heads, and left only finite numbers."""
    names = changed(before, model)
    for part in ("features_extractor.encoder", "features_extractor.embedding", "action_net", "value_net"):
        assert any(part in name for name in names), f"{part} was not trained"
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


# -- Spaces and environments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("space", **by_name(OBSERVATION_SPACES))
def test_observation_spaces(space: spaces.Space, critic_input: str) -> None:
    model = tiny_model(sampled_vec_env(2, space), dict(critic_input=critic_input))
    before = parameters_of(model)
    model.learn(32)
    assert model.num_timesteps == 32
    assert_trained(model, before)
    # Both heads see the observation
    space.seed(0)
    samples = [model.policy.obs_to_tensor(space.sample())[0] for _ in range(9)]
    with th.no_grad():
        assert len({model.policy.predict_values(sample).item() for sample in samples}) > 2
        assert len({model.policy.get_distribution(sample).distribution.logits[0, 0].item() for sample in samples}) > 2


class RecordTruncations(BaseCallback):
    """Notes the expected bootstrap of every truncated episode, computed one window at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[tuple[int, int], float] = {}
        self.rewards: list[np.ndarray] = []

    def _on_step(self) -> bool:
        locals_, policy = self.locals, cast(TrMRLPolicy, self.model.policy)
        self.rewards.append(locals_["rewards"].copy())
        for env, info in enumerate(locals_["infos"]):
            if info["TimeLimit.truncated"]:
                terminal = policy.obs_to_tensor(info["terminal_observation"])[0]
                memory, length = locals_["memory"], int(locals_["memory"].lengths[env])

                def append(
                    tokens: th.Tensor,
                    newest: th.Tensor,
                    env: int = env,
                    length: int = length,
                    n: int = policy.context_length,
                ) -> th.Tensor:
                    return th.cat([tokens[env, :length], newest.to(tokens.dtype)])[-n:][None]

                tokens = map_tokens(append, memory.tokens, terminal)
                with th.no_grad():
                    window = WorkingMemory(tokens, th.tensor([min(length + 1, policy.context_length)]))
                    self.expected[locals_["n_steps"], env] = policy.predict_values(window).item()
        return True


@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("space", **by_name(OBSERVATION_SPACES))
def test_truncated_episodes_are_bootstrapped(space: spaces.Space, critic_input: str) -> None:
    """The value of the terminal observation after the window before it, and at no other step."""
    env = DummyVecEnv([partial(SampledEnv, space, length=n) for n in (2, 2, 3)])
    model = tiny_model(env, dict(critic_input=critic_input), gamma=0.9)
    model.train = lambda: None
    record = RecordTruncations()
    model.learn(48, callback=record)
    assert len(record.expected) > 5
    bootstraps = np.zeros((16, 3))
    for step_and_env, value in record.expected.items():
        bootstraps[step_and_env] = 0.9 * value
    assert np.abs(bootstraps).max() > 1e-3
    np.testing.assert_allclose(model.rollout_buffer.rewards, np.array(record.rewards) + bootstraps, atol=1e-5)


@pytest.mark.parametrize("observation_space", [VECTOR, OBSERVATION_SPACES["box-float64"], TRANSITION])
@pytest.mark.parametrize("space", **by_name(ACTION_SPACES))
def test_action_spaces(space: spaces.Space, observation_space: spaces.Space) -> None:
    """The environment itself checks that it gets members of its action space."""
    env = sampled_vec_env(2, observation_space, space)
    model = tiny_model(env)
    before = parameters_of(model)
    model.learn(32)
    assert_trained(model, before)
    observations = env.reset()
    for deterministic in (True, False):
        actions, _ = model.predict(observations, episode_start=np.ones(2, bool), deterministic=deterministic)
        assert actions.shape == (2, *space.shape)  # type: ignore[misc]
        # SB3's PPO gives float32 for MultiBinary spaces too, whose dtype is int8
        assert actions.dtype == (np.float32 if isinstance(space, spaces.MultiBinary) else space.dtype)
        assert all(space.contains(action) for action in actions)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "error"),
    [
        (VECTOR, spaces.MultiBinary([2, 3]), AssertionError),
        (spaces.Dict(nested=spaces.Dict(vector=VECTOR)), spaces.Discrete(2), NotImplementedError),
        (VECTOR, spaces.Dict(vector=VECTOR), AssertionError),
    ],
)
def test_spaces_that_ppo_refuses(
    observation_space: spaces.Space, action_space: spaces.Space, error: type[Exception]
) -> None:
    env = SampledEnv(observation_space, action_space)
    for build in (tiny_model, lambda env: PPO("MultiInputPolicy", env)):
        with pytest.raises(error):
            build(env)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("as_string", [True, False])
def test_environment_is_made_and_monitored(env_id: str, as_string: bool) -> None:
    model = tiny_model(env_id if as_string else gym.make(env_id))
    before = parameters_of(model)
    assert_trained(model.learn(32), before)
    env = model.get_env()
    assert env is not None and env.env_is_wrapped(Monitor) == [True]


def test_vec_env_kinds_give_the_same_model() -> None:
    """
    SubprocVecEnv hands out integers where the environments do, DummyVecEnv makes them floats; the bootstrap at a time
    limit is a fraction.
    """
    models = []
    env_fns: list[Callable[[], gym.Env]] = [partial(SampledEnv, length=length, reward=1) for length in (3, 4)]
    for vec_env_class in (DummyVecEnv, SubprocVecEnv):
        env: VecEnv = vec_env_class(env_fns)
        models.append(tiny_model(env).learn(64))
        env.close()
    assert_equal_weights(models[0], models[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_vec_normalize(space: spaces.Space) -> None:
    keys = ["observation", "prev_reward", "prev_done"] if space is TRANSITION else None
    env = VecNormalize(sampled_vec_env(2, space), norm_obs_keys=keys, clip_obs=2.0)
    model = tiny_model(env)
    before = parameters_of(model)
    model.learn(64)
    assert_trained(model, before)
    assert model.get_vec_normalize_env() is env
    # The memory holds what the policy has seen: normalised observations
    tokens = model.rollout_buffer.tokens
    last_obs: Any = model._last_obs
    seen, newest = (tokens["observation"], last_obs["observation"]) if keys else (tokens, last_obs)
    assert np.abs(seen).max() <= 2.0 and np.abs(newest).max() <= 2.0
    assert np.abs(seen).max() > 1.0, "raw observations lie within 1"
    # Evaluation neither learns statistics nor needs the training environments
    evaluation_env = VecNormalize(sampled_vec_env(3, space), training=False, norm_reward=False, norm_obs_keys=keys)
    evaluation_env.obs_rms = env.obs_rms
    evaluate_policy(model, evaluation_env, n_eval_episodes=4, warn=False)


@pytest.mark.parametrize("normalize_images", [True, False])
@pytest.mark.parametrize("critic_input", ["memory", "token"])
def test_images_already_normalized(normalize_images: bool, critic_input: str) -> None:
    """Images that VecNormalize has made floats need ``normalize_images=False`` to be read by a CNN, as in SB3."""
    env = VecNormalize(sampled_vec_env(1, IMAGE_FIRST))
    kwargs: dict[str, Any] = dict(normalize_images=normalize_images, features_extractor_class=NatureCNN)
    kwargs.update(features_extractor_kwargs=dict(features_dim=8), critic_input=critic_input)
    if normalize_images:
        with pytest.raises(AssertionError):
            tiny_model(env, kwargs)
        return
    model = tiny_model(env, kwargs)
    before = parameters_of(model)
    assert_trained(model.learn(32), before)
    assert isinstance(
        tiny_model(env, dict(normalize_images=False)).policy.pi_features_extractor.token_extractor, NatureCNN
    )


@pytest.mark.parametrize("space", [VECTOR, IMAGE_FIRST, IMAGE_LAST, TRANSITION], ids=["box", "first", "last", "dict"])
def test_vec_frame_stack(space: spaces.Space) -> None:
    env = VecFrameStack(sampled_vec_env(2, space), n_stack=2)
    model = tiny_model(env)
    before = parameters_of(model)
    assert_trained(model.learn(32), before)


def test_frame_stack_of_many_channels_keeps_its_order() -> None:
    """10 x 5 channels of 40 x 40 pixels: taken for channels-last by SB3 unless the transposition is skipped."""
    env: Any = DummyVecEnv([lambda: FakeImageEnv(screen_height=41, screen_width=40, n_channels=10, channel_first=True)])
    env = VecTransposeImage(VecFrameStack(env, 5, channels_order="first"), skip=True)
    model = tiny_model(env, dict(features_extractor_class=NatureCNN, features_extractor_kwargs=dict(features_dim=8)))
    model.learn(16)
    assert model.rollout_buffer.tokens.shape[2:] == (50, 41, 40)


def test_images_are_transposed_once() -> None:
    """Channels-last environments are wrapped; predict takes images either way."""
    last = tiny_model(SampledEnv(IMAGE_LAST), dict(action_head_gain=1.0))
    first = tiny_model(SampledEnv(IMAGE_FIRST), dict(action_head_gain=1.0))
    assert is_vecenv_wrapped(last.get_env(), VecTransposeImage)
    assert not is_vecenv_wrapped(first.get_env(), VecTransposeImage)
    assert_equal_weights(first, last)
    image = IMAGE_LAST.sample()
    transposed = np.transpose(image, (2, 0, 1))
    states = [
        model.predict(observation, episode_start=np.array([True]))[1]
        for model, observation in ((last, image), (last, transposed), (first, transposed))
    ]
    for state in states:
        assert np.array_equal(state.tokens[0, 0], transposed)
    for model in (first, last):
        model.learn(16)


def test_dict_of_one_vector_equals_the_vector() -> None:
    """No network hides in the handling of Dict observations: the same seed gives the same model after training."""
    as_dict = tiny_model(sampled_vec_env(2, spaces.Dict(vector=VECTOR))).learn(64)

    # A Dict space seeds its subspace with a number drawn from the seed, so the environments are wrapped instead
    def flat_env(length: int) -> gym.Env:
        return gym.wrappers.FlattenObservation(SampledEnv(spaces.Dict(vector=VECTOR), length=length))

    flat = tiny_model(DummyVecEnv([partial(flat_env, length) for length in (5, 6)])).learn(64)
    for ours, others in zip(as_dict.policy.parameters(), flat.policy.parameters(), strict=True):
        assert th.equal(ours, others)


def test_multi_observation_environment() -> None:
    model = tiny_model(make_vec_env(lambda: SimpleMultiObsEnv(num_col=2, num_row=2), n_envs=2))
    before = parameters_of(model)
    assert_trained(model.learn(32), before)
    evaluate_policy(model, model.get_env(), n_eval_episodes=2)


def test_policy_names() -> None:
    aliases = (MlpTransformerPolicy, CnnTransformerPolicy, MultiInputTransformerPolicy)
    assert all(alias is TrMRLPolicy for alias in aliases)
    for name in ("TrMRLPolicy", "MlpTransformerPolicy", "CnnTransformerPolicy", "MultiInputTransformerPolicy"):
        assert type(tiny_model("CartPole-v1", policy=name).policy) is TrMRLPolicy
    assert type(tiny_model("CartPole-v1", policy=TrMRLPolicy).policy) is TrMRLPolicy


# -- State-dependent exploration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("squash_output", [True, False])
@pytest.mark.parametrize("use_expln", [True, False])
@pytest.mark.parametrize("full_std", [True, False])
def test_state_dependent_exploration(full_std: bool, use_expln: bool, squash_output: bool) -> None:
    env = SampledEnv(VECTOR, BOX_ACTION)
    kwargs = dict(log_std_init=0.5, full_std=full_std, use_expln=use_expln, squash_output=squash_output)
    model = tiny_model(env, kwargs, use_sde=True, n_steps=32)
    before = parameters_of(model)
    model.learn(32)
    assert_trained(model, before)
    assert "log_std" in changed(before, model)
    assert model.policy.log_std.shape == ((64, 2) if full_std else (64, 1))
    # What the environment got is what the buffer holds, rescaled or clipped to its bounds
    stored = model.rollout_buffer.actions[:, :2]
    if squash_output:
        assert np.abs(stored).max() <= 1.0
        expected = BOX_ACTION.low + (stored + 1.0) / 2.0 * (BOX_ACTION.high - BOX_ACTION.low)
    else:
        assert (stored > BOX_ACTION.high).any() or (stored < BOX_ACTION.low).any()
        expected = np.clip(stored, BOX_ACTION.low, BOX_ACTION.high)
    np.testing.assert_allclose(np.array(env.actions), expected, atol=1e-5)


@pytest.mark.parametrize("space", [TRANSITION, IMAGE_FIRST], ids=["dict", "image"])
def test_state_dependent_exploration_of_other_observations(space: spaces.Space) -> None:
    model = tiny_model(sampled_vec_env(2, space, BOX_ACTION), use_sde=True, sde_sample_freq=4, clip_range_vf=0.1)
    before = parameters_of(model)
    assert_trained(model.learn(32), before)


@pytest.mark.parametrize(("sde_sample_freq", "expected"), [(-1, 1), (1, 17), (4, 5), (5, 5)])
def test_noise_is_sampled_anew(monkeypatch: pytest.MonkeyPatch, sde_sample_freq: int, expected: int) -> None:
    model = tiny_model(sampled_vec_env(3, VECTOR, BOX_ACTION), use_sde=True, sde_sample_freq=sde_sample_freq)
    calls: list[int] = []
    monkeypatch.setattr(model.policy, "reset_noise", lambda n_envs: calls.append(n_envs))
    model.train = lambda: None
    model.policy.action_dist.sample_weights(model.policy.log_std, batch_size=3)
    model.learn(48)
    assert calls == [3] * expected


def test_state_dependent_exploration_is_for_continuous_actions() -> None:
    with pytest.raises(ValueError, match="eneralized State-Dependent Exploration"):
        tiny_model("CartPole-v1", use_sde=True)
    with pytest.raises(AssertionError, match="use_sde=True"):
        tiny_model("Pendulum-v1", dict(squash_output=True))


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
        dict(rollout_buffer_kwargs=dict(gamma=0.5)),
    ],
    ids=str,
)
def test_arguments_of_ppo(kwargs: dict[str, Any]) -> None:
    if "rollout_buffer_kwargs" in kwargs:  # SB3 passes gamma itself
        with pytest.raises(TypeError, match="multiple values for keyword argument 'gamma'"):
            tiny_model(sampled_vec_env(2), **kwargs)
        return
    model = tiny_model(sampled_vec_env(2), **kwargs)
    before = parameters_of(model)
    model.learn(64)
    assert_trained(model, before)
    n_steps, n_epochs = kwargs.get("n_steps", 16), kwargs.get("n_epochs", 1)
    assert model.logger.name_to_value["train/n_updates"] == n_epochs * 64 // (2 * n_steps)


def test_checks_of_ppo_are_kept() -> None:
    with pytest.raises(AssertionError, match="clip_range_vf"):
        tiny_model("CartPole-v1", clip_range_vf=-0.2)
    with pytest.raises(AssertionError, match="must be greater than 1"):
        tiny_model("CartPole-v1", n_steps=1)
    with pytest.raises(AssertionError, match="batch_size"):
        tiny_model("CartPole-v1", batch_size=1)
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


# -- Policies ---------------------------------------------------------------------------------------------------------


class ScaledFlatten(BaseFeaturesExtractor):
    """A features extractor with a parameter and an argument of its own."""

    def __init__(self, observation_space: spaces.Space, width: int) -> None:
        super().__init__(observation_space, width)
        self.linear = nn.Linear(get_flattened_obs_dim(observation_space), width)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.linear(observations.flatten(1))


class BatchNormDropout(BaseFeaturesExtractor):
    """Flattened observations through batch normalization and dropout."""

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.batch_norm = nn.BatchNorm1d(self.features_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.dropout(self.batch_norm(observations.flatten(1)))


CRITICS = {
    f"{critic_input}-{'shared' if share else 'own'}": dict(critic_input=critic_input, share_features_extractor=share)
    for critic_input in ("memory", "token")
    for share in (True, False)
}


@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_custom_features_extractor(critic: dict[str, Any]) -> None:
    kwargs = dict(features_extractor_class=ScaledFlatten, features_extractor_kwargs=dict(width=5), **critic)
    model = tiny_model(sampled_vec_env(2), kwargs)
    before = parameters_of(model)
    model.learn(32)
    assert_trained(model, before)
    policy = model.policy
    extractors = [module for module in policy.modules() if isinstance(module, ScaledFlatten)]
    assert len(extractors) == (1 if critic["share_features_extractor"] else 2)
    assert all(extractor.linear.out_features == 5 for extractor in extractors)
    assert {name for name in before if "token_extractor.linear" in name} <= changed(before, model)
    assert {name for name in before if "vf_features_extractor.linear" in name} <= changed(before, model)


@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_every_parameter_is_read_and_optimized_once(critic: dict[str, Any]) -> None:
    """Policy and value losses reach the two parameter groups as documented: critic-only parameters and the rest."""
    model = tiny_model(
        sampled_vec_env(2, TRANSITION, BOX_ACTION), {**critic, "n_layers": 2, "embedding_arch": [4]}
    ).learn(32)
    policy = model.policy
    others, critic_only = (group["params"] for group in policy.optimizer.param_groups)
    optimized = [id(parameter) for parameter in (*others, *critic_only)]
    assert sorted(optimized) == sorted(id(parameter) for parameter in policy.parameters())

    batch = next(model.rollout_buffer.get())

    def reached(loss: th.Tensor) -> set[int]:
        policy.zero_grad(set_to_none=True)
        loss.sum().backward()
        return {id(parameter) for parameter in policy.parameters() if parameter.grad is not None}

    by_actor = reached(policy.evaluate_actions(batch.observations, batch.actions)[1])
    by_critic = reached(policy.evaluate_actions(batch.observations, batch.actions)[0])
    assert by_actor | by_critic == set(optimized)
    assert {id(parameter) for parameter in critic_only} == by_critic - by_actor


@pytest.mark.parametrize("critic", **by_name(CRITICS))
def test_critic_learns_at_its_own_rate(critic: dict[str, Any]) -> None:
    model = tiny_model(sampled_vec_env(2), critic, learning_rate=0.0, vf_learning_rate=1e-2)
    before = parameters_of(model)
    model.learn(32)
    critic_only = {id(parameter) for parameter in model.policy.optimizer.param_groups[1]["params"]}
    names = {name for name, parameter in model.policy.named_parameters() if id(parameter) in critic_only}
    moved = changed(before, model)
    assert moved <= names
    # Biases of keys drop out of the softmax, so their gradient is rounding noise or 0
    assert {name for name in names - moved if "attention.key.bias" not in name} == set()


def test_learning_rate_schedules_of_both_groups() -> None:
    model = tiny_model(
        sampled_vec_env(2),
        learning_rate=lambda progress: 1e-3 * progress,
        vf_learning_rate=lambda progress: 5e-2 * progress,
    )
    model.learn(64)  # two updates; the last at progress 0
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == [0.0, 0.0]
    logged = model.logger.name_to_value
    assert logged["train/learning_rate"] == 0.0 and logged["train/vf_learning_rate"] == 0.0
    model._update_current_progress_remaining(1, 2)
    model._update_learning_rate(model.policy.optimizer)
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == pytest.approx([5e-4, 2.5e-2])


@pytest.mark.parametrize(
    "net_arch",
    [[], [4], [4, 4], dict(vf=[16], pi=[8]), dict(vf=[8, 4], pi=[8]), dict(pi=[8]), [dict(vf=[8], pi=[4])]],
    ids=str,
)
@pytest.mark.parametrize("critic_input", ["memory", "token"])
def test_net_arch(net_arch: Any, critic_input: str) -> None:
    kwargs = dict(net_arch=net_arch, critic_input=critic_input, activation_fn=nn.ELU)
    old_format = bool(net_arch) and isinstance(net_arch, list) and isinstance(net_arch[0], dict)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = tiny_model("CartPole-v1", kwargs)
    assert any("shared layers" in str(warning.message) for warning in caught) == old_format
    model.learn(16)
    arch = net_arch[0] if old_format else net_arch
    sizes = {"pi": arch, "vf": arch} if isinstance(arch, list) else {"pi": [], "vf": [], **arch}
    extractor = model.policy.mlp_extractor
    for name, net in (("pi", extractor.policy_net), ("vf", extractor.value_net)):
        assert [layer.out_features for layer in net if isinstance(layer, nn.Linear)] == sizes[name]
        assert all(isinstance(layer, (nn.Linear, nn.ELU)) for layer in net)


@pytest.mark.parametrize(
    ("optimizer_class", "optimizer_kwargs"),
    [
        (th.optim.AdamW, None),
        (th.optim.AdamW, dict(weight_decay=0.5)),
        (th.optim.SGD, dict(momentum=0.9)),
        (RMSpropTFLike, dict(alpha=0.5)),
    ],
)
def test_custom_optimizer(optimizer_class: type[th.optim.Optimizer], optimizer_kwargs: dict[str, Any] | None) -> None:
    kwargs = dict(optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)
    model = tiny_model("Pendulum-v1", kwargs)
    before = parameters_of(model)
    assert_trained(model.learn(32), before)
    assert type(model.policy.optimizer) is optimizer_class
    for group in model.policy.optimizer.param_groups:
        assert (optimizer_kwargs or {}).items() <= group.items()


def test_adam_has_the_epsilon_of_sb3() -> None:
    ours, ppo = tiny_model("CartPole-v1"), PPO("MlpPolicy", "CartPole-v1", device="cpu")
    expected = ppo.policy.optimizer.param_groups[0]["eps"]
    assert [group["eps"] for group in ours.policy.optimizer.param_groups] == [expected] * 2


def test_initialization_arguments() -> None:
    """Heads are orthogonal with SB3's gains, the action head with its own; or as PyTorch makes them."""
    policy = tiny_model("CartPole-v1", dict(action_head_gain=0.5)).policy

    def gains(weight: th.Tensor) -> th.Tensor:
        return th.linalg.svdvals(weight.detach())

    th.testing.assert_close(gains(policy.action_net.weight), th.full((2,), 0.5))
    th.testing.assert_close(gains(policy.value_net.weight), th.ones(1))
    th.testing.assert_close(gains(policy.mlp_extractor.value_net[0].weight), th.full((8,), 2.0**0.5))
    assert (
        gains(tiny_model("CartPole-v1", dict(ortho_init=False)).policy.mlp_extractor.value_net[0].weight).std() > 0.01
    )
    log_std = tiny_model("Pendulum-v1", dict(log_std_init=-1.5)).policy.log_std
    assert log_std.tolist() == [-1.5]


# -- Training and evaluation mode -------------------------------------------------------------------------------------


def batch_norm_of(model: TransformerPPO) -> tuple[th.Tensor, th.Tensor]:
    """:return: Copies of the bias and the running mean of :class:`BatchNormDropout`"""
    (module,) = (module for module in model.policy.modules() if isinstance(module, nn.BatchNorm1d))
    return module.bias.detach().clone(), module.running_mean.clone()  # type: ignore[union-attr]


@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_batch_norm_moves_only_in_training(env_id: str, critic_input: str) -> None:
    model = tiny_model(env_id, dict(features_extractor_class=BatchNormDropout, critic_input=critic_input))
    bias, running_mean = batch_norm_of(model)

    _, callback = model._setup_learn(32)
    for _ in range(2):
        assert model.env is not None
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    assert not model.policy.training
    assert all(th.equal(*pair) for pair in zip(batch_norm_of(model), (bias, running_mean), strict=True))

    model.learn(32)
    assert not any(th.equal(*pair) for pair in zip(batch_norm_of(model), (bias, running_mean), strict=True))

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


# -- Callbacks and logs -----------------------------------------------------------------------------------------------


class RecordLocals(BaseCallback):
    """Notes which local variables of ``collect_rollouts`` a callback sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first_step: set[str] = set()
        self.every_step: set[str] = set()
        self.rollout_end: set[str] = set()
        self.shapes: dict[str, Any] = {}

    def _on_step(self) -> bool:
        seen = set(self.locals)
        self.first_step = self.first_step or seen
        self.every_step |= seen
        assert all(self.model.env.observation_space.contains(obs) for obs in self.locals["new_obs"])  # type: ignore[union-attr]
        last_obs: Any = self.model._last_obs
        assert np.array_equal(self.locals["obs_tensor"].numpy(), last_obs)
        names = ("actions", "clipped_actions", "values", "log_probs", "rewards", "dones", "new_obs")
        self.shapes = {name: tuple(self.locals[name].shape) for name in names}
        return True

    def _on_rollout_end(self) -> None:
        self.rollout_end = set(self.locals)


@pytest.mark.parametrize("action_space", [ACTION_SPACES["discrete"], BOX_ACTION], ids=["discrete", "box"])
def test_locals_of_callbacks(action_space: spaces.Space) -> None:
    """SB3's names, with the same shapes, and the memory besides."""
    records = []
    env = sampled_vec_env(2, VECTOR, action_space)
    ppo = PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    for model in (ppo, tiny_model(env)):
        records.append(RecordLocals())
        model.learn(32, callback=records[-1])
    ppo_locals, ours = records
    # SB3's bootstrap leaves variables of its loop behind
    loop = {"idx", "done", "terminal_obs", "terminal_value"}
    assert ours.first_step - {"memory"} == ppo_locals.first_step - loop
    assert ours.every_step - {"memory"} == ppo_locals.every_step - loop
    assert ours.rollout_end - {"memory"} == ppo_locals.rollout_end - loop
    assert ours.shapes == ppo_locals.shapes


def test_callbacks_see_the_same_locals() -> None:
    inner = RecordLocals()
    event = EveryNTimesteps(n_steps=8, callback=inner)
    model = tiny_model(sampled_vec_env(2))
    callback = model._init_callback([event])
    model.learn(32, callback=callback)
    assert inner.locals["new_obs"] is callback.locals["new_obs"] is event.locals["new_obs"]
    assert event.num_timesteps == model.num_timesteps == 32
    assert event.n_calls == 16
    assert inner.n_calls == 4


def test_checkpoints_and_evaluation(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: IdentityEnvBox(ep_length=5)] * 2))
    evaluation_env = VecNormalize(
        DummyVecEnv([lambda: Monitor(IdentityEnvBox(ep_length=5))] * 3), training=False, norm_reward=False
    )
    model = tiny_model(env, n_steps=8)
    checkpoints = CheckpointCallback(save_freq=8, save_path=str(tmp_path / "checkpoints"), save_vecnormalize=True)
    no_improvement = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1000)
    evaluation = EvalCallback(
        evaluation_env,
        callback_after_eval=no_improvement,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        n_eval_episodes=4,
        eval_freq=4,
    )
    model.learn(32, callback=[checkpoints, evaluation])
    assert sorted(os.listdir(tmp_path / "checkpoints")) == sorted(
        f"rl_model_{suffix}" for n in (16, 32) for suffix in (f"{n}_steps.zip", f"vecnormalize_{n}_steps.pkl")
    )
    assert TransformerPPO.load(tmp_path / "checkpoints" / "rl_model_32_steps").num_timesteps == 32
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) == 4
    TransformerPPO.load(tmp_path / "best_model.zip", env=env).learn(16)
    # EvalCallback hands the statistics of the training environments over
    env_obs_rms: Any = env.obs_rms
    evaluation_obs_rms: Any = evaluation_env.obs_rms
    assert env_obs_rms.mean.shape == evaluation_obs_rms.mean.shape and not np.allclose(evaluation_obs_rms.mean, 0.0)


def test_training_stops_at_a_reward() -> None:
    evaluation_env = DummyVecEnv([lambda: Monitor(IdentityEnv(1, ep_length=5))])
    stop = StopTrainingOnRewardThreshold(reward_threshold=5.0)
    model = tiny_model(IdentityEnv(1)).learn(
        64, callback=EvalCallback(evaluation_env, callback_on_new_best=stop, eval_freq=3, n_eval_episodes=2)
    )
    assert model.num_timesteps == 3


def test_training_stops_at_a_number_of_episodes() -> None:
    env = make_vec_env("Pendulum-v1", n_envs=2, env_kwargs=dict(max_episode_steps=10))
    callback = StopTrainingOnMaxEpisodes(max_episodes=1)
    model = tiny_model(env).learn(64, callback=callback)
    assert callback.n_episodes == 2 and model.num_timesteps == 20


@pytest.mark.parametrize("verdict", [False, np.bool_(0), th.tensor(0, dtype=th.bool)], ids=["bool", "numpy", "torch"])
def test_callbacks_cancel_runs(verdict: Any) -> None:
    model = tiny_model("Pendulum-v1").learn(64, callback=lambda *_: verdict)
    assert model.num_timesteps == 1


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
@pytest.mark.parametrize("n_steps", [1, 7, 21])
def test_learning_goes_on_after_a_cancelled_rollout(space: spaces.Space, n_steps: int) -> None:
    """Before the first gradient step the policy still gives the probabilities of collection."""
    model = tiny_model(sampled_vec_env(2, space)).learn(
        320, callback=lambda locals_, _: locals_["self"].num_timesteps < 2 * n_steps
    )
    assert model.num_timesteps == 2 * n_steps
    model.train = lambda: None
    model.learn(32, reset_num_timesteps=False)
    for batch in model.rollout_buffer.get(16):
        with th.no_grad():
            values, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions.flatten())
        th.testing.assert_close(log_prob, batch.old_log_prob, rtol=0.0, atol=1e-5)
        th.testing.assert_close(values.flatten(), batch.old_values, rtol=0.0, atol=1e-5)
    del model.train
    before = parameters_of(model)
    model.learn(32, reset_num_timesteps=False)
    assert_trained(model, before)


def test_progress_bar() -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("rich")
    assert tiny_model("CartPole-v1").learn(32, progress_bar=True).num_timesteps == 32


@pytest.mark.parametrize("kwargs", [{}, dict(clip_range_vf=0.1)], ids=str)
@pytest.mark.parametrize("action_space", [ACTION_SPACES["discrete"], BOX_ACTION], ids=["discrete", "box"])
def test_logged_keys(tmp_path: Path, action_space: spaces.Space, kwargs: dict[str, Any]) -> None:
    """All of PPO's and no others, but for the critic's own learning rate."""
    keys = []
    ppo = PPO("MlpPolicy", Monitor(SampledEnv(VECTOR, action_space)), n_steps=16, batch_size=16, device="cpu", **kwargs)
    for model in (
        ppo,
        tiny_model(Monitor(SampledEnv(VECTOR, action_space)), **kwargs),
        tiny_model(Monitor(SampledEnv(VECTOR, action_space)), vf_learning_rate=1e-3, **kwargs),
    ):
        logger = configure(str(tmp_path), [])
        recorded: set[str] = set()
        dump = logger.dump

        def spy(step: int = 0, recorded: set[str] = recorded, logger: Any = logger, dump: Any = dump) -> None:
            recorded.update(logger.name_to_value)
            dump(step)

        logger.dump = spy  # type: ignore[method-assign]
        model.set_logger(logger)
        model.learn(48)
        keys.append(recorded)
    assert len(keys[0]) > 12 and "rollout/ep_rew_mean" in keys[0]
    assert keys[1] == keys[0]
    assert keys[2] == keys[0] | {"train/vf_learning_rate"}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = tiny_model("CartPole-v1", tensorboard_log=str(tmp_path))
    model.learn(32)
    model.learn(32, tb_log_name="again")
    assert sorted(os.listdir(tmp_path)) == ["TransformerPPO_1", "again_1"]


def test_statistics_of_episodes() -> None:
    """Monitor's episodes reach the model, the newest ``stats_window_size`` of them."""
    env = make_vec_env(lambda: SampledEnv(length=2), n_envs=2)
    model = tiny_model(env, stats_window_size=3).learn(64)
    assert model.ep_info_buffer is not None and len(model.ep_info_buffer) == 3
    assert all(info["l"] in (2, 3) for info in model.ep_info_buffer)


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


def test_default_token_extractors() -> None:
    """SB3's choice for each observation: its CNN for images, nothing but flattening for the rest."""
    for space, expected in (
        (VECTOR, FlattenExtractor),
        (IMAGE_FIRST, NatureCNN),
        (OBSERVATION_SPACES["box-small-image"], FlattenExtractor),
    ):
        assert type(tiny_model(SampledEnv(space)).policy.pi_features_extractor.token_extractor) is expected
