"""State-dependent exploration (gSDE), as the test suites of SB3 and sb3-contrib check it for PPO and RecurrentPPO."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from tests.helpers.agents import (
    BOX_ACTION,
    IMAGE_FIRST,
    TRANSITION,
    VECTOR,
    SampledEnv,
    changed,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.learning import assert_learns


@pytest.mark.parametrize("squash_output", [True, False])
@pytest.mark.parametrize("use_expln", [True, False])
@pytest.mark.parametrize("full_std", [True, False])
def test_state_dependent_exploration(full_std: bool, use_expln: bool, squash_output: bool) -> None:
    """The environment gets the actions of the buffer, rescaled or clipped to its bounds."""
    env = SampledEnv(VECTOR, BOX_ACTION)
    kwargs = dict(log_std_init=0.5, full_std=full_std, use_expln=use_expln, squash_output=squash_output)
    model = tiny_model(env, kwargs, use_sde=True, n_steps=32)
    before = assert_learns(model)
    assert "log_std" in changed(before, model)
    assert model.policy.log_std.shape == ((64, 2) if full_std else (64, 1))
    stored = model.rollout_buffer.actions[:, :2]
    if squash_output:
        assert np.abs(stored).max() <= 1.0
        expected = BOX_ACTION.low + (stored + 1.0) / 2.0 * (BOX_ACTION.high - BOX_ACTION.low)
    else:
        assert (stored > BOX_ACTION.high).any() or (stored < BOX_ACTION.low).any()
        expected = np.clip(stored, BOX_ACTION.low, BOX_ACTION.high)
    np.testing.assert_allclose(np.array(env.actions), expected, atol=1e-5)


@pytest.mark.parametrize("space", [TRANSITION, IMAGE_FIRST], ids=["dict", "image"])
def test_other_observations(space: spaces.Space[Any]) -> None:
    env = sampled_vec_env(2, space, BOX_ACTION)
    assert_learns(tiny_model(env, use_sde=True, sde_sample_freq=4, clip_range_vf=0.1))


@pytest.mark.parametrize(("sde_sample_freq", "expected"), [(-1, 1), (1, 17), (4, 5), (5, 5)])
def test_noise_is_sampled_again(monkeypatch: pytest.MonkeyPatch, sde_sample_freq: int, expected: int) -> None:
    model = tiny_model(sampled_vec_env(3, VECTOR, BOX_ACTION), use_sde=True, sde_sample_freq=sde_sample_freq)
    calls: list[int] = []
    monkeypatch.setattr(model.policy, "reset_noise", calls.append)
    model.train = lambda: None
    model.policy.action_dist.sample_weights(model.policy.log_std, batch_size=3)
    model.learn(48)
    assert calls == [3] * expected


@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize("squash_output", [True, False])
def test_predict_for_any_number_of_environments(n_envs: int, squash_output: bool) -> None:
    space = spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([0.0, 9.0], np.float32))
    model = tiny_model(sampled_vec_env(2, VECTOR, space), dict(squash_output=squash_output), use_sde=True).learn(32)
    observations = np.zeros((n_envs, 3), np.float32)
    for deterministic in (True, False):
        actions, _ = model.predict(observations, None, np.ones(n_envs, bool), deterministic=deterministic)
        assert all(space.contains(action) for action in actions)


def test_continuous_actions_only() -> None:
    with pytest.raises(ValueError, match=r"eneralized State-Dependent Exploration .* continuous actions"):
        tiny_model("CartPole-v1", use_sde=True)
    with pytest.raises(AssertionError, match="use_sde=True"):
        tiny_model("Pendulum-v1", dict(squash_output=True))
