"""
Exact values of Bernoulli bandits whose arms have probabilities that are uniformly distributed on [0, 1].

After w wins and l losses, an arm's probability has the distribution Beta(1 + w, 1 + l) and the mean
(w + 1) / (w + l + 2).
"""

from __future__ import annotations

from math import comb

import numpy as np

from sb3_trmrl.common.checks import check_positive_int

#: Maximum size of a table, in states times arms; making it takes seconds and 100 MB
MAX_SIZE = 8_000_000
#: Maximum number of pulls for ``gittins_indices``, which then takes 200 MB
MAX_GITTINS_PULLS = 200


class BernoulliValues:
    """Expected sum of future rewards under the best policy, for every state before the last pull."""

    # A state is the wins and losses of each of k arms, sorted because the arms are interchangeable. States with
    # the same total number of pulls form a level

    def __init__(self, n_arms: int, n_pulls: int) -> None:
        self.n_arms = check_positive_int("n_arms", n_arms)
        self.n_pulls = check_positive_int("n_pulls", n_pulls)
        _check_size(self.n_arms, self.n_pulls)

        # Wins and losses of one arm are coded as one number, ordered by their sum
        self._pulls = np.repeat(np.arange(n_pulls), np.arange(1, n_pulls + 1))
        # A state is coded as one number, whose digits are the arms. More arms than pulls are never needed, and the i-th
        # most pulled arm of a state has at most (n - 1) / i pulls.
        most_pulls = [(n_pulls - 1) // i for i in range(1, min(n_arms, n_pulls) + 1)]
        self._bases = np.array([(m + 1) * (m + 2) // 2 for m in most_pulls])
        self._weights = np.cumprod([1, *self._bases[:-1]])

        keys = [np.zeros(1, dtype=np.int64)]
        for _ in range(n_pulls - 1):
            codes = self._codes(keys[-1])
            keys.append(np.unique([self._keys_after(codes, won) for won in (False, True)]))
        self._levels: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for level in reversed(range(n_pulls)):
            values = self._pull_values(level, self._codes(keys[level])).max(axis=1)
            self._levels[level] = keys[level], values

    @property
    def optimum(self) -> float:
        """Expected sum of rewards of all pulls"""
        return float(self._levels[0][1][0])

    @property
    def n_states(self) -> int:
        """Number of states before the last pull"""
        return sum(len(keys) for keys, _ in self._levels.values())

    def pull_values(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """Return the value of pulling each arm, (B, k), given wins and losses with the same sum in each row."""
        pulls = wins + losses
        return self._pull_values(int(pulls[0].sum()), pulls * (pulls + 1) // 2 + wins)

    def _pull_values(self, level: int, codes: np.ndarray) -> np.ndarray:
        pulls = self._pulls[codes]
        wins = codes - pulls * (pulls + 1) // 2
        chance: np.ndarray = (wins + 1) / (pulls + 2)
        if level == self.n_pulls - 1:
            return chance
        keys, values = self._levels[level + 1]
        after_loss, after_win = (values[np.searchsorted(keys, self._keys_after(codes, won))] for won in (False, True))
        pull_values: np.ndarray = chance * (1 + after_win) + (1 - chance) * after_loss
        return pull_values

    def _keys_after(self, codes: np.ndarray, won: bool) -> np.ndarray:
        """Return the keys of the states after a won or lost pull of each arm, (B, k), given its codes, (B, k)."""
        after = np.empty(codes.shape, dtype=np.int64)
        for arm in range(codes.shape[1]):
            pulled = codes.copy()
            pulled[:, arm] += self._pulls[codes[:, arm]] + 1 + won
            pulled[:] = -np.sort(-pulled, axis=1)
            after[:, arm] = pulled[:, : len(self._weights)] @ self._weights
        return after

    def _codes(self, keys: np.ndarray) -> np.ndarray:
        codes: np.ndarray = keys[:, None] // self._weights % self._bases
        return codes


def bayes_optimal_value(n_arms: int, n_pulls: int) -> float:
    """
    Return the highest expected return in ``BernoulliBandit-v0`` of an agent that is not given the task (exact, by
    dynamic programming over wins and losses of the arms).

    :param n_arms: Number of arms
    :param n_pulls: Number of pulls of a trial
    :return: Expected sum of rewards of a trial
    :raises ValueError: if there are too many states, as with 5 arms and 100 pulls
    """
    return BernoulliValues(n_arms, n_pulls).optimum


def count_states(n_arms: int, n_pulls: int) -> float:
    """Return the number of states before the last pull; counting stops at one that is too large for a table."""
    # The states are the multisets of k arms with less than n pulls in all
    ways = np.zeros((n_arms + 1, n_pulls))  # by number of arms that were pulled, and number of pulls
    ways[0, 0] = 1
    for pulls in range(1, n_pulls):
        before = ways.copy()
        for n in range(1, min(n_arms, (n_pulls - 1) // pulls) + 1):
            # n arms with this many pulls each, for which there are pulls + 1 combinations of wins and losses
            ways[n:, n * pulls :] += comb(pulls + n, n) * before[:-n, : -n * pulls]
        if ways.sum() * n_arms > MAX_SIZE:
            break
    return float(ways.sum())


def _check_size(n_arms: int, n_pulls: int) -> None:
    # A single arm has n (n + 1) / 2 states; with 32 arms and more than 32 pulls there are always too many
    n_states = n_pulls * (n_pulls + 1) / 2
    if n_states <= MAX_SIZE:
        n_states = count_states(min(n_arms, n_pulls, 32), n_pulls)
    if n_states * min(n_arms, n_pulls) > MAX_SIZE:
        raise ValueError(
            f"`n_arms`={n_arms} and `n_pulls`={n_pulls} have at least {n_states:.2g} states, too many for a table, "
            f"whose size must be at most {MAX_SIZE:.2g} numbers (states times arms)"
        )


def gittins_indices(n_pulls: int) -> np.ndarray:
    """Return the finite-horizon Gittins indices by remaining pulls, wins and losses, (n + 1, n, n)."""
    # The index is the sure payment for each pull at which one would give up an arm with these wins and losses for good,
    # exact to about 1e-4, and zero if remaining pulls, wins and losses add up to more than n
    if check_positive_int("n_pulls", n_pulls) > MAX_GITTINS_PULLS:
        raise ValueError(f"`n_pulls` must be at most {MAX_GITTINS_PULLS} for Gittins indices, got {n_pulls}")
    payments = np.linspace(0.0, 1.0, 201)
    wins, losses = np.ogrid[:n_pulls, :n_pulls]
    chances = ((wins + 1) / (wins + losses + 2))[..., None]
    indices = np.zeros((n_pulls + 1, n_pulls, n_pulls))
    # Value of the arm minus the guaranteed payments, by wins, losses and payment
    surplus = np.zeros((n_pulls + 1, n_pulls + 1, len(payments)))
    for left in range(1, n_pulls + 1):
        size = n_pulls - left + 1
        chance = chances[:size, :size]
        # Decreases from above to below zero as the payment grows
        continued = chance * (1 + surplus[1:, :size]) + (1 - chance) * surplus[:size, 1:] - payments
        above = (continued > 0).sum(axis=-1, keepdims=True) - 1
        high, low = (np.take_along_axis(continued, above + i, axis=-1) for i in (0, 1))
        indices[left, :size, :size] = ((above + high / (high - low)) / (len(payments) - 1))[..., 0]
        surplus = np.maximum(continued, 0.0)
    return indices
