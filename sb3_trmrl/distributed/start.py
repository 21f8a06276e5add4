"""Synchronisation before training: ranks get the same weights and different seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_trmrl.distributed.collectives import all_gather, broadcast, rank, world_size


def check_equal(values: Mapping[str, Any]) -> None:
    """
    :param values: Arguments, by name
    :raises ValueError: if the ranks have different values
    """
    values_by_rank = all_gather(dict(values))
    for name in values:
        found = [each[name] for each in values_by_rank]
        if any(value != found[0] for value in found):
            raise ValueError(f"`{name}` must be the same on all ranks, got {', '.join(map(str, found))}")


def copy_from_main(policy: nn.Module, optimizer: th.optim.Optimizer) -> None:
    """
    Replace parameters, buffers and the state of the optimizer by those of rank 0.

    :param policy: The policy
    :param optimizer: Its optimizer
    """
    on_cpu = {name: tensor.cpu() for name, tensor in policy.state_dict().items()}
    weights, optimizer_state = broadcast((on_cpu, optimizer.state_dict()))
    policy.load_state_dict(weights)
    optimizer.load_state_dict(optimizer_state)


def copy_buffers_from_main(policy: nn.Module) -> None:
    """
    Copy the policy's buffers from rank 0, for example the running statistics of batch normalization.

    :param policy: The policy
    """
    if world_size() == 1:
        return
    persistent = policy.state_dict().keys()
    buffers = {name: buffer for name, buffer in policy.named_buffers() if name in persistent}
    if buffers:
        for name, buffer in broadcast({name: buffer.cpu() for name, buffer in buffers.items()}).items():
            buffers[name].copy_(buffer)


def seed_this_rank(seed: int | None, env: VecEnv) -> None:
    """
    Seed this rank differently from the others. Rank 0 keeps its seed, as in a run with one process.

    :param seed: Seed of the model, with which all ranks have drawn the same weights, or None
    :param env: The training environment. Seeds that are pending for its next reset are replaced
    """
    if rank() == 0:
        return
    if seed is not None:
        set_random_seed(seed_of_rank(seed))
    base = env.unwrapped
    base._seeds = [None if each is None else seed_of_rank(each) for each in base._seeds]


def seed_of_rank(seed: int) -> int:
    """
    :param seed: A seed that all ranks have
    :return: A seed that only this rank has
    """
    # Seed + rank would not do: environment i has seed + i, so ranks would share seeds
    return int(np.random.SeedSequence(seed, spawn_key=(rank(),)).generate_state(1)[0])
