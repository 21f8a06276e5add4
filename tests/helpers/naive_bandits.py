"""Bernoulli bandits by brute force: the best policy over all futures, and rules as functions of the history."""

from fractions import Fraction
from functools import cache
from math import log, sqrt
from typing import Any

import numpy as np
from scipy import stats


@cache
def expectimax(arms: Any, n_pulls: int) -> Any:
    """Highest expected sum of rewards from wins and losses of each arm, over all possible futures."""
    if n_pulls == 0:
        return Fraction(0)
    return max(expectimax_pull(arms, i, n_pulls) for i in range(len(arms)))


def expectimax_pull(arms: Any, i: Any, n_pulls: int) -> Any:
    """The same if arm i is pulled now."""
    wins, losses = arms[i]
    chance = Fraction(wins + 1, wins + losses + 2)
    won, lost = ((*arms[:i], pair, *arms[i + 1 :]) for pair in ((wins + 1, losses), (wins, losses + 1)))
    return chance * (1 + expectimax(won, n_pulls - 1)) + (1 - chance) * expectimax(lost, n_pulls - 1)


def counts(history: Any, n_arms: int) -> Any:
    return [tuple(sum(arm == i and paid == won for arm, paid in history) for won in (1, 0)) for i in range(n_arms)]


def best(scores: list[float]) -> Any:
    chosen = [0.0] * len(scores)
    chosen[max(range(len(scores)), key=lambda i: (scores[i], -i))] = 1.0
    return chosen


def greedy_rule(history: Any, n_arms: int) -> Any:
    means = [(wins + 1) / (wins + losses + 2) for wins, losses in counts(history, n_arms)]
    return [(mean == max(means)) / means.count(max(means)) for mean in means]


def ucb_rule(history: Any, n_arms: int) -> Any:
    found = counts(history, n_arms)
    for i, pair in enumerate(found):
        if sum(pair) == 0:
            return [float(j == i) for j in range(n_arms)]
    return best([w / (w + lost) + sqrt(2 * log(len(history)) / (w + lost)) for w, lost in found])


@cache
def thompson_chances(pairs: Any) -> Any:
    """Chance of each arm's draw to be the highest, by numerical integration."""
    x = (np.arange(4000) + 0.5) / 4000
    density = [stats.beta.pdf(x, wins + 1, losses + 1) for wins, losses in pairs]
    below = [stats.beta.cdf(x, wins + 1, losses + 1) for wins, losses in pairs]
    others = [np.prod([below[j] for j in range(len(pairs)) if j != i], axis=0) for i in range(len(pairs))]
    return [float((density[i] * others[i]).mean()) for i in range(len(pairs))]


def thompson_rule(history: Any, n_arms: int) -> Any:
    return thompson_chances(tuple(counts(history, n_arms)))


def stay_or_next_rule(history: Any, n_arms: int) -> Any:
    arm, paid = history[-1] if history else (0, 1)
    return [float(i == (arm if paid else (arm + 1) % n_arms)) for i in range(n_arms)]


def random_rule(history: Any, n_arms: int) -> Any:
    return [1 / n_arms] * n_arms


RULES = {
    "PosteriorMeanGreedy": greedy_rule,
    "UCB1": ucb_rule,
    "ThompsonSampling": thompson_rule,
    "StayOrNext": stay_or_next_rule,
    "RandomArm": random_rule,
}


def exact_value(rule: Any, n_arms: int, n_pulls: int, history: Any = ()) -> float:
    """Expected sum of rewards of a rule, over all histories."""
    if n_pulls == 0:
        return 0.0
    value: float = 0.0
    for arm, chosen in enumerate(rule(history, n_arms)):
        if chosen > 0:
            wins, losses = counts(history, n_arms)[arm]
            p = (wins + 1) / (wins + losses + 2)
            won = 1 + exact_value(rule, n_arms, n_pulls - 1, (*history, (arm, 1)))
            lost = exact_value(rule, n_arms, n_pulls - 1, (*history, (arm, 0)))
            value += chosen * (p * won + (1 - p) * lost)
    return value


def observe(history: Any, n_arms: int = 3) -> Any:
    """What a single environment shows after some pulls."""
    observation = {key: np.zeros(1, np.float32) for key in ("observation", "prev_reward", "prev_done")}
    observation["prev_action"] = np.zeros(n_arms, np.float32)
    if history:
        observation["prev_action"][history[-1][0]] = 1.0
        observation["prev_reward"][0] = history[-1][1]
    return observation


def act(agent: Any, history: Any, n_arms: int = 3) -> Any:
    """The agent's next arm in a single environment, after replaying a history."""
    state = None
    for i in range(len(history) + 1):
        arm, state = agent.predict(observe(history[:i], n_arms), state, np.array([i == 0]), deterministic=True)
    return arm
