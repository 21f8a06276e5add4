"""Averaging of gradients over all ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch as th
from torch import nn

from sb3_trmrl.distributed.collectives import all_reduce, world_size


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """
    Replace each gradient by its mean over all ranks, with a single all-reduce.

    :param parameters: The same parameters on all ranks
    """
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    # Some parameters may have received a gradient only on some ranks
    present = th.tensor([float(parameter.grad is not None) for parameter in trained], device=trained[0].device)
    gradients = [th.zeros_like(each) if each.grad is None else each.grad for each in trained]
    flat = all_reduce(th.cat([*(gradient.flatten() for gradient in gradients), present])) / world_size()
    *means, present = flat.split([*(gradient.numel() for gradient in gradients), len(trained)])
    for parameter, mean, is_present in zip(trained, means, present.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) if is_present else None
