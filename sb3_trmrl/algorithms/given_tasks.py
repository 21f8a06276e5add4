"""Tasks that an algorithm gives to the copies of its training environment, which otherwise sample them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stable_baselines3.common.vec_env import VecEnv


def give_tasks(env: VecEnv, index: int, tasks: tuple[object, ...]) -> None:
    """Let a copy visit these tasks in turn, also after the resets at the end of a trial, which have no options."""
    env.env_method("set_wrapper_attr", "tasks", tasks, indices=index)


@contextmanager
def tasks_given_back(env: VecEnv) -> Iterator[None]:
    """Let the copies of an environment sample their tasks again at the end, after each got tasks of its own."""
    try:
        yield
    except BaseException:
        with suppress(EOFError, OSError):  # workers that have ended must not hide the reason
            env.env_method("set_wrapper_attr", "tasks", None)
        raise
    env.env_method("set_wrapper_attr", "tasks", None)
