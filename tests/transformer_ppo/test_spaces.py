"""What SB3's and sb3-contrib's own suites ask of PPO and RecurrentPPO: spaces, environments, exploration."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)

from sb3_trmrl.memory.working_memory import WorkingMemory, map_tokens
from sb3_trmrl.transformer_ppo import TrMRLPolicy
from tests.helpers.agents import (
    ACTION_SPACES,
    BOX_ACTION,
    IMAGE_FIRST,
    IMAGE_LAST,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    SampledEnv,
    assert_equal_weights,
    assert_trained,
    by_name,
    changed,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)

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
    with pytest.raises(error):
        PPO("MultiInputPolicy", env)
    with pytest.raises((error, ValueError)):
        tiny_model(env)


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
