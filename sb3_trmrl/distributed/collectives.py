"""
Communication between the ranks of a run, on ``torch.distributed``.

Without a process group there is one rank, and every function returns what it was given.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch as th
import torch.distributed as dist

Value = TypeVar("Value")

#: The other ranks wait while rank 0 evaluates
_TIMEOUT = timedelta(hours=2)


def world_size() -> int:
    """
    :return: Number of ranks: of the process group, or those that ``torchrun`` has announced, or 1
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1")) if dist.is_available() else 1


def rank() -> int:
    """
    :return: Number of this rank, from 0; rank 0 evaluates, logs and writes files
    """
    if world_size() == 1:
        return 0
    return dist.get_rank() if dist.is_initialized() else int(os.environ["RANK"])


def is_main() -> bool:
    """
    :return: Whether this is rank 0
    """
    return rank() == 0


def join() -> None:
    """
    Join the process group that ``torchrun`` or ``accelerate launch`` has announced in environment variables, unless
    there is one already, as in Ray's ``TorchTrainer``. CPUs communicate through gloo and GPUs through nccl.
    """
    if world_size() > 1 and not dist.is_initialized():
        dist.init_process_group(timeout=_TIMEOUT)
        atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def own_device(device: th.device | str) -> th.device | str:
    """
    :param device: Device that the user asked for
    :return: The GPU of this rank if it is any GPU, with several ranks
    """
    if world_size() > 1 and str(device) in ("auto", "cuda") and th.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % th.cuda.device_count()}"
    return device


def share(name: str, total: int) -> int:
    """
    :param name: Name of the argument, for the error
    :param total: Value for all ranks together
    :return: Value for each rank
    :raises ValueError: if it is not a whole number
    """
    each, rest = divmod(total, world_size())
    if rest or not each:
        raise ValueError(
            f"`{name}` is the number for all ranks together and must be a multiple of their number, "
            f"{world_size()}, got {total}"
        )
    return each


def total(values: th.Tensor) -> th.Tensor:
    """
    :param values: A tensor of the same shape on all ranks
    :return: The same tensor, which now holds the sum over all ranks
    """
    if world_size() > 1:
        with _lost_ranks_are_named():
            dist.all_reduce(values)
    return values


def minimum(value: int) -> int:
    """
    :param value: A number
    :return: The smallest of the numbers of all ranks
    """
    return min(gathered(value))


def gathered(value: Value) -> list[Value]:
    """
    :param value: An object that can be pickled
    :return: The objects of all ranks, in their order
    """
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        with _lost_ranks_are_named():
            dist.all_gather_object(values, value)
    return values


def from_main(value: Value) -> Value:
    """
    :param value: An object that can be pickled; only that of rank 0 matters
    :return: The object of rank 0
    """
    if world_size() == 1:
        return value
    values = [value]
    with _lost_ranks_are_named():
        dist.broadcast_object_list(values)
    return values[0]


def of_other_ranks(values: list[Value]) -> list[Value]:
    """
    :param values: Objects that can be pickled
    :return: Those of all other ranks
    """
    lists = gathered(values)
    return [value for number, each in enumerate(lists) if number != rank() for value in each]


def wait_for_all() -> None:
    """Return once all ranks have called this function."""
    gathered(None)


@contextmanager
def _lost_ranks_are_named() -> Iterator[None]:
    """Say that another rank has ended where torch.distributed reports a closed connection."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"rank {rank()} of {world_size()} has lost the connection to another rank, which has probably ended with "
            f"an error of its own ({str(error).splitlines()[0]})"
        ) from error
