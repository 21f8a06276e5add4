"""Errors from the worker processes of a SubprocVecEnv."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def worker_errors(environments: Callable[[], Iterable[VecEnv]]) -> Iterator[None]:
    """Replace errors of a closed pipe by a ``RuntimeError`` that names the worker processes that have ended."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        ended = [f"{index} (exit code {code})" for env in environments() for index, code in _exit_codes(env).items()]
        if not ended:
            raise
        raise RuntimeError(
            f"worker process of SubprocVecEnv has ended, environment {', '.join(ended)}: a negative exit code is the "
            "signal that killed it, -9 often means that the system was out of memory. Earlier checkpoints are intact"
        ) from error


def _exit_codes(env: VecEnv) -> dict[int, int]:
    """Return the exit codes of the workers that have ended, by index."""
    base = env.unwrapped
    processes = base.processes if isinstance(base, SubprocVecEnv) else []
    for process in processes:
        process.join(timeout=1)  # its pipe may be closed before its exit code is known
    return {index: process.exitcode for index, process in enumerate(processes) if process.exitcode is not None}
