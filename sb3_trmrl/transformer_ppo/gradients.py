"""A guard before each step of the optimizer."""

from typing import Any

import torch as th
from torch import nn


class GradientGuard:
    """
    Raises an error instead of taking a step with a gradient that is not finite. PPO clips gradients by their common
    norm before the step, so that a single NaN would turn every weight into NaN, and a norm that overflows would turn
    every gradient into 0.

    :param optimizer: Optimizer of the policy
    :param heads: The layers from which every gradient comes
    """

    def __init__(self, optimizer: th.optim.Optimizer, heads: list[nn.Module]) -> None:
        self._had_gradient = False
        for head in heads:
            list(head.parameters())[-1].register_post_accumulate_grad_hook(self._look)
        optimizer.register_step_pre_hook(self._check)

    def _look(self, parameter: th.Tensor) -> None:
        """Remember, before gradients are clipped, whether there is one."""
        if not self._had_gradient and parameter.grad is not None:
            self._had_gradient = bool(parameter.grad.any())

    def _check(self, optimizer: th.optim.Optimizer, *_: Any) -> None:
        """Raise a FloatingPointError if a gradient is not finite. The weights have not been changed then."""
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norm = th.nn.utils.get_total_norm(gradients)
        has_overflowed = self._had_gradient and norm == 0
        self._had_gradient = False
        if has_overflowed or not th.isfinite(norm):
            value = "inf before it was clipped" if has_overflowed else norm.item()
            raise FloatingPointError(
                f"non-finite gradient (its norm is {value}): the weights were not changed. Look for rewards or "
                "observations that are too large, or lower `learning_rate` or `max_grad_norm`"
            )
