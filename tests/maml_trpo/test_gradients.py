"""Inner and outer gradients, and the KL divergence's Hessian, against finite differences in 64 bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.stats import norm

from sb3_trmrl.maml_trpo import MAMLPolicy
from sb3_trmrl.maml_trpo.inner import (
    Samples,
    adapt,
    flat_parameters,
    inner_loss,
    outputs,
    outputs_of_each,
    set_flat_parameters,
)
from sb3_trmrl.maml_trpo.outer import Objective, TaskSamples, trpo_step
from tests.helpers.agents import ACTION_SPACES
from tests.helpers.maml import sampled_family, tiny_maml

RATE = 0.5
STATE = spaces.Box(-1.0, 1.0, (2,), np.float32)


def make_policy(action_space: str) -> MAMLPolicy:
    space = sampled_family(STATE, ACTION_SPACES[action_space]).observation_space
    th.manual_seed(0)
    policy = MAMLPolicy(space, ACTION_SPACES[action_space], net_arch=[3], ortho_init=False, log_std_init=-0.3)
    return policy.double()


def make_samples(policy: MAMLPolicy, flat: th.Tensor, n: int = 6) -> Samples:
    states = th.randn(n, 2, dtype=th.float64)
    with th.no_grad():
        numbers = outputs(policy, flat, states)
        actions = policy.distribution(numbers).sample().reshape(n, -1).double()
    return Samples(states, actions, th.randn(n, dtype=th.float64), numbers)


def make_tasks(policy: MAMLPolicy, n_inner_steps: int) -> list[TaskSamples]:
    tasks = []
    for _ in range(2):
        flat, inner = flat_parameters(policy), []
        for _ in range(n_inner_steps):
            inner.append(make_samples(policy, flat))
            flat = adapt(policy, flat, inner[-1:], RATE).detach()
        tasks.append(TaskSamples(tuple(inner), make_samples(policy, flat)))
    return tasks


def finite_differences(function: Callable[[th.Tensor], float], flat: th.Tensor, step: float = 1e-5) -> th.Tensor:
    shifts = step * th.eye(len(flat), dtype=flat.dtype)
    return th.tensor([(function(flat + e) - function(flat - e)) / (2 * step) for e in shifts], dtype=flat.dtype)


@pytest.mark.parametrize("action_space", ["box", "discrete", "multi-discrete"])
def test_an_inner_step_follows_the_policy_gradient(action_space: str) -> None:
    policy = make_policy(action_space)
    flat = flat_parameters(policy)
    samples = make_samples(policy, flat)
    slope = finite_differences(lambda each: float(inner_loss(policy, each, samples)), flat)
    assert slope.abs().max() > 0.01
    th.testing.assert_close(adapt(policy, flat, [samples], RATE), flat - RATE * slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_inner_steps", [1, 2])
@pytest.mark.parametrize("action_space", ["box", "discrete"])
def test_the_outer_gradient_passes_through_the_inner_steps(action_space: str, n_inner_steps: int) -> None:
    policy = make_policy(action_space)
    flat = flat_parameters(policy)
    objective = Objective(policy, make_tasks(policy, n_inner_steps), RATE)
    expected = finite_differences(lambda each: objective.values(each)[0], flat)
    found = objective.gradient(flat)
    th.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    first_order = 0.5 * sum(
        finite_differences(lambda each, task=task: Objective(policy, [TaskSamples((), task.outer)], RATE).values(each)[0],
                           adapt(policy, flat, task.inner, RATE).detach())
        for task in objective.tasks
    )  # fmt: skip
    assert (found - first_order).abs().max() > 0.01


@pytest.mark.parametrize("n_inner_steps", [1, 2])
@pytest.mark.parametrize("action_space", ["box", "discrete"])
def test_the_hessian_of_the_divergence_passes_through_the_inner_steps(action_space: str, n_inner_steps: int) -> None:
    policy = make_policy(action_space)
    flat = flat_parameters(policy)
    objective = Objective(policy, make_tasks(policy, n_inner_steps), RATE)
    vector = th.randn_like(flat)

    def divergence(each: th.Tensor) -> float:
        return objective.values(each)[1]

    assert divergence(flat) == pytest.approx(0, abs=1e-12)
    step = 1e-4
    along = [finite_differences(divergence, flat + sign * step * vector, 1e-4) for sign in (1, -1)]
    expected = (along[0] - along[1]) / (2 * step)
    found = objective.kl_hessian_vector_product(flat, vector)
    th.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    without = Objective(policy, [TaskSamples((), task.outer) for task in objective.tasks], RATE)
    assert (found - without.kl_hessian_vector_product(flat, vector)).abs().max() > 0.01


def test_log_probabilities_and_divergences_are_sums_over_the_components() -> None:
    policy = make_policy("box")
    flat = flat_parameters(policy)
    samples, others = make_samples(policy, flat), make_samples(policy, flat + 0.3)
    (mean, log_std), (other_mean, other_log_std) = (each.numbers.numpy().reshape(6, 2, 2).swapaxes(0, 1) for each in (samples, others))  # fmt: skip
    expected = norm.logpdf(samples.actions.numpy(), mean, np.exp(log_std)).sum(axis=1)
    np.testing.assert_allclose(policy.log_prob(samples.numbers, samples.actions), expected)
    ratio = np.exp(2 * (log_std - other_log_std))
    terms = other_log_std - log_std + (ratio + (mean - other_mean) ** 2 / np.exp(2 * other_log_std) - 1) / 2
    np.testing.assert_allclose(policy.kl_divergence(samples.numbers, others.numbers), terms.sum(axis=1))


@pytest.mark.parametrize("action_space", ACTION_SPACES)
def test_each_row_has_parameters_of_its_own(action_space: str) -> None:
    policy = make_policy(action_space)
    flat = th.stack([flat_parameters(policy) + shift for shift in (0.0, 0.5, -1.0)])
    states = th.randn(3, 2, dtype=th.float64)
    together = outputs_of_each(policy, flat, states)
    for row in range(3):
        set_flat_parameters(policy, flat[row])
        th.testing.assert_close(together[row], policy(states)[row])
    th.testing.assert_close(flat_parameters(policy), flat[2])
    assert policy.kl_divergence(together, together.flip(0)).shape == (3,)


def test_a_step_is_the_natural_gradient_within_the_limit() -> None:
    model: Any = tiny_maml(width=3)
    model.policy.double()
    policy, start = model.policy, flat_parameters(model.policy)
    tasks = make_tasks(policy, 1)
    model.inner_learning_rate, model.cg_max_steps, model.cg_damping = RATE, 200, 0.1
    objective = Objective(policy, tasks, RATE)
    columns = [objective.kl_hessian_vector_product(start, e) for e in th.eye(len(start), dtype=th.float64)]
    direction = th.linalg.solve(th.stack(columns) + 0.1 * th.eye(len(start)), objective.gradient(start))
    result = trpo_step(model, tasks)
    step = flat_parameters(policy) - start
    assert th.cosine_similarity(step, direction, dim=0) > 0.9999
    surrogate, divergence = objective.values(start + step)
    assert surrogate == pytest.approx(result["policy_objective"]) and surrogate > objective.values(start)[0]
    assert 0.3 * model.target_kl < divergence <= model.target_kl
    assert result["kl_divergence_loss"] == pytest.approx(divergence)
    assert result["is_line_search_success"] == 1


def test_a_failed_line_search_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_maml(width=3)
    model.policy.double()
    start, tasks = flat_parameters(model.policy), make_tasks(model.policy, 1)
    monkeypatch.setattr(Objective, "values", lambda *args: (0.0, 0.0))  # no improvement
    assert trpo_step(model, tasks)["is_line_search_success"] == 0
    th.testing.assert_close(flat_parameters(model.policy), start, rtol=0, atol=0)
    tasks[0].outer.advantages[0] = th.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        trpo_step(model, tasks)
    th.testing.assert_close(flat_parameters(model.policy), start, rtol=0, atol=0)
