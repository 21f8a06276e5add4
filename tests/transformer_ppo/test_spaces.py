"""What the test suites of SB3 and sb3-contrib check for PPO and RecurrentPPO: spaces, environments and wrappers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
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
    by_name,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import assert_learns

#: The full-context memory, with an action head that is not almost constant
FULL: dict[str, Any] = dict(memory="full", positional_encoding="sinusoidal", log_std_init=-1.0, action_head_gain=1.0)

# -- Spaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_kwargs", [dict(critic_input="memory"), dict(critic_input="token"), FULL], ids=str)
@pytest.mark.parametrize("space", **by_name(OBSERVATION_SPACES))
def test_observation_spaces(space: spaces.Space[Any], policy_kwargs: dict[str, Any]) -> None:
    """Both heads depend on the observation."""
    model = tiny_model(sampled_vec_env(2, space), policy_kwargs)
    assert_learns(model, 64)
    assert model.num_timesteps == 64
    evaluate_policy(model, sampled_vec_env(3, space), n_eval_episodes=3, warn=False)
    space.seed(0)
    samples = [model.policy.obs_to_tensor(space.sample())[0] for _ in range(9)]
    with th.no_grad():
        assert len({model.policy.predict_values(sample).item() for sample in samples}) > 2
        assert len({model.policy.get_distribution(sample).distribution.logits[0, 0].item() for sample in samples}) > 2


@pytest.mark.parametrize(
    ("observation_space", "policy_kwargs"),
    [(VECTOR, {}), (OBSERVATION_SPACES["box-float64"], {}), (TRANSITION, {}), (TRANSITION, FULL)],
    ids=["box", "box-float64", "dict", "dict-full"],
)
@pytest.mark.parametrize("space", **by_name(ACTION_SPACES))
def test_action_spaces(
    space: spaces.Space[Any], observation_space: spaces.Space[Any], policy_kwargs: dict[str, Any]
) -> None:
    """The environments check that actions are in their action space."""
    model = tiny_model(sampled_vec_env(2, observation_space, space), policy_kwargs)
    assert_learns(model, 64)
    evaluate_policy(model, sampled_vec_env(3, observation_space, space), n_eval_episodes=3, warn=False)


@pytest.mark.parametrize(
    ("policy", "observation_space", "action_space"),
    [
        ("MultiInputPolicy", VECTOR, spaces.MultiBinary([2, 3])),
        ("MultiInputPolicy", spaces.Dict(nested=spaces.Dict(vector=VECTOR)), spaces.Discrete(2)),
        ("MultiInputPolicy", VECTOR, spaces.Dict(vector=VECTOR)),
        ("MlpPolicy", spaces.Tuple([VECTOR, VECTOR]), spaces.Discrete(2)),
        ("MlpPolicy", spaces.Sequence(VECTOR), spaces.Discrete(2)),
        ("MlpPolicy", spaces.Text(4), spaces.Discrete(2)),
        ("MlpPolicy", VECTOR, spaces.Tuple([VECTOR])),
        ("MlpPolicy", VECTOR, spaces.Box(-np.inf, np.inf, (2,))),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_spaces_that_ppo_refuses(
    policy: str, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """As SB3's PPO, or with a ValueError that says what to do about the space."""
    with pytest.raises((AssertionError, NotImplementedError, TypeError, ValueError)) as expected:
        PPO(policy, SampledEnv(observation_space, action_space), device="cpu")
    with pytest.raises((expected.type, ValueError)):
        tiny_model(SampledEnv(observation_space, action_space))


def test_unknown_environment_id() -> None:
    with pytest.raises(gym.error.NameNotFound):
        tiny_model("NoSuchEnv-v0")


def test_dict_of_one_vector_equals_the_vector() -> None:
    """Dict observations pass through no further layers: the same seed gives the same weights after training."""
    as_dict = tiny_model(sampled_vec_env(2, spaces.Dict(vector=VECTOR))).learn(64)

    # A Dict space seeds its subspace with a number drawn from the seed, so the environments are wrapped instead
    def flat_env(length: int) -> gym.Env:
        return gym.wrappers.FlattenObservation(SampledEnv(spaces.Dict(vector=VECTOR), length=length))

    flat = tiny_model(DummyVecEnv([partial(flat_env, length) for length in (5, 6)])).learn(64)
    for ours, others in zip(as_dict.policy.parameters(), flat.policy.parameters(), strict=True):
        assert th.equal(ours, others)


# -- Environments and wrappers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("as_string", [True, False])
def test_environment_is_made_and_monitored(env_id: str, as_string: bool) -> None:
    model = tiny_model(env_id if as_string else gym.make(env_id))
    assert_learns(model)
    assert model.get_env().env_is_wrapped(Monitor) == [True]


def test_vec_env_kinds_give_the_same_model() -> None:
    """SubprocVecEnv keeps integer rewards, DummyVecEnv turns them into floats. Bootstrapped rewards are fractions."""
    models = []
    env_fns: list[Callable[[], gym.Env]] = [partial(SampledEnv, length=length, reward=1) for length in (3, 4)]
    for vec_env_class in (DummyVecEnv, SubprocVecEnv):
        env: VecEnv = vec_env_class(env_fns)
        models.append(tiny_model(env).learn(64))
        env.close()
    assert_equal_weights(models[0], models[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_vec_normalize(space: spaces.Space[Any]) -> None:
    keys = ["observation", "prev_reward", "prev_done"] if space is TRANSITION else None
    env = VecNormalize(sampled_vec_env(2, space), norm_obs_keys=keys, clip_obs=2.0)
    model = tiny_model(env)
    assert_learns(model, 64)
    assert model.get_vec_normalize_env() is env
    # The memory holds what the policy has seen: normalized observations
    tokens, last_obs = model.rollout_buffer.tokens, model._last_obs
    seen, newest = (tokens["observation"], last_obs["observation"]) if keys else (tokens, last_obs)
    assert np.abs(seen).max() <= 2.0 and np.abs(newest).max() <= 2.0
    assert np.abs(seen).max() > 1.0, "raw observations lie within 1"
    # Evaluation neither updates statistics nor needs the training environments
    evaluation_env = VecNormalize(sampled_vec_env(3, space), training=False, norm_reward=False, norm_obs_keys=keys)
    evaluation_env.obs_rms = env.obs_rms
    evaluate_policy(model, evaluation_env, n_eval_episodes=4, warn=False)


@pytest.mark.parametrize("space", [VECTOR, IMAGE_FIRST, IMAGE_LAST, TRANSITION], ids=["box", "first", "last", "dict"])
def test_vec_frame_stack(space: spaces.Space[Any]) -> None:
    assert_learns(tiny_model(VecFrameStack(sampled_vec_env(2, space), n_stack=2)))


def test_multi_observation_environment() -> None:
    model = tiny_model(make_vec_env(lambda: SimpleMultiObsEnv(num_col=2, num_row=2), n_envs=2))
    assert_learns(model)
    evaluate_policy(model, model.get_env(), n_eval_episodes=2)


# -- Images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic_input", ["memory", "token"])
def test_images_already_normalized(critic_input: str) -> None:
    """As in SB3, a CNN only accepts the floats of VecNormalize with ``normalize_images=False``."""
    env = VecNormalize(sampled_vec_env(1, IMAGE_FIRST))
    kwargs = dict(features_extractor_class=NatureCNN, features_extractor_kwargs=dict(features_dim=8))
    kwargs.update(critic_input=critic_input)
    with pytest.raises(AssertionError):
        tiny_model(env, dict(kwargs, normalize_images=True))
    assert_learns(tiny_model(env, dict(kwargs, normalize_images=False)))
    policy = tiny_model(env, dict(normalize_images=False)).policy
    assert isinstance(policy.pi_features_extractor.token_extractor, NatureCNN)


def test_frame_stack_of_many_channels_keeps_its_order() -> None:
    """SB3 would take 50 channels of 41 x 40 pixels for channels-last images if the transposition was not skipped."""
    env: Any = DummyVecEnv([lambda: FakeImageEnv(screen_height=41, screen_width=40, n_channels=10, channel_first=True)])
    env = VecTransposeImage(VecFrameStack(env, 5, channels_order="first"), skip=True)
    model = tiny_model(env, dict(features_extractor_class=NatureCNN, features_extractor_kwargs=dict(features_dim=8)))
    model.learn(16)
    assert model.rollout_buffer.tokens.shape[2:] == (50, 41, 40)


def test_images_are_transposed_once() -> None:
    """Channels-last environments are wrapped. ``predict`` takes images of either order."""
    window = dict(memory="window", action_head_gain=1.0)  # its state holds the images
    last, first = (tiny_model(SampledEnv(space, BOX_ACTION), window) for space in (IMAGE_LAST, IMAGE_FIRST))
    assert is_vecenv_wrapped(last.get_env(), VecTransposeImage)
    assert not is_vecenv_wrapped(first.get_env(), VecTransposeImage)
    assert_equal_weights(first, last)
    images = np.stack([IMAGE_LAST.sample() for _ in range(3)])
    transposed = np.transpose(images, (0, 3, 1, 2))
    outcomes = []
    for model, observations in ((last, images), (last, transposed), (first, transposed)):
        actions, state = model.predict(observations, episode_start=np.ones(3, bool), deterministic=True)
        assert np.array_equal(state.tokens[:, 0], transposed)
        single, state = model.predict(observations[0], episode_start=np.ones(1, bool), deterministic=True)
        assert np.array_equal(state.tokens[0, 0], transposed[0])
        np.testing.assert_allclose(single, actions[0], atol=1e-5)
        outcomes.append(actions)
    assert np.array_equal(outcomes[0], outcomes[1]) and np.array_equal(outcomes[0], outcomes[2])
    for model in (first, last):
        model.learn(16)
