"""Gradients and schedules that are not finite end training before they reach the weights."""

from collections.abc import Callable

import pytest
import torch as th

from tests.helpers.agents import SampledEnv, parameters_of, tiny_model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_gradient_changes_no_weight(value: float) -> None:
    model = tiny_model("CartPole-v1")
    before = parameters_of(model)
    model.policy.action_net.bias.register_hook(lambda gradient: th.full_like(gradient, value))
    with pytest.raises(FloatingPointError, match=rf"non-finite gradient \(its norm is {value}\)"):
        model.learn(16)
    assert all(th.equal(parameter, before[name]) for name, parameter in model.policy.named_parameters())


@pytest.mark.parametrize("reward", [1e20, 1e30])
@pytest.mark.parametrize("max_grad_norm", [0.5, float("inf")])
def test_a_norm_that_overflows_is_an_error(reward: float, max_grad_norm: float) -> None:
    """Clipping by an infinite norm would turn all gradients into 0, and training would go on without learning."""
    model = tiny_model(SampledEnv(reward=reward), max_grad_norm=max_grad_norm)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    with pytest.raises(FloatingPointError, match="non-finite gradient"):
        model.learn(64)
    assert all(th.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


def test_a_gradient_of_zero_is_no_error() -> None:
    """Without advantages, entropy and value loss there is nothing to learn."""
    tiny_model(SampledEnv(reward=0.0), normalize_advantage=False, gamma=0.0, vf_coef=0.0, ent_coef=0.0).learn(64)


@pytest.mark.parametrize("name", ["learning_rate", "vf_learning_rate", "clip_range", "clip_range_vf"])
@pytest.mark.parametrize("later", [float("nan"), float("inf"), -1e-3])
def test_schedules_are_checked_at_each_update(name: str, later: float) -> None:
    schedule: Callable[[float], float] = lambda progress: 1e-3 if progress > 0.6 else later  # noqa: E731
    model = tiny_model(SampledEnv(), **{name: schedule})
    with pytest.raises(ValueError, match=rf"`{name}\(0\..*must be finite and not negative"):
        model.learn(640)
    assert all(bool(th.isfinite(parameter).all()) for parameter in model.policy.parameters())
