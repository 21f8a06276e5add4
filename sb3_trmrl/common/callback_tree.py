"""The callbacks below the one that a model calls, and the environments they hold."""

from __future__ import annotations

from collections.abc import Iterator

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.vec_env import VecEnv

#: Attributes that every callback has and that belong to the process it runs in
PROCESS_ATTRIBUTES = {"model", "locals", "globals", "parent"}
#: Callbacks without anything to remember
_WITHOUT_STATE = (CallbackList, ProgressBarCallback)


def callbacks_of(root: BaseCallback, without: BaseCallback | None = None) -> dict[str, BaseCallback]:
    """
    :param root: The callback that the model calls
    :param without: One to leave out
    :return: It and all that it calls, by class and number among those of the class, such as ``"EvalCallback 0"``
    """
    found: dict[str, BaseCallback] = {}
    for callback in _walk(root):
        known = any(callback is other for other in (without, *found.values()))
        if not known and not isinstance(callback, _WITHOUT_STATE):
            name = type(callback).__name__
            found[f"{name} {sum(other.startswith(f'{name} ') for other in found)}"] = callback
    return found


def _walk(callback: BaseCallback) -> Iterator[BaseCallback]:
    yield callback
    for name, value in vars(callback).items():
        for inner in value if isinstance(value, list) else [value]:
            if name not in PROCESS_ATTRIBUTES and isinstance(inner, BaseCallback):
                yield from _walk(inner)


def environments_of(callback: BaseCallback) -> dict[str, VecEnv]:
    """
    :param callback: A callback
    :return: Environments it holds, those for training not among them
    """
    held = {name: value for name, value in vars(callback).items() if isinstance(value, VecEnv)}
    return {name: env for name, env in held.items() if env is not callback.model.env}
