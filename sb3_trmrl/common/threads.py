"""PyTorch's threads while environments run in processes of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch as th
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def one_thread_beside_workers(env: VecEnv) -> Iterator[None]:
    """
    Let PyTorch compute with one thread while the workers of a ``SubprocVecEnv`` use the cores: its others would not
    rest between two actions but wait in a loop. Other environments leave the threads as they are.

    :param env: Training environment
    """
    threads = th.get_num_threads()
    if threads == 1 or not isinstance(env.unwrapped, SubprocVecEnv):
        yield
        return
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(threads)
