"""Advantages and the linear baseline against naive references."""

import numpy as np
import pytest

from sb3_trmrl.maml_trpo.advantages import (
    REGULARIZATION,
    baseline_features,
    discounted_sums,
    estimate_advantages,
    fit_baseline,
)

LENGTHS = (4, 1, 7, 5, 9)
GAMMA, LAMBDA = 0.9, 0.7
RNG = np.random.default_rng(0)
STATES = RNG.normal(size=(sum(LENGTHS), 3)) * 6
REWARDS = RNG.normal(size=sum(LENGTHS)) * 5 + 2
ENDS = np.zeros(sum(LENGTHS), dtype=bool)
ENDS[np.cumsum(LENGTHS) - 1] = True


def naive_features() -> np.ndarray:
    rows, step = [], 0
    for length in LENGTHS:
        for t in range(length):
            state = np.clip(STATES[step], -10, 10)
            rows.append([*state, *(state**2), t / 100, (t / 100) ** 2, (t / 100) ** 3, 1])
            step += 1
    return np.array(rows)


def naive_returns() -> np.ndarray:
    returns, first = [], 0
    for length in LENGTHS:
        episode = REWARDS[first : first + length]
        returns += [sum(GAMMA**k * episode[t + k] for k in range(length - t)) for t in range(length)]
        first += length
    return np.array(returns)


def naive_gae(values: np.ndarray) -> np.ndarray:
    """A weighted sum of advantages over k steps, for all k"""
    advantages, first = [], 0
    for length in LENGTHS:
        reward = REWARDS[first : first + length]
        value = np.append(values[first : first + length], 0.0)
        for t in range(length):
            left = length - t
            k_steps = [
                sum(GAMMA**i * reward[t + i] for i in range(k)) + GAMMA**k * value[t + k] - value[t]
                for k in range(1, left + 1)
            ]
            weights = [(1 - LAMBDA) * LAMBDA ** (k - 1) for k in range(1, left)] + [LAMBDA ** (left - 1)]
            advantages.append(float(np.dot(weights, k_steps)))
        first += length
    return np.array(advantages)


def test_features_and_returns() -> None:
    np.testing.assert_allclose(baseline_features(STATES, ENDS), naive_features())
    np.testing.assert_allclose(discounted_sums(REWARDS, ENDS, GAMMA), naive_returns())


def test_the_baseline_is_ridge_regression() -> None:
    features, returns = naive_features(), naive_returns()
    n = features.shape[1]
    stacked = np.concatenate((features, np.sqrt(REGULARIZATION) * np.eye(n)))
    expected = np.linalg.lstsq(stacked, np.append(returns, np.zeros(n)), rcond=None)[0]
    fitted = fit_baseline(features, returns)
    np.testing.assert_allclose(features @ fitted, features @ expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_advantages(normalize: bool) -> None:
    values = naive_features() @ fit_baseline(naive_features(), naive_returns())
    expected = naive_gae(values)
    if normalize:
        expected = (expected - np.mean(expected)) / np.std(expected)
    found = estimate_advantages(STATES, REWARDS, ENDS, GAMMA, LAMBDA, normalize)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_equal_returns_have_no_advantage() -> None:
    assert np.abs(estimate_advantages(STATES, 0 * REWARDS, ENDS, GAMMA, 1.0, True)).max() == 0


def test_a_baseline_of_few_steps_reads_only_the_time() -> None:
    """26 steps are enough for 3 numbers of the state and their squares, 10 are not."""
    few = baseline_features(STATES[:12], ENDS[:12])
    np.testing.assert_allclose(few, naive_features()[:12, 6:])
    assert baseline_features(STATES[:20], ENDS[:20]).shape == (20, 10)
    assert baseline_features(STATES[:19], ENDS[:19]).shape == (19, 4)
