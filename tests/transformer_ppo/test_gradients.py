"""The guard before each step of the optimizer."""

import pytest
import torch as th

from tests.helpers.agents import parameters_of, tiny_model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_gradient_changes_no_weight(value: float) -> None:
    model = tiny_model("CartPole-v1")
    before = parameters_of(model)
    for parameter in model.policy.parameters():
        parameter.grad = th.ones_like(parameter)
    model.policy.action_net.bias.grad[0] = value
    with pytest.raises(FloatingPointError, match=rf"non-finite gradient \(its norm is {value}\)"):
        model.policy.optimizer.step()
    assert all(th.equal(parameter, before[name]) for name, parameter in model.policy.named_parameters())
