"""The rollout buffer and the memory hold what the policy acted on, whatever type and arrays the environment uses."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from sb3_trmrl.memory.tokens import map_tokens
from tests.helpers.agents import SampledEnv, sampled_vec_env, tiny_model

MEMORIES = ["window", "full"]


def collected(model: TransformerPPO, n_rollouts: int = 2) -> Any:
    """Collect rollouts without updating, and return the transitions of the last one."""
    model.train = lambda: None  # type: ignore[method-assign]
    model.learn(n_rollouts * model.n_steps * model.n_envs)
    return next(model.rollout_buffer.get())


def assert_on_policy(model: TransformerPPO, batch: Any) -> None:
    """The update computes the log probabilities that were computed while acting."""
    actions = batch.actions
    if isinstance(model.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    with th.no_grad():
        _, log_prob, _ = model.policy.evaluate_actions(batch.observations, actions)
    th.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_normalized_observations_are_stored_as_floats(dtype: type[np.generic], memory: str) -> None:
    """VecNormalize returns floats, whatever type the space declares. Over several rollouts, some tokens are carried."""
    env = VecNormalize(sampled_vec_env(2, spaces.Box(0, 100, (3,), dtype)))
    returned = [env.reset()]
    step = env.step_wait

    def recorded_step() -> Any:
        result = step()
        returned.append(np.array(result[0]))
        return result

    env.step_wait = recorded_step  # type: ignore[method-assign]
    model = tiny_model(env, dict(memory=memory))
    batch = collected(model)
    assert_on_policy(model, batch)
    # The newest tokens are what VecNormalize returned, to the last bit of their 32
    tokens = model.rollout_buffer.tokens[model.rollout_buffer.n_carried :]
    np.testing.assert_array_equal(tokens, np.array(returned)[-model.n_steps - 1 : -1].astype(np.float32))
    _, state = model.predict(returned[-1], episode_start=np.ones(2, bool))
    newest = state.tokens[:, 0] if memory == "window" else state.tokens
    np.testing.assert_array_equal(newest, returned[-1].astype(np.float32))


@pytest.mark.parametrize("memory", MEMORIES)
def test_normalized_entries_of_a_dict(memory: str) -> None:
    """Entries that are not normalized keep their type."""
    parts = {"counts": spaces.Box(0, 100, (2,), np.int64), "id": spaces.Discrete(3)}
    env = VecNormalize(sampled_vec_env(2, spaces.Dict(parts)), norm_obs_keys=["counts"])
    model = tiny_model(env, dict(memory=memory))
    assert_on_policy(model, collected(model))
    dtypes = map_tokens(lambda tokens: tokens.dtype, model.rollout_buffer.tokens)
    assert dtypes == {"counts": np.float32, "id": np.int64}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float16, np.float32, np.float64])
def test_actions_are_stored_as_they_were_sampled(dtype: type[np.generic], memory: str) -> None:
    class AnyAction(SampledEnv):
        def step(self, action: Any) -> Any:  # floats are not in a space of integers
            return super().step(action.astype(self.action_space.dtype))

    space = spaces.Box(0, 3, (2,), dtype)
    model = tiny_model(DummyVecEnv([lambda: AnyAction(action_space=space)] * 2), dict(memory=memory))
    assert_on_policy(model, collected(model))


class ReusedArrays(DummyVecEnv):
    """A vectorized environment that returns the same arrays at every step, and overwrites them."""

    def reset(self) -> Any:
        self._obs = super().reset()
        return self._obs

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = super().step_wait()
        np.copyto(self._obs, obs)
        if not hasattr(self, "_rewards"):
            self._rewards, self._dones = np.array(rewards), np.array(dones)
        np.copyto(self._rewards, rewards)
        np.copyto(self._dones, dones)
        self.last_rewards = np.array(rewards)
        return self._obs, self._rewards, self._dones, infos


@pytest.mark.parametrize("memory", MEMORIES)
def test_arrays_of_the_environment_are_copied(memory: str) -> None:
    """The same rollout as from an environment that returns new arrays, and its rewards are not written to."""
    batches = []
    for vec_env in (DummyVecEnv, ReusedArrays):
        env = vec_env([SampledEnv] * 2)
        model = tiny_model(env, dict(memory=memory), seed=0)
        batches.append(collected(model))
        assert_on_policy(model, batches[-1])
        starts = model.rollout_buffer.episode_starts
    np.testing.assert_array_equal(batches[0].returns, batches[1].returns)
    np.testing.assert_array_equal(batches[0].observations.newest(), batches[1].observations.newest())
    assert 0 < starts.sum() < starts.size
    np.testing.assert_array_equal(env._rewards, env.last_rewards)


def test_state_does_not_share_the_callers_array() -> None:
    model = tiny_model(sampled_vec_env(1), dict(memory="full"))
    observation = np.zeros((1, 3), np.float32)
    _, state = model.predict(observation, episode_start=np.ones(1, bool))
    observation[:] = 7
    np.testing.assert_array_equal(state.tokens, np.zeros((1, 3)))
