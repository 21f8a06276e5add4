"""Agents for bandits against the exact values of their rules, published figures and the best policy."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_trmrl.references as references
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from tests.helpers.naive_bandits import (
    RULES,
    act,
    counts,
    exact_value,
    expectimax,
    expectimax_pull,
    observe,
    thompson_chances,
)

SEEDED = ["PosteriorMeanGreedy", "ThompsonSampling", "RandomArm"]


@pytest.mark.parametrize("name", RULES)
def test_rules_reach_their_exact_value(name: str) -> None:
    expected = exact_value(RULES[name], n_arms=3, n_pulls=4)
    # The seed of the tasks, which must not let the agent know them
    kwargs = {"seed": 0} if name in SEEDED else {}
    agent = getattr(references, name)(**kwargs)
    totals = references.simulate_bandits(agent, n_tasks=40_000, n_arms=3, n_pulls=4, seed=0)
    assert abs(totals.mean() - expected) < 3 * totals.std() / sqrt(len(totals))


@pytest.mark.parametrize("name", ["PosteriorMeanGreedy", "UCB1", "StayOrNext"])
def test_rules_choose_as_defined_after_any_history(name: str) -> None:
    agent = getattr(references, name)()
    rng = np.random.default_rng(0)
    for length in range(12):
        for _ in range(20):
            history = [(int(rng.integers(3)), int(rng.integers(2))) for _ in range(length)]
            arm = act(agent, history)
            assert np.shape(arm) == () and RULES[name](history, 3)[arm] > 0.0


def test_thompson_sampling_draws_with_the_right_chances() -> None:
    history = [(0, 1), (0, 0), (1, 1), (2, 0)]
    state = np.array([[[1, 1], [1, 0], [0, 1]]]).repeat(30_000, axis=0)
    state[:, 2, 1] = 0  # the last loss is told by the observation
    observation = {key: np.tile(value, (30_000, 1)) for key, value in observe(history).items()}
    arms, _ = references.ThompsonSampling(seed=0).predict(observation, state)
    expected = np.array(thompson_chances(tuple(counts(history, 3))))
    errors = np.sqrt(expected * (1 - expected) / 30_000)
    assert (np.abs(np.bincount(arms, minlength=3) / 30_000 - expected) < 4 * errors).all()


# Figures of RL^2's bandits, and what their rounding leaves open; None where the exact optimum is the reference
@pytest.mark.parametrize(
    "name, kwargs, n_pulls, expected, rounding",
    [
        ("RandomArm", {"seed": 1}, 10, 5.0, 0.0),
        ("StayOrNext", {}, 10, 6.44, 0.005),
        ("PosteriorMeanGreedy", {"seed": 1}, 10, 6.62, 0.005),
        ("BayesOptimal", {}, 10, None, 0.0),
        ("GittinsIndex", {"n_pulls": 10}, 10, 6.66, 0.01),
        ("RandomArm", {"seed": 1}, 100, 50.0, 0.0),
        ("StayOrNext", {}, 100, 68.3, 0.05),
        ("PosteriorMeanGreedy", {"seed": 1}, 100, 75.0, 1.0),
        ("GittinsIndex", {"n_pulls": 100}, 100, 78.3, 0.3),
    ],
)
def test_published_values_of_the_bandit(
    name: str, kwargs: dict[str, Any], n_pulls: int, expected: Any, rounding: float
) -> None:
    totals = references.simulate_bandits(getattr(references, name)(**kwargs), n_pulls=n_pulls)
    standard_error = totals.std() / sqrt(len(totals))
    print(f"\n{name}, {n_pulls} pulls: {totals.mean():.3f} (s.e. {standard_error:.3f})")
    if expected is None:
        expected = references.bayes_optimal_value(5, n_pulls)
    assert len(totals) == 20_000
    assert abs(totals.mean() - expected) < 3 * standard_error + rounding


def test_the_bayes_optimal_agent_takes_an_optimal_arm_after_any_history() -> None:
    agent = references.BayesOptimal(n_arms=3, n_pulls=6)
    rng = np.random.default_rng(0)
    for _ in range(150):
        history = [(int(rng.integers(3)), int(rng.integers(2))) for _ in range(int(rng.integers(6)))]
        arms, arm, left = tuple(counts(history, 3)), act(agent, history), 6 - len(history)
        value = expectimax_pull(arms, arm, left)
        assert float(value) == pytest.approx(float(expectimax(arms, left)), abs=1e-12)


def test_a_bandit_played_over_several_episodes_of_a_trial() -> None:
    # Counts continue in the next episode of a trial, and 2 x 5 pulls are worth as much as 10
    result = evaluate_adaptation(
        references.BayesOptimal(5, 10), "BernoulliBandit-v0", 400, 2, env_kwargs={"n_pulls": 5}, seed=1
    )
    totals = result.returns.sum(axis=1)
    assert abs(totals.mean() - 6.66) < 3 * totals.std() / sqrt(400)
    assert result.mean_returns[1] > result.mean_returns[0]


def test_evaluate_adaptation_plays_the_registered_bandit() -> None:
    for n_envs in (None, 50):
        result = evaluate_adaptation(references.BayesOptimal(5, 10), "BernoulliBandit-v0", 500, 1, n_envs=n_envs)
        returns = result.returns[:, 0]
        assert abs(returns.mean() - 6.66) < 3 * returns.std() / sqrt(500)
        # A task's best arm bounds what can be expected of it; no agent is better by much more than chance
        assert np.mean(returns) < np.mean([10 * max(task) for task in result.tasks])


@pytest.mark.parametrize(
    "name, n_episodes, expected",
    [
        *(("BayesOptimal", 12, None), ("UCB1", 12, None), ("ThompsonSampling", 12, None)),
        *(("RandomArm", 4_000, 5.0), ("StayOrNext", 4_000, 6.44)),
    ],
)
def test_sb3s_evaluate_policy_takes_the_agents(name: str, n_episodes: int, expected: float | None) -> None:
    venv = make_vec_env("BernoulliBandit-v0", n_envs=3, seed=0)
    agent = getattr(references, name)(**({"seed": 0} if name in SEEDED else {}))
    returns, lengths = evaluate_policy(agent, venv, n_eval_episodes=n_episodes, return_episode_rewards=True, warn=False)
    assert lengths == [10] * n_episodes and min(returns) >= 0 and max(returns) <= 10
    if expected is not None:  # published with two decimals
        standard_error = np.std(returns) / sqrt(n_episodes)
        assert abs(np.mean(returns) - expected) < 3 * standard_error + 0.005 and standard_error < 0.05
    venv.close()


def batch(histories: Any, n_arms: int = 3) -> Any:
    rows = [observe(history, n_arms) for history in histories]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.parametrize("name", ["BayesOptimal", "GittinsIndex", "UCB1", "StayOrNext"])
def test_a_batch_acts_like_its_environments_one_by_one(name: str) -> None:
    agent = references.BayesOptimal(3, 10) if name == "BayesOptimal" else getattr(references, name)()
    rng = np.random.default_rng(1)
    histories = [[(int(rng.integers(3)), int(rng.integers(2))) for _ in range(9)] for _ in range(16)]
    # Trials begin at different times, and have different numbers of pulls left
    offsets = rng.integers(5, size=16)
    state = None
    for step in range(9):
        seen = [history[: max(0, step - offset)] for history, offset in zip(histories, offsets, strict=True)]
        arms, state = agent.predict(batch(seen), state, offsets >= step)
        assert arms.tolist() == [act(agent, history) for history in seen]


def test_states_are_counts_that_a_trial_start_empties_and_the_callers_copy_is_left_alone() -> None:
    agent = references.UCB1()
    _, state = agent.predict(batch([[(0, 1)], [(2, 0)]]))
    assert state.tolist() == [[[1, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 1]]]
    before = state.copy()
    _, later = agent.predict(batch([[(0, 1)], [(1, 1)]]), state, None)
    assert later.tolist() == [[[2, 0], [0, 0], [0, 0]], [[0, 0], [1, 0], [0, 1]]]
    _, later = agent.predict(batch([[], [(1, 1)]]), state, np.array([True, False]))
    assert later.tolist() == [[[0, 0]] * 3, [[0, 0], [1, 0], [0, 1]]]
    np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize("name", SEEDED)
def test_random_rules_repeat_with_their_seed_and_take_no_notice_of_deterministic(name: str) -> None:
    make = getattr(references, name)
    runs = [
        references.simulate_bandits(make(seed=seed), n_tasks=50, deterministic=deterministic)
        for seed, deterministic in [(3, True), (3, False), (4, True)]
    ]
    assert runs[0].tolist() == runs[1].tolist() != runs[2].tolist()


def test_every_agent_of_a_simulation_gets_the_same_tasks() -> None:
    class OneArm:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: Any = False
        ) -> Any:
            return np.full(len(observation["prev_reward"]), 2), None

    arms = references.simulate_bandits(OneArm(), n_tasks=5000, n_pulls=20, seed=7)
    # With its arm never changed, a total is binomial with a uniform chance: every total is as likely as any other.
    assert arms.mean() == pytest.approx(10.0, abs=3 * arms.std() / sqrt(5000))
    assert stats.chisquare(np.bincount(arms.astype(int), minlength=21)).pvalue > 1e-3
    assert arms.tolist() == references.simulate_bandits(OneArm(), n_tasks=5000, n_pulls=20, seed=7).tolist()
    assert arms.tolist() != references.simulate_bandits(OneArm(), n_tasks=5000, n_pulls=20, seed=8).tolist()


def test_the_exploration_constant_of_ucb1() -> None:
    # Without exploration it is greedy on the plain mean; with much, it takes turns.
    history = [(0, 1), (1, 0), (2, 0), (0, 0), (0, 0), (0, 0)]
    assert act(references.UCB1(0.0), history) == 0
    assert act(references.UCB1(100.0), history) == 1
