"""
Communication between the ranks of a run, on ``torch.distributed``.

With a single process, nothing is communicated. If ``torchrun`` has started several, call :func:`join` first.
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

#: How long a rank waits for the others. Must exceed the time of an evaluation on rank 0
_TIMEOUT = timedelta(hours=2)


def world_size() -> int:
    """
    :return: Number of ranks in the process group, or the number set by ``torchrun``; 1 without either
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1")) if dist.is_available() else 1


def rank() -> int:
    """
    :return: Index of this rank. Rank 0 evaluates, logs and writes files
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
    there is one already, as in Ray's ``TorchTrainer``. CPU tensors and Python objects are exchanged with Gloo, CUDA
    tensors with NCCL.
    """
    if world_size() > 1 and not dist.is_initialized():
        dist.init_process_group(timeout=_TIMEOUT)
        atexit.register(leave)


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def own_device(device: th.device | str) -> th.device | str:
    """
    :param device: Device that the user asked for
    :return: The GPU of this rank if several ranks train on GPUs, else the device unchanged; with more ranks than GPUs,
        ``"auto"`` is the CPU
    """
    if world_size() == 1 or str(device) not in ("auto", "cuda") or not th.cuda.is_available():
        return device
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if n_local > th.cuda.device_count():
        if str(device) == "auto":
            return "cpu"
        raise ValueError(f"`device` must be 'cpu' for {n_local} ranks on {th.cuda.device_count()} GPU(s), got {device}")
    th.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return f"cuda:{th.cuda.current_device()}"


def share(name: str, total: int) -> int:
    """
    :param name: Name of the argument, for the error
    :param total: Value for all ranks together
    :return: Value for each rank
    :raises ValueError: if the total is not a multiple of the number of ranks
    """
    each, rest = divmod(total, world_size())
    if rest or not each:
        raise ValueError(
            f"`{name}` is the total over all ranks and must be a multiple of the number of ranks "
            f"({world_size()}), got {total}"
        )
    return each


def all_reduce(values: th.Tensor) -> th.Tensor:
    """
    :param values: A tensor of the same shape on all ranks
    :return: The same tensor, summed over all ranks in place
    """
    if world_size() > 1:
        with _explained_errors():
            dist.all_reduce(values)
    return values


def all_reduce_min(value: int) -> int:
    """
    :param value: A number
    :return: The smallest of the numbers of all ranks
    """
    return min(all_gather(value))


def all_gather(value: Value) -> list[Value]:
    """
    :param value: An object that can be pickled
    :return: The objects of all ranks, ordered by rank
    """
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        with _explained_errors():
            dist.all_gather_object(values, value)
    return values


def broadcast(value: Value) -> Value:
    """
    :param value: An object that can be pickled; only that of rank 0 matters
    :return: The object of rank 0
    """
    if world_size() == 1:
        return value
    values = [value]
    with _explained_errors():
        dist.broadcast_object_list(values)
    return values[0]


def gather_from_others(values: list[Value]) -> list[Value]:
    """
    :param values: Objects that can be pickled
    :return: The objects of all other ranks, in one list
    """
    lists = all_gather(values)
    return [value for number, each in enumerate(lists) if number != rank() for value in each]


def barrier() -> None:
    """Return once all ranks have called this function."""
    all_gather(None)


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Explain errors of torch.distributed, which usually mean that another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"rank {rank()} of {world_size()} could not communicate with the other ranks. One of them has probably "
            f"failed: see its error message ({str(error).splitlines()[0]})"
        ) from error
