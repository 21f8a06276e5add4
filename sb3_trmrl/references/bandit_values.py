"""
Exact values of Bernoulli bandits whose arms' probabilities are uniform on [0, 1].

After w wins and l losses an arm's probability is Beta(1 + w, 1 + l), and it pays next with (w + 1) / (w + l + 2).
"""

from __future__ import annotations

from math import comb

import numpy as np

from sb3_trmrl.common.checks import check_positive_int

#: Most numbers (states times arms) that a table may hold: seconds, and 100 MB while it is made
MAX_SIZE = 8_000_000
#: Longest problem of ``gittins_indices``: 200 MB
MAX_GITTINS_PULLS = 200


class BernoulliValues:
    """
    Expected sum of rewards to come under the best policy, in every state before the last pull.

    A state is what is known of each arm, its wins and losses. Which arm is which makes no difference, so that a state
    is sorted; states with the same number of pulls make a level.

    :param n_arms: Number of arms k
    :param n_pulls: Number of pulls n
    :raises ValueError: if there are too many states
    """

    def __init__(self, n_arms: int, n_pulls: int) -> None:
        self.n_arms = check_positive_int("n_arms", n_arms)
        self.n_pulls = check_positive_int("n_pulls", n_pulls)
        _check_size(self.n_arms, self.n_pulls)

        # Wins and losses of one arm as one number: those with fewer pulls first
        self._pulls = np.repeat(np.arange(n_pulls), np.arange(1, n_pulls + 1))
        # A state as one number, its arms being digits. More arms than pulls are never needed, and the i-th most pulled
        # arm of a state has at most (n - 1) / i pulls.
        most_pulls = [(n_pulls - 1) // i for i in range(1, min(n_arms, n_pulls) + 1)]
        self._bases = np.array([(m + 1) * (m + 2) // 2 for m in most_pulls])
        self._weights = np.cumprod([1, *self._bases[:-1]])

        keys = [np.zeros(1, dtype=np.int64)]
        for _ in range(n_pulls - 1):
            codes = self._codes(keys[-1])
            keys.append(np.unique([self._keys_after(codes, won) for won in (False, True)]))
        self._levels: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for level in reversed(range(n_pulls)):
            values = self._of_pulls(level, self._codes(keys[level])).max(axis=1)
            self._levels[level] = keys[level], values

    @property
    def optimum(self) -> float:
        """Expected sum of rewards of all pulls"""
        return float(self._levels[0][1][0])

    @property
    def n_states(self) -> int:
        """Number of states before the last pull"""
        return sum(len(keys) for keys, _ in self._levels.values())

    def of_pulls(self, wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """
        :param wins: Wins of each arm, (B, k), in rows with the same number of pulls, less than n
        :param losses: Losses of each arm, (B, k)
        :return: Expected sum of rewards from here on if an arm is pulled next and the best ones afterwards, (B, k)
        """
        pulls = wins + losses
        return self._of_pulls(int(pulls[0].sum()), pulls * (pulls + 1) // 2 + wins)

    def _of_pulls(self, level: int, codes: np.ndarray) -> np.ndarray:
        pulls = self._pulls[codes]
        wins = codes - pulls * (pulls + 1) // 2
        chance: np.ndarray = (wins + 1) / (pulls + 2)
        if level == self.n_pulls - 1:
            return chance
        keys, values = self._levels[level + 1]
        after_loss, after_win = (values[np.searchsorted(keys, self._keys_after(codes, won))] for won in (False, True))
        values_of_pulls: np.ndarray = chance * (1 + after_win) + (1 - chance) * after_loss
        return values_of_pulls

    def _keys_after(self, codes: np.ndarray, won: bool) -> np.ndarray:
        """
        :param codes: Arms of some states, (B, k)
        :param won: Whether the pull wins
        :return: Keys of the states after a pull of each arm, (B, k)
        """
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
    The most that any agent can expect of ``BernoulliBandit-v0``: the mean over tasks of the sum of rewards of the
    policy that makes the best of what it has seen (exact, by dynamic programming over what is known of the arms).

    :param n_arms: Number of arms
    :param n_pulls: Number of pulls of a trial
    :return: Expected sum of rewards of a trial
    :raises ValueError: if there are too many states, as with 5 arms and 100 pulls
    """
    return BernoulliValues(n_arms, n_pulls).optimum


def count_states(n_arms: int, n_pulls: int) -> float:
    """
    :param n_arms: Number of arms k
    :param n_pulls: Number of pulls n
    :return: Number of states before the last pull (sets of k arms with repetition, with less than n pulls in all); once
        the count makes a table too large it stops, and what is returned is less than that number
    """
    ways = np.zeros((n_arms + 1, n_pulls))  # by arms that were pulled, and pulls in all
    ways[0, 0] = 1
    for pulls in range(1, n_pulls):
        before = ways.copy()
        for n in range(1, min(n_arms, (n_pulls - 1) // pulls) + 1):
            # n arms with this many pulls, which have pulls + 1 kinds of wins and losses
            ways[n:, n * pulls :] += comb(pulls + n, n) * before[:-n, : -n * pulls]
        if ways.sum() * n_arms > MAX_SIZE:
            break
    return float(ways.sum())


def _check_size(n_arms: int, n_pulls: int) -> None:
    # One arm alone has n (n + 1) / 2 states; with 32 arms and more than 32 pulls there are always too many
    n_states = n_pulls * (n_pulls + 1) / 2
    if n_states <= MAX_SIZE:
        n_states = count_states(min(n_arms, n_pulls, 32), n_pulls)
    if n_states * min(n_arms, n_pulls) > MAX_SIZE:
        raise ValueError(
            f"`n_arms`={n_arms} and `n_pulls`={n_pulls} have more than {n_states:.2g} different states, too many for a "
            f"table: there may be {MAX_SIZE:.2g} numbers, states times arms"
        )


def gittins_indices(n_pulls: int) -> np.ndarray:
    """
    Gittins indices for a finite horizon: how much a sure payment for each pull would have to be for an arm with these
    wins and losses to be given up for good. Exact to about 1e-4.

    :param n_pulls: Number of pulls n, at most 200
    :return: Index by pulls left, wins and losses, (n + 1, n, n); zero where they do not add up to n or less
    :raises ValueError: if ``n_pulls`` is out of range
    """
    if check_positive_int("n_pulls", n_pulls) > MAX_GITTINS_PULLS:
        raise ValueError(f"`n_pulls` must be at most {MAX_GITTINS_PULLS} for Gittins indices, got {n_pulls}")
    payments = np.linspace(0.0, 1.0, 201)
    wins, losses = np.ogrid[:n_pulls, :n_pulls]
    chances = ((wins + 1) / (wins + losses + 2))[..., None]
    indices = np.zeros((n_pulls + 1, n_pulls, n_pulls))
    # What the arm is worth beyond the sure payments, by wins, losses and payment
    surplus = np.zeros((n_pulls + 1, n_pulls + 1, len(payments)))
    for left in range(1, n_pulls + 1):
        size = n_pulls - left + 1
        chance = chances[:size, :size]
        # Falls from above to below zero as the payment grows
        goes_on = chance * (1 + surplus[1:, :size]) + (1 - chance) * surplus[:size, 1:] - payments
        above = (goes_on > 0).sum(axis=-1, keepdims=True) - 1
        high, low = (np.take_along_axis(goes_on, above + i, axis=-1) for i in (0, 1))
        indices[left, :size, :size] = ((above + high / (high - low)) / (len(payments) - 1))[..., 0]
        surplus = np.maximum(goes_on, 0.0)
    return indices
