"""A guard before each step of the optimizer."""

from typing import Any

import torch as th


def refuse_non_finite_gradients(optimizer: th.optim.Optimizer, *_: Any) -> None:
    """
    Raise an error instead of making a step with a NaN. Gradients are clipped by their common norm, so that a single NaN
    would turn every weight into NaN. To be registered as a pre-hook of the optimizer's step.

    :param optimizer: Optimizer
    :raises FloatingPointError: if a gradient is not finite. The weights have not been changed
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
