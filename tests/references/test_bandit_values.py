"""Exact values of bandits against expectimax, and Gittins indices."""

from functools import cache
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

import sb3_trmrl.references as references
from sb3_trmrl.references.bandit_values import BernoulliValues, count_states, gittins_indices
from tests.helpers.naive_bandits import expectimax, expectimax_pull


@pytest.mark.parametrize("n_arms, n_pulls", [(1, 5), (2, 1), (2, 2), (2, 3), (2, 4), (2, 7), (3, 5), (4, 4), (6, 3)])
def test_the_optimum_equals_expectimax(n_arms: int, n_pulls: int) -> None:
    expected = expectimax(((0, 0),) * n_arms, n_pulls)
    assert references.bayes_optimal_value(n_arms, n_pulls) == pytest.approx(float(expected), abs=1e-12)


def test_known_optima() -> None:
    assert references.bayes_optimal_value(5, 10) == pytest.approx(6.66, abs=0.005)
    # One arm can only be pulled; two pulls of two arms by hand: 1/2 + 1/2 * 2/3 + 1/2 * 1/2
    assert references.bayes_optimal_value(1, 40) == pytest.approx(20.0)
    assert references.bayes_optimal_value(2, 2) == pytest.approx(13 / 12)
    # More arms than pulls are of no use
    assert references.bayes_optimal_value(1000, 4) == references.bayes_optimal_value(4, 4)


def test_the_value_of_each_pull_equals_expectimax_in_every_state() -> None:
    n_arms, n_pulls = 3, 5
    values = BernoulliValues(n_arms, n_pulls)
    for numbers in product(range(n_pulls), repeat=2 * n_arms):
        arms = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        left = n_pulls - sum(numbers)
        if left < 1:
            continue
        wins, losses = np.array(arms).T[:, None]
        expected = [float(expectimax_pull(arms, i, left)) for i in range(n_arms)]
        assert values.pull_values(wins, losses)[0] == pytest.approx(expected)


@pytest.mark.parametrize("n_arms, n_pulls", [(1, 6), (2, 5), (3, 4), (4, 4), (7, 3)])
def test_the_number_of_states(n_arms: int, n_pulls: int) -> None:
    pairs = [(wins, losses) for wins in range(n_pulls) for losses in range(n_pulls)]
    states = [s for s in combinations_with_replacement(pairs, n_arms) if sum(map(sum, s)) < n_pulls]
    assert BernoulliValues(n_arms, n_pulls).n_states == count_states(n_arms, n_pulls) == len(states)


def test_gittins_indices_of_the_last_two_pulls() -> None:
    indices = gittins_indices(8)
    assert indices.shape == (9, 8, 8)
    for wins in range(4):
        for losses in range(4):
            p, if_won = (wins + 1) / (wins + losses + 2), (wins + 2) / (wins + losses + 3)
            # With one pull left nothing can be learnt; with two, giving up after a loss: p - c + p (if_won - c) = 0
            assert indices[1, wins, losses] == pytest.approx(p, abs=1e-6)
            assert indices[2, wins, losses] == pytest.approx(p * (1 + if_won) / (1 + p), abs=1e-4)
    assert (np.diff([indices[left, 1, 1] for left in range(1, 7)]) > 0).all()


def test_the_gittins_index_is_the_fair_price_of_an_arm() -> None:
    """An arm against sure payments: worth pulling below the index, not above it (all futures written out)."""

    @cache
    def worth(wins: int, losses: int, left: int, payment: float) -> float:
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
