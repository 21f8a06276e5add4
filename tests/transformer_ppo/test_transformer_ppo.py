"""Collection against training: probabilities, values, returns and learning rates."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from sb3_trmrl.memory.working_memory import WorkingMemory
from tests.helpers.agents import unpack

SMALL = dict(context_length=4, d_model=8, n_layers=2, n_heads=2, dim_feedforward=16)


class RandomWalk(gym.Env):
    """Random observations in episodes of ``length`` steps that end as ``end`` says; inner episodes of 3 steps."""

    def __init__(self, length=7, end="truncated", kind="dict"):
        self.length, self.end, self.kind = length, end, kind
        box = spaces.Box(-10.0, 10.0, (3,), np.float32)
        flag = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = box if kind == "box" else spaces.Dict({"observation": box, "prev_done": flag})
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _observation(self):
        observation = self.np_random.normal(size=3).astype(np.float32)
        if self.kind == "box":
            return observation
        flag = float(self.steps > 0 and self.steps % 3 == 0 and self.steps < self.length)
        return {"observation": observation, "prev_done": np.array([flag], np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        over = self.steps == self.length
        reward = float(self.np_random.normal())
        return self._observation(), reward, over and self.end == "terminated", over and self.end == "truncated", {}


def make_envs(kind, normalize, ends=("truncated", "terminated", "truncated"), lengths=(5, 7, 11)):
    """Environments with different episode lengths, so that borders fall everywhere in a rollout"""
    env = DummyVecEnv([lambda n=n, e=e: RandomWalk(n, e, kind) for n, e in zip(lengths, ends, strict=True)])
    env.seed(0)
    if normalize:
        env = VecNormalize(env)  # the flag too: its sign must survive
    return env


class BeforeUpdate(BaseCallback):
    """Calls a function with the full buffer before the first gradient step of each rollout"""

    def __init__(self, check):
        super().__init__()
        self.check, self.n_rollouts = check, 0

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        state = np.random.get_state()
        self.check(self.model)
        np.random.set_state(state)
        self.n_rollouts += 1


def assert_on_policy(model):
    """Training sees the windows that acting saw: the ratio of new to old probabilities is 1"""
    buffer = model.rollout_buffer
    shape = (buffer.buffer_size, buffer.n_envs)
    kept = {
        name: getattr(buffer, name).copy()
        for name in ("actions", "lengths", "values", "log_probs", "advantages", "returns")
    }
    for batch in buffer.get(batch_size=17):
        actions = batch.actions.long().flatten() if isinstance(model.action_space, spaces.Discrete) else batch.actions
        with th.no_grad():
            values, log_prob, _ = model.policy.evaluate_actions(batch.observations, actions)
        th.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-5, rtol=0)
        th.testing.assert_close(values.flatten(), batch.old_values, atol=1e-5, rtol=0)
    assert buffer.log_probs.shape[0] == shape[0] * shape[1]
    for name, value in kept.items():
        setattr(buffer, name, value)
    buffer.generator_ready = False


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("critic_input", ["memory", "token"])
@pytest.mark.parametrize("kind, normalize", [("box", False), ("dict", False), ("dict", True)])
def test_no_gap_between_acting_and_training(kind, normalize, reset_memory_on, critic_input):
    """Across rollout borders, resets, truncations, partial windows; 8 steps do not divide the episodes"""
    model = TransformerPPO(
        "TrMRLPolicy",
        make_envs(kind, normalize),
        n_steps=8,
        batch_size=12,
        n_epochs=2,
        seed=0,
        policy_kwargs=dict(SMALL, reset_memory_on=reset_memory_on, critic_input=critic_input),
    )
    callback = BeforeUpdate(assert_on_policy)
    model.learn(6 * 24, callback)
    assert callback.n_rollouts == 6


@pytest.mark.parametrize("reset_memory_on", ["episode", "trial"])
@pytest.mark.parametrize("normalize", [False, True])
def test_memory_is_emptied_where_it_should(reset_memory_on, normalize):
    """Lengths of the windows, counted from the environments' own rules"""
    lengths = (5, 7, 11)
    envs = make_envs("dict", normalize, lengths=lengths)
    kwargs = dict(SMALL, reset_memory_on=reset_memory_on)
    model = TransformerPPO("TrMRLPolicy", envs, n_steps=30, batch_size=90, n_epochs=1, seed=0, policy_kwargs=kwargs)
    model.learn(30 * 3)
    for env, length in enumerate(lengths):
        for step in range(30):
            age = step % length
            if reset_memory_on == "episode":
                age %= 3
            assert model.rollout_buffer.lengths[env * 30 + step] == min(age + 1, 4)


def test_windows_of_training_are_those_of_the_environment():
    """A deque of the observations that the environments really returned"""
    lengths, n_steps = (5, 7, 11), 8
    envs = make_envs("box", False, lengths=lengths)
    model = TransformerPPO("TrMRLPolicy", envs, n_steps=n_steps, batch_size=24, n_epochs=1, seed=0, policy_kwargs=SMALL)
    twins = make_envs("box", False, lengths=lengths)
    windows = [deque(maxlen=4) for _ in lengths]
    for vec_env in (envs, twins):
        vec_env.seed(1)
    observations, dones = twins.reset(), np.ones(3, dtype=bool)
    for rollout in range(4):
        model.learn(24, reset_num_timesteps=rollout == 0)
        expected = {}
        for step in range(n_steps):
            for env in range(3):
                if dones[env]:
                    windows[env].clear()
                windows[env].append(observations[env])
                expected[env * n_steps + step] = np.array(windows[env])
            observations, _, dones, _ = twins.step(np.zeros((3, 2), np.float32))
        order = sorted(sorted(expected), key=lambda index: -len(expected[index]))  # longer windows come first
        batch = unpack(model.rollout_buffer._get_samples(np.array(order)).observations)
        for place, index in enumerate(order):
            assert batch.lengths[place] == len(expected[index]), (rollout, index)
            np.testing.assert_array_equal(batch.tokens[place, : len(expected[index])], expected[index])


def brute_force_advantages(rewards, values, next_values, ends, gamma, gae_lambda):
    """A_t = sum_k (gamma lambda)^k delta_{t+k}, over the rest of the trial, written as the sum it is"""
    n_steps = len(rewards)
    advantages = np.zeros(n_steps)
    for t in range(n_steps):
        for k in range(n_steps - t):
            step = t + k
            following = 0.0 if ends[step] else next_values[step]
            delta = rewards[step] + gamma * following - values[step]
            advantages[t] += (gamma * gae_lambda) ** k * delta
            if ends[step]:
                break
    return advantages


def test_gae_is_a_brute_force_sum_over_the_trial():
    """
    Inner episodes (prev_done) do not cut it. A truncated trial adds gamma V(terminal observation), whose window is the
    memory before the reset; a terminated one adds nothing.
    """
    gamma, gae_lambda, n_steps, lengths = 0.9, 0.8, 16, (5, 7, 11)
    envs = make_envs("dict", False, lengths=lengths)
    rewards, terminal_bonus, records = np.zeros((n_steps, 3)), np.zeros((n_steps, 3)), []

    class Record(BaseCallback):
        def _on_step(self):
            step = self.locals["n_steps"]
            rewards[step] = self.locals["rewards"]
            records.append((self.locals["dones"].copy(), self.locals["infos"], self.locals["memory"].numpy()))
            return True

    model = TransformerPPO(
        "TrMRLPolicy",
        envs,
        n_steps=n_steps,
        batch_size=48,
        n_epochs=1,
        gamma=gamma,
        gae_lambda=gae_lambda,
        learning_rate=0.0,
        seed=0,
        policy_kwargs=dict(SMALL, reset_memory_on="trial"),
    )
    model.learn(n_steps * 3, Record())
    policy, buffer = model.policy, model.rollout_buffer
    values = buffer.values.reshape(3, n_steps).T
    for step, (dones, infos, memory) in enumerate(records):
        for env in range(3):
            if not (dones[env] and infos[env]["TimeLimit.truncated"]):
                continue
            window = [
                {key: memory.tokens[key][env, slot] for key in memory.tokens} for slot in range(memory.lengths[env])
            ] + [infos[env]["terminal_observation"]]
            tokens = {key: th.as_tensor(np.stack([t[key] for t in window[-4:]])[None]) for key in window[0]}
            with th.no_grad():
                bootstrap = policy.predict_values(WorkingMemory(tokens, th.tensor([len(window[-4:])]))).item()
            terminal_bonus[step, env] = gamma * bootstrap
    np.testing.assert_allclose(buffer.rewards, rewards + terminal_bonus, atol=1e-5)
    assert (terminal_bonus != 0).sum() == 16 // 5 + 16 // 11
    with th.no_grad():
        dones = records[-1][0]
        obs, _ = policy.obs_to_tensor(model._last_obs)
        last_values = policy.predict_values(policy.remember(model._last_memory, obs, dones)).numpy().flatten()
    for env in range(3):
        ends = [record[0][env] for record in records]
        expected = brute_force_advantages(
            rewards[:, env] + terminal_bonus[:, env],
            values[:, env],
            np.append(values[1:, env], last_values[env]),
            ends,
            gamma,
            gae_lambda,
        )
        np.testing.assert_allclose(buffer.advantages.reshape(3, n_steps)[env], expected, atol=1e-4)


def test_context_of_one_is_plain_ppo_on_the_token():
    """With a single slot the policy is a function of the current observation: equal observations, equal values"""
    model = TransformerPPO(
        "TrMRLPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, policy_kwargs=dict(SMALL, context_length=1)
    )
    model.learn(64)
    observation = np.array([0.1, 0.2, 0.0, -0.1], np.float32)
    _, state = model.predict(np.zeros(4, np.float32), episode_start=np.ones(1))
    fresh, _ = model.predict(observation, episode_start=np.ones(1), deterministic=True)
    later, _ = model.predict(observation, state, np.zeros(1), deterministic=True)
    assert fresh == later


@pytest.mark.parametrize(
    "critic_input, share", [("memory", True), ("memory", False), ("token", True), ("token", False)]
)
def test_optimizer_groups_split_what_only_the_critic_reads(critic_input, share):
    """Gradients decide: the policy loss reaches the first group alone, the value loss all that it reads"""
    model = TransformerPPO(
        "TrMRLPolicy",
        "Pendulum-v1",
        n_steps=8,
        batch_size=8,
        learning_rate=1e-3,
        vf_learning_rate=lambda progress: 1e-2 * progress,
        policy_kwargs=dict(SMALL, critic_input=critic_input, share_features_extractor=share),
    )
    others, critic = (group["params"] for group in model.policy.optimizer.param_groups)
    assert {id(p) for p in others} | {id(p) for p in critic} == {id(p) for p in model.policy.parameters()}
    assert len(others) + len(critic) == len(list(model.policy.parameters()))
    memory = model.policy.empty_memory(2)
    for _ in range(3):
        memory = model.policy.remember(memory, th.randn(2, 3), np.zeros(2))
    values, log_prob, _ = model.policy.evaluate_actions(memory, th.zeros(2, 1))
    (-log_prob.sum()).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in critic)
    assert all(parameter.grad is not None for parameter in others)
    for parameter in model.policy.parameters():
        parameter.grad = None
    values.sum().backward()
    assert all(parameter.grad is not None for parameter in critic)
    reaches_others = any(parameter.grad is not None for parameter in others)
    assert reaches_others == (critic_input == "memory" and share)  # flattening has no parameters to share


def test_vf_learning_rate_follows_its_schedule_or_the_other():
    def model(**kwargs):
        env = make_vec_env("Pendulum-v1", 2)
        return TransformerPPO("TrMRLPolicy", env, n_steps=8, batch_size=16, n_epochs=1, policy_kwargs=SMALL, **kwargs)

    def rates(model):
        """Both groups' rates at each update of four; SB3 updates at progress 0.75, 0.5, 0.25, 0"""
        seen = []
        train = model.train
        model.train = lambda: (
            train(),
            seen.append(tuple(group["lr"] for group in model.policy.optimizer.param_groups)),
        )
        model.learn(64)
        return np.array(seen).T

    progress = np.array([0.75, 0.5, 0.25, 0.0])
    followed = rates(model(learning_rate=lambda remaining: 1e-3 * remaining))
    np.testing.assert_allclose(followed, [1e-3 * progress] * 2)
    apart = model(learning_rate=1e-3, vf_learning_rate=lambda remaining: 1e-2 * (1 + remaining))
    np.testing.assert_allclose(rates(apart), [np.full(4, 1e-3), 1e-2 * (1 + progress)])
    assert apart.logger.name_to_value["train/vf_learning_rate"] == pytest.approx(1e-2)


def test_an_interrupted_rollout_leaves_memory_and_observation_together():
    """Stopping by a callback and learning on: probabilities still agree"""

    class StopAt(BaseCallback):
        def _on_step(self):
            return self.n_calls < 5

    model = TransformerPPO(
        "TrMRLPolicy", make_envs("dict", False), n_steps=8, batch_size=24, n_epochs=1, seed=0, policy_kwargs=SMALL
    )
    model.learn(24, StopAt())
    callback = BeforeUpdate(assert_on_policy)
    model.learn(72, callback, reset_num_timesteps=False)
    assert callback.n_rollouts >= 3
