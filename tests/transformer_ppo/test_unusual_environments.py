"""Environments and habits that PPO does not expect: spaces, resets by others, another algorithm with this policy."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from sb3_trmrl import PreviousTransitionObservation, TransformerPPO, TrMRLPolicy
from tests.helpers.agents import BOX_ACTION, VECTOR, SampledEnv, sampled_vec_env, tiny_model
from tests.helpers.sac import tiny_sac

FIRST_CLASS = "whose first class is not 0"


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (VECTOR, spaces.Discrete(3, start=-1), FIRST_CLASS),
        (VECTOR, spaces.MultiDiscrete([3, 2], start=[0, 1]), FIRST_CLASS),
        (spaces.Discrete(3, start=2), spaces.Discrete(2), FIRST_CLASS),
        (spaces.Dict({"place": spaces.Discrete(3, start=2)}), spaces.Discrete(2), r"'place'.*" + FIRST_CLASS),
        (spaces.Tuple([VECTOR, VECTOR]), spaces.Discrete(2), "FlattenObservation"),
        (spaces.Text(4), spaces.Discrete(2), "FlattenObservation"),
        (spaces.Sequence(VECTOR), spaces.Discrete(2), "TransformObservation"),
        (spaces.Dict({"image": VECTOR, "mission": spaces.Text(4)}), spaces.Discrete(2), r"'mission'.*ImgObsWrapper"),
        (spaces.Dict({"inner": spaces.Dict({"x": VECTOR})}), spaces.Discrete(2), r"'inner'.*FlattenObservation"),
        (VECTOR, spaces.Tuple([spaces.Discrete(2)]), "TransformAction"),
        (VECTOR, spaces.Dict({"x": spaces.Discrete(2)}), "TransformAction"),
    ],
    ids=str,
)
def test_spaces_are_refused_at_construction(observation: Any, action: Any, message: str) -> None:
    """The message names the space and a wrapper that helps."""
    with pytest.raises(ValueError, match=message):
        tiny_model(SampledEnv(observation, action))


def test_previous_actions_of_a_shifted_space() -> None:
    """The wrapper does not hide the first class of the actions."""
    with pytest.raises(ValueError, match=FIRST_CLASS):
        tiny_model(PreviousTransitionObservation(SampledEnv(VECTOR, spaces.Discrete(3, start=1))))


class NumberedEpisodes(SampledEnv):
    """Observations tell the number of the episode."""

    def _observe(self) -> Any:
        return np.full(3, self.n_episodes, np.float32)


class EvaluateHere(BaseCallback):
    """Plays an episode in the training environment at the end of each rollout."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        evaluate_policy(self.model, self.training_env, n_eval_episodes=1, warn=False)


def make_env(kind: str) -> VecEnv:
    if kind == "subprocess":
        return SubprocVecEnv([NumberedEpisodes] * 2)
    env = sampled_vec_env(2)
    for inner in env.envs:  # type: ignore[attr-defined]
        inner.unwrapped.__class__ = NumberedEpisodes
    return VecNormalize(env, norm_obs=False) if kind == "normalized" else env


@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize("kind", ["same process", "subprocess", "normalized"])
def test_evaluation_in_the_training_environment(kind: str, memory: str) -> None:
    """New episodes begin, with a warning, so that no memory holds tokens of two episodes."""
    env = make_env(kind)
    model = tiny_model(env, dict(memory=memory), n_steps=16)
    model.train = lambda: None  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="was reset between two rollouts"):
        model.learn(64, callback=EvaluateHere())
    batch = next(model.rollout_buffer.get())
    assert model.rollout_buffer.episode_starts[0].all()
    numbers = np.asarray(batch.observations.tokens)[:, 0]
    if memory == "window":
        windows = zip(batch.observations.index, batch.observations.lengths, strict=True)
        assert all(len(set(numbers[rows[:length]])) == 1 for rows, length in windows)
    else:
        ends = np.cumsum(batch.observations.lengths)[:-1]
        assert all(len(set(sequence)) == 1 for sequence in np.split(numbers, ends))
    env.close()


def test_a_callback_must_not_reset_the_training_environment_within_a_rollout() -> None:
    env = sampled_vec_env(2)
    model = tiny_model(env, n_steps=16)
    with pytest.raises(ValueError, match="`callback` must not reset the training environment"):
        model.learn(64, callback=EvalCallback(env, eval_freq=3, n_eval_episodes=1, verbose=0, warn=False))


class Interrupted(BaseCallback):
    """Ctrl-C within a rollout."""

    def _on_step(self) -> bool:
        if self.n_calls == 7:
            raise KeyboardInterrupt
        return True


@pytest.mark.parametrize("make", [tiny_model, tiny_sac])
def test_learning_after_an_interrupted_rollout_begins_new_episodes(make: Callable[..., Any]) -> None:
    """The environment is a step ahead of the last observation."""
    model = make(sampled_vec_env(2, VECTOR, BOX_ACTION))
    with pytest.raises(KeyboardInterrupt):
        model.learn(64, callback=Interrupted())
    assert model._last_obs is None
    n_resets = [env.unwrapped.n_episodes for env in model.env.envs]
    model.learn(4, reset_num_timesteps=False)
    assert all(env.unwrapped.n_episodes > before for env, before in zip(model.env.envs, n_resets, strict=True))


def test_evaluation_in_the_training_environment_of_sac() -> None:
    env = DummyVecEnv([partial(NumberedEpisodes, VECTOR, BOX_ACTION)] * 2)
    model = tiny_sac(env, gradient_steps=0)
    model.learn(14)
    evaluate_policy(model, env, n_eval_episodes=1, warn=False)
    with pytest.warns(UserWarning, match="was reset between two rollouts"):
        model.learn(30, reset_num_timesteps=False)
    buffer = model.replay_buffer
    for numbers, lengths, is_transition in zip(
        buffer.tokens[..., 0], buffer.lengths, buffer.is_transition, strict=True
    ):
        rows = np.flatnonzero(is_transition)
        assert len(rows) == 22 and np.array_equal(numbers[rows], numbers[rows + 1])
        assert all(len(set(numbers[row + 1 - lengths[row] : row + 1])) == 1 for row in rows)


def test_a_model_that_is_set_up_later_is_the_same() -> None:
    env = sampled_vec_env(2)
    model = TransformerPPO("TrMRLPolicy", env, policy_kwargs=dict(d_model=8, n_heads=2), _init_setup_model=False)
    model._setup_model()
    assert model.policy.memory == TransformerPPO("TrMRLPolicy", env, policy_kwargs=model.policy_kwargs).policy.memory
    assert model.policy_kwargs == dict(d_model=8, n_heads=2)


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_undisturbed_training_does_not_warn(reset_num_timesteps: bool) -> None:
    model = tiny_model(sampled_vec_env(2))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the training environment was reset")
        for _ in range(2):
            model.learn(96, reset_num_timesteps=reset_num_timesteps)
        model.set_env(sampled_vec_env(2))
        model.learn(64, reset_num_timesteps=reset_num_timesteps)


@pytest.mark.parametrize("algorithm", [partial(PPO, batch_size=16), A2C], ids=["PPO", "A2C"])
def test_other_algorithms_are_told_to_use_transformer_ppo(algorithm: Any) -> None:
    """They would train a policy that never sees more than one token."""
    with pytest.raises(TypeError, match=r"Train it with sb3_trmrl\.TransformerPPO"):
        algorithm(TrMRLPolicy, "CartPole-v1", n_steps=16, device="cpu").learn(16)


@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize("settings", [{}, {"use_sde": True}], ids=["plain", "gsde"])
def test_deepcopy_of_a_trained_policy(settings: dict[str, Any], memory: str) -> None:
    """An independent copy, as for populations of agents: same actions, own weights, own optimizer."""
    env = sampled_vec_env(2, VECTOR, BOX_ACTION)
    model: TransformerPPO = tiny_model(env, dict(memory=memory), **settings).learn(64)
    copied = copy.deepcopy(model.policy)
    observations, starts = env.reset(), np.ones(2, bool)
    for deterministic in (True, False):
        actions = []
        for policy in (model.policy, copied):
            th.manual_seed(0)
            actions.append(policy.predict(observations, None, starts, deterministic)[0])
        np.testing.assert_array_equal(*actions)
    with th.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert all(bool(parameter.any()) for parameter in model.policy.action_net.parameters())
    held = {id(parameter) for group in copied.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in copied.parameters()}


def test_predict_computes_in_evaluation_mode() -> None:
    """Dropout is off and statistics of batch normalization stay, right after an update and in a new model."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from torch import nn

    class Noisy(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Space[Any]) -> None:
            super().__init__(space, 3)
            self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3), nn.Dropout(0.5))

        def forward(self, observations: th.Tensor) -> th.Tensor:
            features: th.Tensor = self.layers(observations)
            return features

    for memory in ("window", "full"):
        model = tiny_model(sampled_vec_env(2), dict(memory=memory, features_extractor_class=Noisy)).learn(64)
        model.policy.set_training_mode(True)
        norm: Any = model.policy.pi_features_extractor.token_extractor.layers[1]  # type: ignore[index]
        before = norm.running_mean.clone()
        alone = np.ones((1, 3), np.float32)  # batch normalization cannot train on a single observation
        first, second = (model.predict(alone, None, np.ones(1, bool), deterministic=True)[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        th.testing.assert_close(norm.running_mean, before, atol=0, rtol=0)


class SilentAttributes(DummyVecEnv):
    """Like vectorised environments outside SB3 that have no environments inside: each attribute is None."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [None] * self.num_envs


def test_environments_that_answer_none_for_every_attribute_are_not_masked() -> None:
    env = SilentAttributes([partial(SampledEnv, VECTOR, spaces.Discrete(2))] * 2)
    model = tiny_model(env, {})
    model.learn(model.n_steps * 2)
    assert not model.uses_action_masks
