"""Watching the worker processes of a SubprocVecEnv, whose death would block the main process."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, connection
from threading import Thread
from typing import Any

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


@contextmanager
def watched_workers(environments: Iterable[VecEnv]) -> Iterator[None]:
    """End all workers of an environment when one of them dies, and raise a ``RuntimeError`` that names it."""
    # SB3 would wait for ever for a worker whose pipe another one keeps open, or in close()
    found = (env.unwrapped for env in environments)
    vec_envs = [env for env in dict.fromkeys(found) if isinstance(env, SubprocVecEnv) and not env.closed]
    if not vec_envs:  # most runs have no workers, and need no thread
        yield
        return
    dead: dict[int, int] = {}  # exit codes by index
    reader, writer = Pipe(duplex=False)
    thread = Thread(target=_watch, args=(vec_envs, reader, dead), daemon=True)
    thread.start()
    try:
        yield
    except (EOFError, OSError) as error:  # pipes that broke, or were closed by the watching thread
        thread.join(timeout=1)  # the pipe may break before the process has ended
        if not dead:
            raise
        ended = ", ".join(f"{index} (exit code {code})" for index, code in dead.items())
        raise RuntimeError(
            f"worker process of SubprocVecEnv has ended, environment {ended}: a negative exit code is the signal that "
            "killed it; -9 often means that the system was out of memory. Earlier checkpoints are intact"
        ) from error
    finally:
        writer.close()
        thread.join(timeout=5)
        reader.close()


def _watch(vec_envs: list[SubprocVecEnv], stop: connection.Connection, dead: dict[int, int]) -> None:
    """Wait until a worker dies or the other end of ``stop`` is closed."""
    workers: dict[Any, Any] = {
        process.sentinel: (env, index) for env in vec_envs for index, process in enumerate(env.processes)
    }
    ended = [workers[each] for each in connection.wait([*workers, stop]) if each is not stop]
    for env, index in ended:
        env.processes[index].join(timeout=1)  # its files are closed before its exit code is known
        dead[index] = env.processes[index].exitcode
    for env, _ in ended:
        for process in env.processes:
            process.kill()
        env.waiting, env.closed = False, True
