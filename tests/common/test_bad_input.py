"""Numbers that are not finite, environments that SB3 refuses, and unusual arguments that are right."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.helpers.agents import TRANSITION, VECTOR, SampledEnv, tiny_model


@pytest.mark.parametrize("positional_encoding", ["learned", "none"])
def test_odd_width_without_sinusoids_is_fine(positional_encoding: str) -> None:
    model = tiny_model("CartPole-v1", dict(d_model=7, n_heads=1, positional_encoding=positional_encoding))
    assert model.learn(16).num_timesteps == 16


@pytest.mark.parametrize("value", [np.int64(3), np.int32(3)])
def test_integers_of_numpy_are_fine(value: Any) -> None:
    model = tiny_model("CartPole-v1", dict(context_length=value, n_layers=value), n_steps=value, batch_size=2)
    assert model.learn(3).num_timesteps == 3


# -- Numbers that are not finite --------------------------------------------------------------------------------------


class PoisonedEnv(SampledEnv):
    """
    An environment with one bad number.

    :param where: ``"reward"``, ``"observation"``, ``"first observation"`` or ``"terminal observation"``
    :param value: The bad number
    """

    def __init__(self, where: str, value: float, observation_space: spaces.Space = VECTOR) -> None:
        super().__init__(observation_space, length=7)
        self.where, self.value = where, value

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        return self._poison(observation, self.where == "first observation"), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.where == "terminal observation":
            return self._poison(observation, truncated), reward, terminated, truncated, info
        bad = self.n_steps == 4
        reward = self.value if bad and self.where == "reward" else reward
        return self._poison(observation, bad and self.where == "observation"), reward, terminated, truncated, info

    def _poison(self, observation: Any, bad: bool) -> Any:
        if bad:
            (observation["prev_reward"] if isinstance(observation, dict) else observation)[-1] = self.value
        return observation


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
@pytest.mark.parametrize("where", ["reward", "observation", "first observation", "terminal observation"])
def test_non_finite_numbers_while_collecting(where: str, space: spaces.Space, value: float) -> None:
    """The message says which environment it was; no weight has changed."""
    sound: Callable[[], gym.Env] = lambda: SampledEnv(space, length=7)  # noqa: E731
    model = tiny_model(DummyVecEnv([sound, sound, lambda: PoisonedEnv(where, value, space)]), n_steps=32)
    weights = {name: weight.clone() for name, weight in model.policy.state_dict().items()}
    key = r"\['prev_reward'\]" if space is TRANSITION and where != "reward" else ""
    name = where.removeprefix("first ")
    with pytest.raises(ValueError, match=rf"non-finite {name}{key} from environment 2: .*{str(value).strip('-')}"):
        model.learn(96)
    assert all(th.equal(weight, weights[name]) for name, weight in model.policy.state_dict().items())


def test_training_goes_on_after_a_refused_number() -> None:
    """A fault that was caught costs the rollout, not the model."""
    env = PoisonedEnv("reward", np.nan)
    model = tiny_model(env)
    with pytest.raises(ValueError, match="non-finite reward from environment 0"):
        model.learn(16)
    env.where = "nowhere"
    model.learn(32)
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_non_finite_numbers_under_vec_normalize(where: str) -> None:
    """VecNormalize mixes a NaN into the statistics of all environments; the one that it came from is named."""
    env = VecNormalize(DummyVecEnv([SampledEnv, lambda: PoisonedEnv(where, np.nan)]))
    with pytest.raises(ValueError, match=f"non-finite {where} from environment 1"):
        tiny_model(env).learn(32)


# -- Environments -----------------------------------------------------------------------------------------------------


class TupleEnv(SampledEnv):
    """Tuple observations, which SB3 does not know."""

    def __init__(self) -> None:
        super().__init__(spaces.Tuple([VECTOR, VECTOR]))


@pytest.mark.parametrize(
    "env",
    [
        TupleEnv,
        lambda: SampledEnv(spaces.Sequence(VECTOR)),
        lambda: SampledEnv(spaces.Text(4)),
        lambda: SampledEnv(VECTOR, spaces.Tuple([VECTOR])),
        lambda: SampledEnv(VECTOR, spaces.Box(-np.inf, np.inf, (2,))),
        lambda: "NoSuchEnv-v0",
    ],
    ids=["tuple", "sequence", "text", "tuple action", "unbounded action", "unknown id"],
)
def test_environments_that_ppo_refuses(env: Callable[[], Any]) -> None:
    """The same kind of error as from SB3's PPO, or a ValueError that explains what is wrong with a space."""
    with pytest.raises(Exception) as expected:
        PPO("MlpPolicy", env(), n_steps=16, batch_size=16, device="cpu")
    with pytest.raises((type(expected.value), ValueError)):
        tiny_model(env())


def test_state_dependent_exploration_needs_continuous_actions() -> None:
    with pytest.raises(ValueError, match="continuous actions"):
        tiny_model(make_vec_env("CartPole-v1"), use_sde=True)
