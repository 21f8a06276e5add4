"""Reference agents and optima, against expectimax, exact values of rules, brute-force planning, published figures."""

from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, product
from math import cos, hypot, log, pi, sin, sqrt

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_trmrl.references as references
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.references.bandit_values import BernoulliValues, count_states, gittins_indices

# --- exact values of bandits --------------------------------------------------------------------------------------


@cache
def expectimax(arms, n_pulls):
    """Best expected sum of rewards from wins and losses of each arm, with every future written out."""
    if n_pulls == 0:
        return Fraction(0)
    options = []
    for i, (wins, losses) in enumerate(arms):
        chance = Fraction(wins + 1, wins + losses + 2)
        after_win = (*arms[:i], (wins + 1, losses), *arms[i + 1 :])
        after_loss = (*arms[:i], (wins, losses + 1), *arms[i + 1 :])
        options.append(
            chance * (1 + expectimax(after_win, n_pulls - 1)) + (1 - chance) * expectimax(after_loss, n_pulls - 1)
        )
    return max(options)


@pytest.mark.parametrize("n_arms, n_pulls", [(1, 5), (2, 1), (2, 2), (2, 3), (2, 4), (2, 7), (3, 5), (4, 4), (6, 3)])
def test_the_optimum_equals_expectimax(n_arms, n_pulls):
    expected = expectimax(((0, 0),) * n_arms, n_pulls)
    assert references.bayes_optimal_value(n_arms, n_pulls) == pytest.approx(float(expected), abs=1e-12)


def test_known_optima():
    assert references.bayes_optimal_value(5, 10) == pytest.approx(6.66, abs=0.005)
    # One arm can only be pulled; two pulls of two arms by hand: 1/2 + 1/2 * 2/3 + 1/2 * 1/2
    assert references.bayes_optimal_value(1, 40) == pytest.approx(20.0)
    assert references.bayes_optimal_value(2, 2) == pytest.approx(13 / 12)
    # More arms than pulls are of no use
    assert references.bayes_optimal_value(1000, 4) == references.bayes_optimal_value(4, 4)


def test_the_value_of_each_pull_equals_expectimax_in_every_state():
    n_arms, n_pulls = 3, 5
    values = BernoulliValues(n_arms, n_pulls)
    for numbers in product(range(n_pulls), repeat=2 * n_arms):
        arms = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        left = n_pulls - sum(numbers)
        if left < 1:
            continue
        wins, losses = np.array(arms).T[:, None]
        found = values.pull_values(wins, losses)[0]
        assert found.max() == pytest.approx(float(expectimax(arms, left)))
        for i, (won, lost) in enumerate(arms):
            chance = (won + 1) / (won + lost + 2)
            after = [(*arms[:i], pair, *arms[i + 1 :]) for pair in ((won + 1, lost), (won, lost + 1))]
            expected = chance * (1 + expectimax(after[0], left - 1)) + (1 - chance) * expectimax(after[1], left - 1)
            assert found[i] == pytest.approx(float(expected))


@pytest.mark.parametrize("n_arms, n_pulls", [(1, 6), (2, 5), (3, 4), (4, 4), (7, 3)])
def test_the_number_of_states(n_arms, n_pulls):
    pairs = [(wins, losses) for wins in range(n_pulls) for losses in range(n_pulls)]
    states = [s for s in combinations_with_replacement(pairs, n_arms) if sum(map(sum, s)) < n_pulls]
    assert BernoulliValues(n_arms, n_pulls).n_states == count_states(n_arms, n_pulls) == len(states)


def test_gittins_indices_of_the_last_two_pulls():
    indices = gittins_indices(8)
    assert indices.shape == (9, 8, 8)
    for wins in range(4):
        for losses in range(4):
            p, if_won = (wins + 1) / (wins + losses + 2), (wins + 2) / (wins + losses + 3)
            # With one pull left nothing can be learnt; with two, giving up after a loss: p - c + p (if_won - c) = 0
            assert indices[1, wins, losses] == pytest.approx(p, abs=1e-6)
            assert indices[2, wins, losses] == pytest.approx(p * (1 + if_won) / (1 + p), abs=1e-4)
    assert (np.diff([indices[left, 1, 1] for left in range(1, 7)]) > 0).all()


def test_the_gittins_index_is_the_fair_price_of_an_arm():
    """An arm against sure payments: worth pulling below the index, not above it (all futures written out)."""

    @cache
    def worth(wins, losses, left, payment):
        if left == 0:
            return 0.0
        p = (wins + 1) / (wins + losses + 2)
        pull = p * (1 + worth(wins + 1, losses, left - 1, payment)) + (1 - p) * worth(
            wins, losses + 1, left - 1, payment
        )
        return max(pull, payment * left)

    indices = gittins_indices(9)
    for wins, losses, left in [(0, 0, 9), (1, 0, 6), (0, 3, 5), (2, 2, 4)]:
        index = indices[left, wins, losses]
        assert worth(wins, losses, left, index - 1e-3) > (index - 1e-3) * left + 1e-6
        assert worth(wins, losses, left, index + 1e-3) == pytest.approx((index + 1e-3) * left)


# --- rules for bandits --------------------------------------------------------------------------------------------


def best(scores):
    chosen = [0.0] * len(scores)
    chosen[max(range(len(scores)), key=lambda i: (scores[i], -i))] = 1.0
    return chosen


def greedy_rule(history, n_arms):
    means = [(wins + 1) / (wins + losses + 2) for wins, losses in counts(history, n_arms)]
    return [(mean == max(means)) / means.count(max(means)) for mean in means]


def ucb_rule(history, n_arms):
    found = counts(history, n_arms)
    for i, pair in enumerate(found):
        if sum(pair) == 0:
            return [float(j == i) for j in range(n_arms)]
    return best([w / (w + lost) + sqrt(2 * log(len(history)) / (w + lost)) for w, lost in found])


@cache
def thompson_chances(pairs):
    """Chance of each arm's draw to be the highest, by numerical integration."""
    x = (np.arange(4000) + 0.5) / 4000
    density = [stats.beta.pdf(x, wins + 1, losses + 1) for wins, losses in pairs]
    below = [stats.beta.cdf(x, wins + 1, losses + 1) for wins, losses in pairs]
    others = [np.prod([below[j] for j in range(len(pairs)) if j != i], axis=0) for i in range(len(pairs))]
    return [float((density[i] * others[i]).mean()) for i in range(len(pairs))]


def thompson_rule(history, n_arms):
    return thompson_chances(tuple(counts(history, n_arms)))


def stay_or_next_rule(history, n_arms):
    arm, paid = history[-1] if history else (0, 1)
    return [float(i == (arm if paid else (arm + 1) % n_arms)) for i in range(n_arms)]


def random_rule(history, n_arms):
    return [1 / n_arms] * n_arms


def counts(history, n_arms):
    return [tuple(sum(arm == i and paid == won for arm, paid in history) for won in (1, 0)) for i in range(n_arms)]


RULES = {
    "PosteriorMeanGreedy": greedy_rule,
    "UCB1": ucb_rule,
    "ThompsonSampling": thompson_rule,
    "StayOrNext": stay_or_next_rule,
    "RandomArm": random_rule,
}
SEEDED = ["PosteriorMeanGreedy", "ThompsonSampling", "RandomArm"]


def exact_value(rule, n_arms, n_pulls, history=()):
    """Expected sum of rewards of a rule, over all histories."""
    if n_pulls == 0:
        return 0.0
    value = 0.0
    for arm, chosen in enumerate(rule(history, n_arms)):
        if chosen > 0:
            wins, losses = counts(history, n_arms)[arm]
            p = (wins + 1) / (wins + losses + 2)
            won = 1 + exact_value(rule, n_arms, n_pulls - 1, (*history, (arm, 1)))
            lost = exact_value(rule, n_arms, n_pulls - 1, (*history, (arm, 0)))
            value += chosen * (p * won + (1 - p) * lost)
    return value


@pytest.mark.parametrize("name", RULES)
def test_rules_reach_their_exact_value(name):
    expected = exact_value(RULES[name], n_arms=3, n_pulls=4)
    # The seed of the tasks, which must not let the agent know them
    kwargs = {"seed": 0} if name in SEEDED else {}
    agent = getattr(references, name)(**kwargs)
    totals = references.simulate_bandits(agent, n_tasks=40_000, n_arms=3, n_pulls=4, seed=0)
    assert abs(totals.mean() - expected) < 3 * totals.std() / sqrt(len(totals))


def observe(history, n_arms=3):
    """What a single environment shows after some pulls."""
    observation = {key: np.zeros(1, np.float32) for key in ("observation", "prev_reward", "prev_done")}
    observation["prev_action"] = np.zeros(n_arms, np.float32)
    if history:
        observation["prev_action"][history[-1][0]] = 1.0
        observation["prev_reward"][0] = history[-1][1]
    return observation


def act(agent, history, n_arms=3):
    """The agent's next arm in a single environment, after replaying a history."""
    state = None
    for i in range(len(history) + 1):
        arm, state = agent.predict(observe(history[:i], n_arms), state, np.array([i == 0]), deterministic=True)
    return arm


@pytest.mark.parametrize("name", ["PosteriorMeanGreedy", "UCB1", "StayOrNext"])
def test_rules_choose_as_defined_after_any_history(name):
    agent = getattr(references, name)()
    rng = np.random.default_rng(0)
    for length in range(12):
        for _ in range(20):
            history = [(int(rng.integers(3)), int(rng.integers(2))) for _ in range(length)]
            arm = act(agent, history)
            assert np.shape(arm) == () and RULES[name](history, 3)[arm] > 0.0


def test_thompson_sampling_draws_with_the_right_chances():
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
def test_published_values_of_the_bandit(name, kwargs, n_pulls, expected, rounding):
    totals = references.simulate_bandits(getattr(references, name)(**kwargs), n_pulls=n_pulls)
    standard_error = totals.std() / sqrt(len(totals))
    print(f"\n{name}, {n_pulls} pulls: {totals.mean():.3f} (s.e. {standard_error:.3f})")
    if expected is None:
        expected = references.bayes_optimal_value(5, n_pulls)
    assert len(totals) == 20_000
    assert abs(totals.mean() - expected) < 3 * standard_error + rounding


def test_the_bayes_optimal_agent_takes_an_optimal_arm_after_any_history():
    agent = references.BayesOptimal(n_arms=3, n_pulls=6)
    rng = np.random.default_rng(0)
    for _ in range(150):
        history = [(int(rng.integers(3)), int(rng.integers(2))) for _ in range(int(rng.integers(6)))]
        arms, arm, left = counts(history, 3), act(agent, history), 6 - len(history)
        wins, losses = arms[arm]
        chance = Fraction(wins + 1, wins + losses + 2)
        won, lost = [*arms], [*arms]
        won[arm], lost[arm] = (wins + 1, losses), (wins, losses + 1)
        value = chance * (1 + expectimax(tuple(won), left - 1)) + (1 - chance) * expectimax(tuple(lost), left - 1)
        assert float(value) == pytest.approx(float(expectimax(tuple(arms), left)), abs=1e-12)


def test_a_bandit_played_over_several_episodes_of_a_trial():
    # The counts go on over the inner boundary, so that 2 x 5 pulls are worth as much as 10.
    result = evaluate_adaptation(
        references.BayesOptimal(5, 10), "BernoulliBandit-v0", 400, 2, env_kwargs={"n_pulls": 5}, seed=1
    )
    totals = result.returns.sum(axis=1)
    assert abs(totals.mean() - 6.66) < 3 * totals.std() / sqrt(400)
    assert result.mean_returns[1] > result.mean_returns[0]


def test_evaluate_adaptation_plays_the_registered_bandit():
    agent = references.BayesOptimal(5, 10)
    result = evaluate_adaptation(agent, "BernoulliBandit-v0", n_eval_tasks=500, n_eval_episodes=1)
    again = evaluate_adaptation(agent, "BernoulliBandit-v0", n_eval_tasks=500, n_eval_episodes=1, n_envs=50)
    returns = result.returns[:, 0]
    for totals in (returns, again.returns[:, 0]):
        assert abs(totals.mean() - 6.66) < 3 * totals.std() / sqrt(500)
    # A task's best arm bounds what can be expected of it; none is better by much more than chance.
    assert np.mean(returns) < np.mean([10 * max(task) for task in result.tasks])


@pytest.mark.parametrize("name", ["BayesOptimal", "UCB1", "ThompsonSampling", "RandomArm", "StayOrNext"])
def test_sb3s_evaluate_policy_takes_the_agents(name):
    venv = make_vec_env("BernoulliBandit-v0", n_envs=3, seed=0)
    returns, lengths = evaluate_policy(
        getattr(references, name)(), venv, n_eval_episodes=12, return_episode_rewards=True, warn=False
    )
    assert lengths == [10] * 12 and min(returns) >= 0 and max(returns) <= 10
    venv.close()


# --- predict ------------------------------------------------------------------------------------------------------


def batch(histories, n_arms=3):
    rows = [observe(history, n_arms) for history in histories]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.parametrize("name", ["BayesOptimal", "GittinsIndex", "UCB1", "StayOrNext"])
def test_a_batch_acts_like_its_environments_one_by_one(name):
    agent = references.BayesOptimal(3, 10) if name == "BayesOptimal" else getattr(references, name)()
    rng = np.random.default_rng(1)
    histories = [[(int(rng.integers(3)), int(rng.integers(2))) for _ in range(9)] for _ in range(16)]
    # Trials begin at different times, so that the pulls left differ.
    offsets = rng.integers(5, size=16)
    state = None
    for step in range(9):
        seen = [history[: max(0, step - offset)] for history, offset in zip(histories, offsets, strict=True)]
        arms, state = agent.predict(batch(seen), state, offsets >= step)
        assert arms.tolist() == [act(agent, history) for history in seen]


def test_states_are_counts_that_a_trial_start_empties_and_the_callers_copy_is_left_alone():
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
def test_random_rules_repeat_with_their_seed_and_take_no_notice_of_deterministic(name):
    make = getattr(references, name)
    runs = [
        references.simulate_bandits(make(seed=seed), n_tasks=50, deterministic=deterministic)
        for seed, deterministic in [(3, True), (3, False), (4, True)]
    ]
    assert runs[0].tolist() == runs[1].tolist() != runs[2].tolist()


def test_every_agent_of_a_simulation_meets_the_same_tasks():
    class OneArm:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.full(len(observation["prev_reward"]), 2), None

    arms = references.simulate_bandits(OneArm(), n_tasks=5000, n_pulls=20, seed=7)
    # With its arm never changed, a total is binomial with a uniform chance: every total is as likely as any other.
    assert arms.mean() == pytest.approx(10.0, abs=3 * arms.std() / sqrt(5000))
    assert stats.chisquare(np.bincount(arms.astype(int), minlength=21)).pvalue > 1e-3
    assert arms.tolist() == references.simulate_bandits(OneArm(), n_tasks=5000, n_pulls=20, seed=7).tolist()
    assert arms.tolist() != references.simulate_bandits(OneArm(), n_tasks=5000, n_pulls=20, seed=8).tolist()


def test_the_exploration_constant_of_ucb1():
    # Without exploration it is greedy on the plain mean; with much, it takes turns.
    history = [(0, 1), (1, 0), (2, 0), (0, 0), (0, 0), (0, 0)]
    assert act(references.UCB1(0.0), history) == 0
    assert act(references.UCB1(100.0), history) == 1


# --- optima with the task known, and oracles ----------------------------------------------------------------------


def plan(start, moves, reward, horizon):
    """Best sum of rewards by dynamic programming over all action sequences; ``reward(state) -> (reward, state)``."""

    @cache
    def value(state, left):
        if left == 0:
            return 0.0
        options = []
        for move in moves:
            gained, following = reward(state, move)
            options.append(gained + value(following, left - 1))
        return max(options)

    return value(start, horizon)


def walk(cell, move, size):
    return tuple(min(max(c + m, 0), size - 1) for c, m in zip(cell, move, strict=True))


STEPS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


def best_return_of_grid_navi(goal, size, horizon):
    def reward(cell, move):
        cell = walk(cell, move, size)
        return (1.0 if cell == goal else -0.1), cell

    return plan((0, 0), STEPS, reward, horizon)


def best_return_of_key_to_door(key, door, size, horizon):
    def reward(state, move):
        cell, found = walk(state[0], move, size), state[1]
        gained = (found == 0 and cell == key) or (found == 1 and cell == door)
        return float(gained), (cell, found + gained)

    return plan(((size // 2, size // 2), 0), STEPS, reward, horizon)


@pytest.mark.parametrize("size, horizon", [(5, 15), (5, 4), (3, 2), (6, 20)])
def test_the_optimum_of_grid_navi(size, horizon):
    goals = [(x, y) for x in range(size) for y in range(size) if (x, y) not in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    expected = {goal: best_return_of_grid_navi(goal, size, horizon) for goal in goals}
    for goal in goals:
        assert references.grid_navi_optimum([goal], size, horizon) == pytest.approx(expected[goal])
    assert references.grid_navi_optimum(size=size, horizon=horizon) == pytest.approx(np.mean(list(expected.values())))


def test_the_grid_navi_oracle_reaches_the_optimum_in_every_episode():
    result = evaluate_adaptation(
        references.GridNaviOracle(),
        "GridNavi-v0",
        n_eval_tasks=21,
        n_eval_episodes=3,
        env_kwargs={"reveal_task": True},
    )
    assert len(set(result.tasks)) == 21
    for goal, returns in zip(result.tasks, result.returns, strict=True):
        assert returns == pytest.approx(best_return_of_grid_navi(goal, 5, 15))
    assert result.mean_returns == pytest.approx(references.grid_navi_optimum())
    assert result.mean_returns == pytest.approx(references.grid_navi_optimum(result.tasks))


@pytest.mark.parametrize("horizon", [1, 2, 3, 4, 7])
def test_the_optimum_of_dark_key_to_door(horizon):
    cells = list(product(range(3), repeat=2))
    expected = []
    for key, door in product(cells, cells):
        expected.append(best_return_of_key_to_door(key, door, 3, horizon))
        assert references.dark_key_to_door_optimum([(key, door)], 3, horizon) == expected[-1]
    assert references.dark_key_to_door_optimum(size=3, horizon=horizon) == pytest.approx(np.mean(expected))


def play_trial(agent, env, task):
    """Returns of the inner episodes of one trial, one environment at a time."""
    observation, _ = env.reset(seed=0, options={"task": task})
    state, start, over = None, np.array([True]), False
    while not over:
        action, state = agent.predict(observation, state, start)
        observation, _, terminated, truncated, info = env.step(action)
        start, over = np.array([False]), terminated or truncated
    return info["episode_returns"]


@pytest.mark.parametrize("size, horizon", [(3, 4), (3, 6), (5, 11)])
def test_the_dark_key_to_door_oracle_reaches_the_optimum(size, horizon):
    env = gym.make("DarkKeyToDoor-v0", size=size, horizon=horizon, episodes_per_trial=2, reveal_task=True)
    cells = list(product(range(size), repeat=2))
    # Key or door may be at the start, and both in one place.
    keys = cells if size == 3 else [(0, 0), (2, 2), (4, 1)]
    for key, door in product(keys, cells):
        optimum = references.dark_key_to_door_optimum([(key, door)], size, horizon)
        assert play_trial(references.DarkKeyToDoorOracle(), env, (key, door)) == (optimum, optimum)


def test_fifty_steps_are_enough_for_every_key_and_door():
    assert references.dark_key_to_door_optimum() == 2.0
    result = evaluate_adaptation(
        references.DarkKeyToDoorOracle(), "DarkKeyToDoor-v0", 40, 3, env_kwargs={"reveal_task": True}
    )
    assert (result.returns == 2.0).all()


def best_return_of_the_point_robot(angle, radius, horizon):
    """After t steps every point of the square with half-side t / 10 can have been reached, and no other."""
    total, goal = 0.0, (cos(angle), sin(angle))
    for t in range(1, horizon + 1):
        nearest = [min(max(c, -t / 10), t / 10) for c in goal]
        distance = hypot(goal[0] - nearest[0], goal[1] - nearest[1])
        total += 1 - distance if distance <= radius else 0.0
    return total


def test_the_optimum_of_the_point_robot():
    angles = np.random.default_rng(0).uniform(0, pi, size=50)
    for radius, horizon in [(0.2, 20), (0.5, 12), (1.0, 3)]:
        expected = [best_return_of_the_point_robot(angle, radius, horizon) for angle in angles]
        for angle, best_return in zip(angles, expected, strict=True):
            found = references.sparse_point_robot_optimum([angle], radius, horizon)
            assert found == pytest.approx(best_return, abs=1e-9)
        assert references.sparse_point_robot_optimum(angles, radius, horizon) == pytest.approx(np.mean(expected))
    grid = [best_return_of_the_point_robot(angle, 0.2, 20) for angle in np.linspace(0, pi, 20_001)]
    assert references.sparse_point_robot_optimum() == pytest.approx(np.mean(grid), abs=0.002)


def test_no_other_way_of_the_point_robot_yields_more():
    env = gym.make("SparsePointRobot-v0", episodes_per_trial=1)
    rng = np.random.default_rng(0)
    for angle in (0.3, 1.2, 2.8):
        optimum = references.sparse_point_robot_optimum([angle])
        goal = np.array([cos(angle), sin(angle)])
        returns = []
        for noise in np.linspace(0, 1, 40):
            position, total = np.zeros(2), 0.0
            env.reset(seed=0, options={"task": angle})
            for _ in range(20):
                action = (10 * (goal - position) + noise * rng.normal(size=2)).clip(-1, 1).astype(np.float32)
                observation, reward, *_ = env.step(action)
                position, total = observation["observation"], total + reward
            returns.append(total)
        assert max(returns) == pytest.approx(optimum, abs=1e-5) and min(returns) < optimum - 1


def test_the_point_robot_oracle_reaches_the_optimum_in_every_episode():
    result = evaluate_adaptation(
        references.SparsePointRobotOracle(), "SparsePointRobot-v0", 30, 3, env_kwargs={"reveal_task": True}
    )
    for angle, returns in zip(result.tasks, result.returns, strict=True):
        assert returns == pytest.approx(references.sparse_point_robot_optimum([angle]), abs=1e-5)
    assert result.mean_returns == pytest.approx(references.sparse_point_robot_optimum(result.tasks), abs=1e-5)
    # Straight up, where the goal is first felt exactly at its radius
    env = gym.make("SparsePointRobot-v0", episodes_per_trial=2, reveal_task=True)
    for angle in (0.0, pi / 2, pi):
        returns = play_trial(references.SparsePointRobotOracle(), env, angle)
        assert returns == pytest.approx((references.sparse_point_robot_optimum([angle]),) * 2, abs=1e-5)
