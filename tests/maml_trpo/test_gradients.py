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
    inner_losses,
    log_probs,
    outputs,
    padded,
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


def make_samples(policy: MAMLPolicy, flat: th.Tensor, lengths: tuple[int, ...] = (6, 4)) -> Samples:
    """Data of a task for each row of parameters"""
    tasks = []
    for own, n in zip(flat, lengths, strict=True):
        states = th.randn(n, 2, dtype=th.float64)
        numbers = outputs(policy, own[None], states[None])[0].detach()
        actions = policy.distribution(numbers).sample().reshape(n, -1).double()
        tasks.append((states, actions, th.randn(n, dtype=th.float64), numbers))
    return padded(tasks)


def make_batches(policy: MAMLPolicy, n_inner_steps: int) -> list[TaskSamples]:
    """Two batches of two tasks with different numbers of steps"""
    batches = []
    for _ in range(2):
        flat, inner = flat_parameters(policy).expand(2, -1), []
        for _ in range(n_inner_steps):
            inner.append(make_samples(policy, flat))
            flat = adapt(policy, flat, inner[-1:], RATE).detach()
        batches.append(TaskSamples(tuple(inner), make_samples(policy, flat)))
    return batches


def one_task(samples: Samples, row: int) -> Samples:
    """Without padding"""
    n = int((samples.weights[row] > 0).sum())
    parts = [part[row : row + 1, :n] for part in samples]
    return Samples(*parts[:-1], th.full_like(parts[-1], 1 / n))


def tasks_of(batches: list[TaskSamples]) -> list[TaskSamples]:
    return [
        TaskSamples(tuple(one_task(each, row) for each in batch.inner), one_task(batch.outer, row))
        for batch in batches
        for row in range(2)
    ]


def without_inner_steps(batches: list[TaskSamples]) -> list[TaskSamples]:
    return [TaskSamples((), batch.outer) for batch in batches]


def finite_differences(function: Callable[[th.Tensor], float], flat: th.Tensor, step: float = 1e-5) -> th.Tensor:
    shifts = step * th.eye(len(flat), dtype=flat.dtype)
    return th.tensor([(function(flat + e) - function(flat - e)) / (2 * step) for e in shifts], dtype=flat.dtype)


@pytest.mark.parametrize("action_space", ["box", "discrete", "multi-discrete"])
def test_an_inner_step_follows_the_policy_gradient(action_space: str) -> None:
    policy = make_policy(action_space)
    flat = flat_parameters(policy)
    samples = make_samples(policy, flat[None], (6,))
    single = Samples(*(part[0] for part in samples))

    def naive_loss(each: th.Tensor) -> float:
        set_flat_parameters(policy, each)
        terms = policy.log_prob(policy(single.states), single.actions) * single.advantages
        return -terms.sum().item() / 6

    slope = finite_differences(naive_loss, flat)
    assert slope.abs().max() > 0.01
    adapted = adapt(policy, flat[None], [samples], RATE)[0]
    th.testing.assert_close(adapted, flat - RATE * slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_inner_steps", [1, 2])
@pytest.mark.parametrize("action_space", ["box", "discrete"])
def test_the_outer_gradient_passes_through_the_inner_steps(action_space: str, n_inner_steps: int) -> None:
    policy = make_policy(action_space)
    flat, batches = flat_parameters(policy), make_batches(policy, n_inner_steps)
    objective = Objective(policy, batches, RATE)
    found = objective.gradient(flat)
    th.testing.assert_close(
        found, finite_differences(lambda each: objective.values(each)[0], flat), rtol=1e-6, atol=1e-8
    )
    first_order = th.zeros_like(flat)
    for task in tasks_of(batches):
        adapted = adapt(policy, flat[None], task.inner, RATE)[0]
        first_order += Objective(policy, without_inner_steps([task]), RATE).gradient(adapted) / 4
    assert (found - first_order).abs().max() > 1e-3


@pytest.mark.parametrize("n_inner_steps", [1, 2])
@pytest.mark.parametrize("action_space", ["box", "discrete"])
def test_the_hessian_of_the_divergence_passes_through_the_inner_steps(action_space: str, n_inner_steps: int) -> None:
    policy = make_policy(action_space)
    flat, batches = flat_parameters(policy), make_batches(policy, n_inner_steps)
    objective = Objective(policy, batches, RATE)
    vector = th.randn_like(flat)

    def divergence(each: th.Tensor) -> float:
        return objective.values(each)[1]

    assert divergence(flat) == pytest.approx(0, abs=1e-12)
    step = 1e-4
    along = [finite_differences(divergence, flat + sign * step * vector, 1e-4) for sign in (1, -1)]
    expected = (along[0] - along[1]) / (2 * step)
    found = objective.kl_hessian_vector_product(flat, vector)
    th.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    without = Objective(policy, without_inner_steps(batches), RATE)
    assert (found - without.kl_hessian_vector_product(flat, vector)).abs().max() > 0.01


def test_batches_are_means_over_tasks_without_padding() -> None:
    policy = make_policy("box")
    flat, batches = flat_parameters(policy), make_batches(policy, 1)
    shifted = flat + 0.1 * th.randn_like(flat)
    alone = [Objective(policy, [task], RATE).values(shifted) for task in tasks_of(batches)]
    assert Objective(policy, batches, RATE).values(shifted) == pytest.approx(tuple(np.mean(alone, axis=0)))
    samples = batches[0].inner[0]
    losses = inner_losses(policy, flat.expand(2, -1), samples)
    for row in range(2):
        th.testing.assert_close(losses[row], inner_losses(policy, flat[None], one_task(samples, row))[0])


def test_log_probabilities_and_divergences_are_sums_over_the_components() -> None:
    policy = make_policy("box")
    flat = flat_parameters(policy)[None]
    samples, others = make_samples(policy, flat, (6,)), make_samples(policy, flat + 0.3, (6,))
    (mean, log_std), (other_mean, other_log_std) = (
        np.split(each.numbers[0].numpy(), 2, axis=1) for each in (samples, others)
    )
    expected = norm.logpdf(samples.actions[0].numpy(), mean, np.exp(log_std)).sum(axis=1)[None]
    np.testing.assert_allclose(log_probs(policy, samples.numbers, samples.actions), expected)
    ratio = np.exp(2 * (log_std - other_log_std))
    terms = other_log_std - log_std + (ratio + (mean - other_mean) ** 2 / np.exp(2 * other_log_std) - 1) / 2
    np.testing.assert_allclose(policy.kl_divergence(samples.numbers[0], others.numbers[0]), terms.sum(axis=1))


@pytest.mark.parametrize("action_space", ACTION_SPACES)
def test_each_row_has_parameters_of_its_own(action_space: str) -> None:
    policy = make_policy(action_space)
    flat = th.stack([flat_parameters(policy) + shift for shift in (0.0, 0.5, -1.0)])
    states = th.randn(3, 2, dtype=th.float64)
    together = outputs(policy, flat, states)
    for row in range(3):
        set_flat_parameters(policy, flat[row])
        th.testing.assert_close(together[row], policy(states)[row])
    th.testing.assert_close(flat_parameters(policy), flat[2])
    assert policy.kl_divergence(together, together.flip(0)).shape == (3,)


def test_a_step_is_the_natural_gradient_within_the_limit() -> None:
    model: Any = tiny_maml(width=3)
    model.policy.double()
    policy, start = model.policy, flat_parameters(model.policy)
    batches = make_batches(policy, 1)
    model.inner_learning_rate, model.cg_max_steps, model.cg_damping = RATE, 200, 0.1
    objective = Objective(policy, batches, RATE)
    columns = [objective.kl_hessian_vector_product(start, e) for e in th.eye(len(start), dtype=th.float64)]
    direction = th.linalg.solve(th.stack(columns) + 0.1 * th.eye(len(start)), objective.gradient(start))
    result = trpo_step(model, batches)
    step = flat_parameters(policy) - start
    assert th.cosine_similarity(step, direction, dim=0) > 0.9999
    surrogate, divergence = objective.values(start + step)
    assert surrogate == pytest.approx(result["policy_objective"]) and surrogate > objective.values(start)[0]
    assert 0.3 * model.target_kl < divergence <= model.target_kl
    assert result["kl_divergence_loss"] == pytest.approx(divergence)
    assert result["is_line_search_success"] == 1


def test_the_direction_does_not_depend_on_the_scale_of_the_advantages() -> None:
    """The solver, whose tolerance is absolute, would return its random start for a small gradient."""
    steps = []
    for scale in (1.0, 1e-6):
        model: Any = tiny_maml(width=3)
        model.policy.double()
        start = flat_parameters(model.policy)
        # The adapted parameters are the same, so that only the outer gradient is scaled
        model.inner_learning_rate = RATE
        batches = [
            each._replace(outer=each.outer._replace(advantages=each.outer.advantages * scale))
            for each in make_batches(model.policy, 1)
        ]
        assert trpo_step(model, batches)["is_line_search_success"] == 1
        steps.append(flat_parameters(model.policy) - start)
    assert th.cosine_similarity(*steps, dim=0) > 0.999


def test_without_a_gradient_nothing_changes() -> None:
    model: Any = tiny_maml(width=3)
    model.policy.double()
    start, batches = flat_parameters(model.policy), make_batches(model.policy, 1)
    for batch in batches:
        batch.outer.advantages.zero_()
    assert trpo_step(model, batches)["is_line_search_success"] == 0
    th.testing.assert_close(flat_parameters(model.policy), start, rtol=0, atol=0)


def test_a_failed_line_search_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_maml(width=3)
    model.policy.double()
    start, batches = flat_parameters(model.policy), make_batches(model.policy, 1)
    monkeypatch.setattr(Objective, "values", lambda *args: (0.0, 0.0))  # no improvement
    assert trpo_step(model, batches)["is_line_search_success"] == 0
    th.testing.assert_close(flat_parameters(model.policy), start, rtol=0, atol=0)
    batches[0].outer.advantages[0, 0] = th.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        trpo_step(model, batches)
    th.testing.assert_close(flat_parameters(model.policy), start, rtol=0, atol=0)
