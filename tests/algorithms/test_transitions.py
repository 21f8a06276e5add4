"""Tokens of every family, split into state and previous transition."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

import sb3_trmrl
from sb3_trmrl.algorithms.transitions import TokenReader


@pytest.mark.parametrize("env_id", ["BernoulliBandit-v0", "TabularMDP-v0", "GridNavi-v0", "HalfCheetahVel-v0"])
@pytest.mark.parametrize("reveal_task", [False, True])
def test_the_parts_of_a_token(env_id: str, reveal_task: bool) -> None:
    env = make_vec_env(env_id, 3, seed=0, env_kwargs={"reveal_task": reveal_task})
    read = TokenReader(env.observation_space)
    env.reset()
    env.action_space.seed(0)
    actions = np.array([env.action_space.sample() for _ in range(3)])
    observations, rewards, _, _ = env.step(actions)
    assert isinstance(observations, dict)
    token = read({key: th.as_tensor(value) for key, value in observations.items()})
    assert token.state.shape == (3, read.state_dim) and token.prev_action.shape == (3, read.action_dim)
    assert all(part.dtype == th.float32 for part in token)
    assert np.allclose(token.prev_reward[:, 0], rewards) and not token.prev_done.any()
    n = env.action_space.n if isinstance(env.action_space, spaces.Discrete) else None
    assert np.allclose(token.prev_action, actions if n is None else np.eye(n)[actions])
    state = observations["observation"]
    expected = np.eye(10)[state] if env_id == "TabularMDP-v0" else state.reshape(3, -1)
    if reveal_task:
        expected = np.concatenate([expected, observations["task"]], axis=1)
    assert np.allclose(token.state, expected)


def test_other_observations_are_refused() -> None:
    plain = gym.make("CartPole-v1")
    with pytest.raises(TypeError, match="PreviousTransitionObservation"):
        TokenReader(plain.observation_space)
    space = sb3_trmrl.PreviousTransitionObservation(plain).observation_space
    assert isinstance(space, spaces.Dict)
    for key in (*space.spaces,):
        partly = spaces.Dict({name: value for name, value in space.spaces.items() if name != key})
        with pytest.raises(ValueError, match="PreviousTransitionObservation"):
            TokenReader(partly)
