"""The worker processes of a SubprocVecEnv."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def worker_errors(environments: Callable[[], Iterable[VecEnv]]) -> Iterator[None]:
    """
    Say which worker has ended where its pipe would only say that nobody answers.

    :param environments: Gives those that may have workers, when there is an error
    :raises RuntimeError: naming the workers that have ended
    """
    try:
        yield
    except (EOFError, ConnectionError) as error:
        ended = [f"{index} (exit code {code})" for env in environments() for index, code in _ended(env).items()]
        if not ended:
            raise
        raise RuntimeError(
            f"worker process of SubprocVecEnv has ended, environment {', '.join(ended)}: a negative exit code is the "
            "signal that killed it, -9 often the system's for want of memory. A checkpoint written before is intact"
        ) from error


def _ended(env: VecEnv) -> dict[int, int]:
    """
    :param env: Environment
    :return: Exit codes of the workers that have ended, by index
    """
    base = env.unwrapped
    processes = base.processes if isinstance(base, SubprocVecEnv) else []
    for process in processes:
        process.join(timeout=1)  # its pipe may be closed before its exit code is known
    return {index: process.exitcode for index, process in enumerate(processes) if process.exitcode is not None}
