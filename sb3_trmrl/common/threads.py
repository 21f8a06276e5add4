"""How many threads PyTorch uses."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch as th
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def one_thread() -> Iterator[None]:
    """
    Let PyTorch compute with one thread: for the few observations of a step more of them bring nothing, and where other
    programs use the cores they wait for each other.
    """
    threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(threads)


@contextmanager
def one_thread_beside_workers(env: VecEnv) -> Iterator[None]:
    """
    Let PyTorch compute with one thread while the workers of a ``SubprocVecEnv`` use the cores: its others would not
    rest between two actions but wait in a loop. Other environments leave the threads as they are.

    :param env: Training environment
    """
    with one_thread() if isinstance(env.unwrapped, SubprocVecEnv) else nullcontext():
        yield
