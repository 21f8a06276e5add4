"""The optimum of a known MDP against brute force, and posterior sampling against counting by hand."""

from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl import references
from sb3_trmrl.envs.tabular_mdp import TabularMDPEnv, TabularMDPTask
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation


def value_of(policy: Any, task: TabularMDPTask, horizon: int) -> float:
    """Expected return from state 0 of the actions ``policy[step][state]``."""
    probability, total = np.eye(len(task.mean_rewards))[0], 0.0
    for step in range(horizon):
        following = np.zeros_like(probability)
        for state, action in enumerate(policy[step]):
            total += probability[state] * task.mean_rewards[state, action]
            following += probability[state] * task.transitions[state, action]
        probability = following
    return total


def test_the_optimum_is_that_of_the_best_policy() -> None:
    tasks = TabularMDPEnv(2, 2).draw_tasks(5, np.random.default_rng(0))
    policies = list(product(product(range(2), repeat=2), repeat=3))
    best = [max(value_of(policy, task, 3) for policy in policies) for task in tasks]
    for task, value in zip(tasks, best, strict=True):
        assert references.tabular_mdp_optimum([task], horizon=3) == pytest.approx(value)
    assert references.tabular_mdp_optimum(tasks, horizon=3) == pytest.approx(np.mean(best))


def test_posterior_sampling_counts_the_transitions_of_a_trial() -> None:
    agent = references.PosteriorSampling(3, 2, horizon=4)
    env = gym.make("TabularMDP-v0", n_states=3, n_actions=2, horizon=4, episodes_per_trial=6)
    observation, info = env.reset(seed=1)
    transitions, counts, sums = np.zeros((3, 2, 3)), np.zeros((3, 2)), np.zeros((3, 2))
    state, start, done = None, True, False
    while not done:
        action, state = agent.predict(observation, state, np.array([start]))
        before = int(observation["observation"])
        observation, reward, terminated, truncated, info = env.step(action)
        start, done = False, terminated or truncated
        counts[before, action] += 1
        sums[before, action] += reward
        if not (info["new_episode"] or done):  # where the next state is seen
            transitions[before, action, int(observation["observation"])] += 1
    assert counts.sum() == 24
    _, state = agent.predict(observation, state, np.array([False]))  # reads the last transition
    found = agent._parts(state)
    assert np.array_equal(found[0][0], transitions) and np.array_equal(found[1][0], counts)
    assert found[2][0] == pytest.approx(sums, abs=1e-5)


def test_the_policy_of_a_certain_posterior_is_optimal() -> None:
    task = TabularMDPEnv(4, 3).draw_tasks(1, np.random.default_rng(3))[0]
    agent = references.PosteriorSampling(4, 3, horizon=5)
    many = 1e9
    (policy,) = agent._draw_policies(
        many * task.transitions[None], np.full((1, 4, 3), many), many * task.mean_rewards[None]
    )
    reached = value_of(policy[::-1], task, 5)
    assert reached == pytest.approx(references.tabular_mdp_optimum([task], 5), abs=1e-3)


def test_the_posterior_of_the_rewards() -> None:
    agent = references.PosteriorSampling(1, 1, horizon=1, reward_prior=(2.0, 3.0))
    rewards = np.array([4.0, 5.0, 3.5])
    # Product of the normal prior and of normal likelihoods with a standard deviation of 1, on a grid
    grid = np.linspace(-10, 20, 30_001)
    density = np.exp(-((grid - 2) ** 2) / 18 - ((rewards[:, None] - grid) ** 2).sum(axis=0) / 2)
    density /= density.sum()
    mean, deviation = (grid * density).sum(), np.sqrt((grid**2 * density).sum() - (grid * density).sum() ** 2)
    drawn = []
    agent._rng = _Recording(drawn)  # type: ignore[assignment]
    agent._draw_policies(np.zeros((1, 1, 1, 1)), np.full((1, 1, 1), 3.0), np.full((1, 1, 1), rewards.sum()))
    assert drawn == [(pytest.approx(mean, abs=1e-3), pytest.approx(deviation, abs=1e-3))]


class _Recording:
    """Random numbers that are the means, and a record of what was asked."""

    def __init__(self, drawn: list[tuple[float, float]]) -> None:
        self.drawn = drawn

    def standard_gamma(self, shape: np.ndarray) -> np.ndarray:
        return shape

    def normal(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        self.drawn.append((float(mean.squeeze()), float(deviation.squeeze())))
        return mean


def test_posterior_sampling_learns_within_a_trial() -> None:
    result = evaluate_adaptation(references.PosteriorSampling(), "TabularMDP-v0", 100, 10, n_envs=50)
    again = evaluate_adaptation(references.PosteriorSampling(), "TabularMDP-v0", 100, 10, n_envs=50)
    assert np.array_equal(result.returns, again.returns)
    first, last = result.mean_returns[:2].mean(), result.mean_returns[-2:].mean()
    assert last > first + 3
    assert last < references.tabular_mdp_optimum(result.tasks)
    # Duan et al. (2016, table 2) report 138.1
    assert 130 < result.returns.sum(axis=1).mean() < 143
