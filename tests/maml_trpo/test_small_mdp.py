"""
Gradients of the inner and the outer step against finite differences of exact expected returns.

Two tasks on the same small Markov decision process: two states, two actions, three steps. The return of a tabular
softmax policy is computed by dynamic programming, and that of an adapted policy with the closed form of the gradient.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trmrl.maml_trpo import MAMLPolicy
from sb3_trmrl.maml_trpo.inner import Samples, adapt, flat_parameters, outputs, padded
from sb3_trmrl.maml_trpo.outer import Objective, TaskSamples
from tests.helpers.maml import sampled_family

HORIZON, RATE = 3, 0.7
#: Probability of the second state after a state and an action, and the rewards of both tasks
TO_SECOND = np.array([[0.1, 0.8], [0.6, 0.3]])
REWARDS = np.array([[[0.0, 1.0], [-0.5, 2.0]], [[1.0, -1.0], [3.0, 0.5]]])


def probabilities(weights: np.ndarray) -> np.ndarray:
    """Return those of the actions in each state, (2, 2), given the flat parameters: a 2 x 2 matrix and a bias."""
    logits = weights[:4].reshape(2, 2).T + weights[4:]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def action_values(policy: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Return the expected sum of the rewards from each step, state and action on, (HORIZON, 2, 2)."""
    after, found = np.zeros(2), []
    for _ in range(HORIZON):
        found.append(rewards + (1 - TO_SECOND) * after[0] + TO_SECOND * after[1])
        after = (policy * found[-1]).sum(axis=1)
    return np.array(found[::-1])


def visits(policy: np.ndarray) -> np.ndarray:
    """Return the probability of each state and action at each step, (HORIZON, 2, 2). Episodes begin in the first."""
    states, found = np.array([1.0, 0.0]), []
    for _ in range(HORIZON):
        found.append(states[:, None] * policy)
        second = (found[-1] * TO_SECOND).sum()
        states = np.array([1 - second, second])
    return np.array(found)


def expected_return(weights: np.ndarray, task: int) -> float:
    policy = probabilities(weights)
    return float((visits(policy)[0] * action_values(policy, REWARDS[task])[0]).sum())


def slope(function: Callable[[np.ndarray], float], weights: np.ndarray, step: float = 1e-5) -> np.ndarray:
    shifts = step * np.eye(len(weights))
    return np.array([(function(weights + e) - function(weights - e)) / (2 * step) for e in shifts])


@pytest.fixture
def policy() -> MAMLPolicy:
    """Logits are a linear function of a state, which is one-hot"""
    space = sampled_family(spaces.Box(0.0, 1.0, (2,), np.float32), spaces.Discrete(2)).observation_space
    policy = MAMLPolicy(space, spaces.Discrete(2), net_arch=[], ortho_init=False).double()
    assert [tuple(each.shape) for each in policy.parameters()] == [(2, 2), (2,)]
    return policy


def all_steps(policy: MAMLPolicy, flat: np.ndarray, task: int) -> list[th.Tensor]:
    """Return every step, state and action once: states, actions, their values and the policy's numbers."""
    states = th.eye(2, dtype=th.float64).repeat_interleave(2, dim=0).repeat(HORIZON, 1)
    actions = th.arange(2.0, dtype=th.float64).repeat(2 * HORIZON)[:, None]
    values = th.as_tensor(action_values(probabilities(flat), REWARDS[task]).ravel())
    return [states, actions, values, outputs(policy, th.as_tensor(flat)[None], states[None])[0]]


def exact(policy: MAMLPolicy, flats: list[np.ndarray]) -> Samples:
    """Return the data of both tasks, each step weighted with its probability instead of being sampled."""
    samples = padded([all_steps(policy, flat, task) for task, flat in enumerate(flats)])
    weights = np.stack([visits(probabilities(flat)).ravel() for flat in flats])
    return samples._replace(weights=th.as_tensor(weights))


def adapted(weights: np.ndarray, data_from: np.ndarray, task: int) -> np.ndarray:
    """Return the parameters after an inner step on data from a policy. d log p(a|s) / d logits = onehot(a) - p(.|s)."""
    old, new = probabilities(data_from), probabilities(weights)
    terms = visits(old) * action_values(old, REWARDS[task])
    matrix = np.zeros((2, 2))
    for state in range(2):
        for action in range(2):
            matrix[:, state] += terms[:, state, action].sum() * (np.eye(2)[action] - new[state])
    return weights + RATE * np.concatenate((matrix.ravel(), matrix.sum(axis=1)))


def test_an_inner_step_follows_the_slope_of_the_expected_return(policy: MAMLPolicy) -> None:
    start = flat_parameters(policy).numpy()
    found = adapt(policy, th.as_tensor(start).expand(2, -1), [exact(policy, [start, start])], RATE).detach().numpy()
    for task in range(2):
        ascent = slope(lambda each, task=task: expected_return(each, task), start)
        assert np.abs(ascent).max() > 0.1
        np.testing.assert_allclose(found[task], start + RATE * ascent, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found[task], adapted(start, start, task), rtol=1e-12)


def test_the_outer_gradient_is_the_slope_of_the_expected_return_after_adaptation(policy: MAMLPolicy) -> None:
    start = flat_parameters(policy).numpy()
    after = [adapted(start, start, task) for task in range(2)]
    batch = TaskSamples((exact(policy, [start, start]),), exact(policy, after))
    found = Objective(policy, [batch], RATE).gradient(th.as_tensor(start)).numpy()

    def mean_return(weights: np.ndarray) -> float:
        # As in MAML, the data of the inner step do not change with the parameters
        return float(np.mean([expected_return(adapted(weights, start, task), task) for task in range(2)]))

    np.testing.assert_allclose(found, slope(mean_return, start), rtol=1e-6, atol=1e-8)
    slopes = [slope(lambda each, task=task: expected_return(each, task), after[task]) for task in range(2)]
    first_order = np.mean(slopes, axis=0)
    assert np.abs(found - first_order).max() > 0.01, "the inner step matters"
