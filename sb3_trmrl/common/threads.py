"""The number of threads that PyTorch uses."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch as th
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread: more threads do not speed up the forward pass of a few observations."""
    threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(threads)


@contextmanager
def one_thread_beside_workers(env: VecEnv) -> Iterator[None]:
    """Let PyTorch compute with one thread while the workers of a ``SubprocVecEnv`` use the cores."""
    # PyTorch's other threads would not sleep between two actions, but wait in a busy loop
    with one_thread() if isinstance(env.unwrapped, SubprocVecEnv) else nullcontext():
        yield
