"""A guard before each step of the optimiser."""

from typing import Any

import torch as th


def refuse_non_finite_gradients(optimizer: th.optim.Optimizer, *_: Any) -> None:
    """
    Hook of an optimiser, called before each of its steps: one NaN in a gradient would turn every weight into NaN, as
    gradients are clipped by their common norm.

    :param optimizer: Optimiser
    :raises FloatingPointError: if a gradient is not finite; no weight has been changed then
    """
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    norm = th.nn.utils.get_total_norm(gradients)
    if not th.isfinite(norm):
        raise FloatingPointError(
            f"non-finite gradient (its norm is {norm.item()}): the weights were left as they are. Look for rewards or "
            "observations that are too large, or lower `learning_rate` or `max_grad_norm`"
        )
