"""The worker processes of a SubprocVecEnv."""

from collections.abc import Iterator
from contextlib import contextmanager

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def worker_errors(env: VecEnv) -> Iterator[None]:
    """
    Say which worker has ended where its pipe would only say that nobody answers.

    :param env: Environment
    :raises RuntimeError: naming the worker, if one has ended
    """
    try:
        yield
    except (EOFError, ConnectionError) as error:
        base = env.unwrapped
        processes = base.processes if isinstance(base, SubprocVecEnv) else []
        for process in processes:
            process.join(timeout=1)  # its pipe may be closed before its exit code is known
        ended = {index: process.exitcode for index, process in enumerate(processes) if process.exitcode is not None}
        if not ended:
            raise
        how = ", ".join(f"{index} (exit code {code})" for index, code in ended.items())
        raise RuntimeError(
            f"worker process of SubprocVecEnv has ended, environment {how}: a negative exit code is the signal that "
            "killed it, -9 often the system's for want of memory. A checkpoint written before is intact"
        ) from error
