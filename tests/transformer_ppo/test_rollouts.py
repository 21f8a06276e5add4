"""Rollouts: training sees what acting saw, truncated episodes are bootstrapped, numbers that are not finite refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import (
    CRITICS,
    OBSERVATION_SPACES,
    TRANSITION,
    VECTOR,
    SampledEnv,
    by_name,
    sampled_vec_env,
    tiny_model,
    unpack,
)
from tests.helpers.environments import LENGTHS, PoisonedEnv, fixed_episodes
from tests.helpers.learning import assert_learns, assert_learns_on_policy
from tests.helpers.naive_rollouts import NaiveHistory, Transition, fill_advantages

# -- Acting and training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("critic", **by_name(CRITICS))
@pytest.mark.parametrize(
    ("memory", "context_length"), [("window", 4), ("full", 1), ("full", 3), ("full", 64)], ids=lambda value: str(value)
)
@pytest.mark.parametrize(
    ("space", "normalize"),
    [(VECTOR, False), (TRANSITION, False), (TRANSITION, True)],
    ids=["box", "dict", "dict-normalized"],
)
def test_no_gap_between_acting_and_training(
    space: spaces.Space[Any],
    normalize: bool,
    memory: str,
    context_length: int,
    critic: dict[str, Any],
    reset_memory_on: str,
) -> None:
    """Rollouts of 8 steps begin and end anywhere in episodes of 5, 7 and 11 steps, with different weights in each."""
    kwargs = dict(critic, memory=memory, context_length=context_length, reset_memory_on=reset_memory_on, n_layers=2)
    kwargs.update(log_std_init=-1.0, action_head_gain=1.0, positional_encoding="sinusoidal")
    env = fixed_episodes(space, normalize)
    model = tiny_model(env, kwargs, n_steps=8, batch_size=12, n_epochs=1, learning_rate=1e-2)
    assert_learns_on_policy(model, n_rollouts=5)


def test_interrupted_rollout_leaves_memory_and_observation_consistent() -> None:
    """Training continues on policy after a callback has stopped it."""

    class StopAt(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 5

    model = tiny_model(fixed_episodes(TRANSITION), n_steps=8, batch_size=24)
    model.learn(24, StopAt())
    assert_learns_on_policy(model, n_rollouts=3, reset_num_timesteps=False)


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize(("memory", "longest"), [("window", 4), ("full", 30)])
@pytest.mark.parametrize("normalize", [False, True])
def test_lengths_of_memories(reset_memory_on: str, memory: str, longest: int, normalize: bool) -> None:
    """Trials have 5, 7 and 11 steps, inner episodes 3 steps."""
    env = fixed_episodes(TRANSITION, normalize)
    policy_kwargs = dict(memory=memory, reset_memory_on=reset_memory_on)
    model = tiny_model(env, policy_kwargs, n_steps=30, batch_size=90).learn(90)
    for lengths, trial in zip(model.rollout_buffer.lengths.reshape(3, 30), LENGTHS, strict=True):
        ages = [step % trial % 3 if reset_memory_on == "episode" else step % trial for step in range(30)]
        assert lengths.tolist() == [min(age + 1, longest) for age in ages]


def test_windows_of_training_are_those_of_the_environment() -> None:
    """Windows in the buffer equal a deque of the observations that equal environments return."""
    n_steps = 8
    env, twins = fixed_episodes(VECTOR), fixed_episodes(VECTOR)
    model = tiny_model(env, dict(memory="window"), n_steps=n_steps, batch_size=24)
    for vec_env in (env, twins):
        vec_env.seed(1)
    history = NaiveHistory(3, maxlen=4)
    observations, dones = twins.reset(), np.ones(3, dtype=bool)
    for rollout in range(4):
        model.learn(24, reset_num_timesteps=rollout == 0)
        expected = {}
        for step in range(n_steps):
            history.see(observations, dones)
            expected.update({env * n_steps + step: np.array(history.observations[env]) for env in range(3)})
            observations, _, dones, _ = twins.step(np.zeros((3, 2), np.float32))
        order = sorted(sorted(expected), key=lambda index: -len(expected[index]))  # longer windows come first
        batch = unpack(model.rollout_buffer._get_samples(np.array(order)).observations)
        for place, index in enumerate(order):
            assert batch.lengths[place] == len(expected[index]), (rollout, index)
            np.testing.assert_array_equal(batch.tokens[place, : len(expected[index])], expected[index])


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_rollouts_shorter_than_the_memory(n_steps: int, n_envs: int) -> None:
    """Windows of 8 reach back over several rollouts and are full in the last one."""
    arguments: dict[str, Any] = dict(n_steps=n_steps, normalize_advantage=False, batch_size=n_steps * n_envs)
    model = tiny_model(sampled_vec_env(n_envs, length=50), dict(context_length=8), **arguments)
    assert_learns(model, 12 * n_envs)
    assert (model.rollout_buffer.lengths == 8).all()


# -- Returns ----------------------------------------------------------------------------------------------------------


class RecordRewards(BaseCallback):
    """Record the rewards and ends of each step, and the values of terminal observations, one window at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        self.terminal_values: list[list[float]] = []

    def _on_step(self) -> bool:
        self.rewards.append(self.locals["rewards"].copy())
        self.dones.append(self.locals["dones"].copy())
        self.terminal_values.append([self._terminal_value(*each) for each in enumerate(self.locals["infos"])])
        return True

    def _terminal_value(self, env: int, info: dict[str, Any]) -> float:
        """Return the value of the window that ends with the terminal observation, 0 if the episode is not truncated."""
        if not info["TimeLimit.truncated"]:
            return 0.0
        policy: Any = self.model.policy
        memory, n_slots = self.locals["memory"], policy.context_length
        length = int(memory.lengths[env])

        def append(tokens: th.Tensor, newest: th.Tensor) -> th.Tensor:
            return th.cat([tokens[env, :length], newest.to(tokens.dtype)])[-n_slots:][None]

        tokens = map_tokens(append, memory.tokens, policy.obs_to_tensor(info["terminal_observation"])[0])
        with th.no_grad():
            return float(policy.predict_values(WorkingMemory(tokens, th.tensor([min(length + 1, n_slots)]))))


@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("space", **by_name(OBSERVATION_SPACES))
def test_truncated_episodes_are_bootstrapped(space: spaces.Space[Any], critic_input: str) -> None:
    """The value of the terminal observation, after the window before it, is added at no other step."""
    env = DummyVecEnv([partial(SampledEnv, space, length=n) for n in (2, 2, 3)])
    model = tiny_model(env, dict(critic_input=critic_input, memory="window"), gamma=0.9)
    model.train = lambda: None
    record = RecordRewards()
    model.learn(48, callback=record)
    bootstraps = 0.9 * np.array(record.terminal_values)
    assert np.count_nonzero(bootstraps) > 5 and np.abs(bootstraps).max() > 1e-3
    np.testing.assert_allclose(model.rollout_buffer.rewards, np.array(record.rewards) + bootstraps, atol=1e-5)


def test_advantages_are_sums_over_the_trial() -> None:
    """Inner episodes do not end the sum. A truncated trial adds gamma V(terminal observation), a terminated one 0."""
    gamma, gae_lambda, n_steps = 0.9, 0.8, 16
    arguments: dict[str, Any] = dict(gamma=gamma, gae_lambda=gae_lambda, learning_rate=0.0, n_steps=n_steps)
    policy_kwargs = dict(reset_memory_on="trial", memory="window")
    model = tiny_model(fixed_episodes(TRANSITION), policy_kwargs, batch_size=48, **arguments)
    record = RecordRewards()
    model.learn(n_steps * 3, record)
    buffer, policy = model.rollout_buffer, model.policy
    bootstraps = gamma * np.array(record.terminal_values)
    assert np.count_nonzero(bootstraps) == 16 // 5 + 16 // 11
    rewards = np.array(record.rewards) + bootstraps
    np.testing.assert_allclose(buffer.rewards, rewards, atol=1e-5)

    starts = [np.ones(3, dtype=bool), *record.dones]
    values = buffer.values.reshape(3, n_steps).T
    steps = [
        [Transition([], *numbers) for numbers in zip(starts[t], rewards[t], values[t], strict=True)]
        for t in range(n_steps)
    ]
    with th.no_grad():
        obs, _ = policy.obs_to_tensor(model._last_obs)
        last_values = policy.predict_values(policy.remember(model._last_memory, obs, starts[-1])).numpy().flatten()
    fill_advantages(steps, last_values, starts[-1], gamma, gae_lambda)
    expected = [[transition.advantage for transition in step] for step in steps]
    np.testing.assert_allclose(buffer.advantages.reshape(3, n_steps).T, expected, atol=1e-4)


# -- Numbers that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
@pytest.mark.parametrize("where", ["reward", "observation", "first observation", "terminal observation"])
def test_non_finite_numbers_while_collecting(where: str, space: spaces.Space[Any], value: float) -> None:
    """The message names the environment, and no weight changes."""
    good = partial(SampledEnv, space, length=7)
    model = tiny_model(DummyVecEnv([good, good, partial(PoisonedEnv, where, value, space)]), n_steps=32)
    weights = {name: weight.clone() for name, weight in model.policy.state_dict().items()}
    key = r"\['prev_reward'\]" if space is TRANSITION and where != "reward" else ""
    name = where.removeprefix("first ")
    with pytest.raises(ValueError, match=rf"non-finite {name}{key} from environment 2: .*{str(value).strip('-')}"):
        model.learn(96)
    assert all(th.equal(weight, weights[name]) for name, weight in model.policy.state_dict().items())


def test_training_continues_after_a_refused_number() -> None:
    """The rollout is lost, but the model is not."""
    env = PoisonedEnv("reward", np.nan)
    model = tiny_model(env)
    with pytest.raises(ValueError, match="non-finite reward from environment 0"):
        model.learn(16)
    env.where = "nowhere"
    assert_learns(model)


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_non_finite_numbers_under_vec_normalize(where: str) -> None:
    """The message names the right environment, although VecNormalize spreads a NaN to all of them."""
    env = VecNormalize(DummyVecEnv([SampledEnv, partial(PoisonedEnv, where, np.nan)]))
    with pytest.raises(ValueError, match=f"non-finite {where} from environment 1"):
        tiny_model(env).learn(32)
