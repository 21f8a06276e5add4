"""Advantages of the episodes of one task, with a linear baseline that is fitted to them."""

from __future__ import annotations

import numpy as np
import scipy.linalg

#: Factor of the identity matrix that is added to the normal equations of the baseline
REGULARIZATION = 1e-5
#: The baseline reads states only if there are so many times more steps than features. Otherwise it would equal the
#: returns, and the advantages would be noise
STEPS_PER_FEATURE = 2


def estimate_advantages(
    states: np.ndarray, rewards: np.ndarray, ends: np.ndarray, gamma: float, gae_lambda: float, normalize: bool
) -> np.ndarray:
    """
    :param states: States of whole episodes of one task, one episode after the other, (N, S)
    :param rewards: Rewards of the actions in these states, (N,)
    :param ends: Whether an episode ends with this step, (N,)
    :param gamma: Discount factor
    :param gae_lambda: Factor of Generalized Advantage Estimation
    :param normalize: Whether to shift and scale the advantages to mean 0 and standard deviation 1
    :return: Advantages, float64, (N,). The value after the last step of an episode is 0
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    inputs = baseline_features(states, ends)
    values = inputs @ fit_baseline(inputs, discounted_sums(rewards, ends, gamma))
    next_values = np.where(ends, 0.0, np.append(values[1:], 0.0))
    advantages = discounted_sums(rewards + gamma * next_values - values, ends, gamma * gae_lambda)
    if normalize:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return advantages


def discounted_sums(values: np.ndarray, ends: np.ndarray, discount: float) -> np.ndarray:
    """Return the discounted sum of the values from each step to the end of its episode, (N,)."""
    sums = np.zeros(len(values))
    following = 0.0
    for step in range(len(values) - 1, -1, -1):
        following = float(values[step]) + (0.0 if ends[step] else discount * following)
        sums[step] = following
    return sums


def baseline_features(states: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """
    Return states, their squares, three powers of the time in the episode and 1, float64, (N, 2 S + 4); with too few
    steps for so many features only the last four.
    """
    steps = np.arange(len(states))
    begins = np.append(True, ends[:-1])
    time = (steps - np.maximum.accumulate(np.where(begins, steps, 0))) / 100
    powers = np.stack([time**exponent for exponent in (1, 2, 3, 0)], axis=1)
    if len(states) < STEPS_PER_FEATURE * (2 * states.shape[1] + 4):
        return powers
    states = np.clip(np.asarray(states, dtype=np.float64), -10, 10)
    return np.concatenate((states, states**2, powers), axis=1)


def fit_baseline(features: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Return the coefficients of regularised linear least squares, (F,)."""
    matrix = features.T @ features + REGULARIZATION * np.eye(features.shape[1])
    coefficients: np.ndarray = scipy.linalg.lstsq(matrix, features.T @ returns, lapack_driver="gelsy")[0]
    return coefficients
