"""The callbacks that a model calls, directly or through other callbacks, and the environments they hold."""

from __future__ import annotations

from collections.abc import Iterator

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.vec_env import VecEnv

#: Attributes of every callback that belong to the running process
PROCESS_ATTRIBUTES = {"model", "locals", "globals", "parent"}
#: Callbacks that have no state
_STATELESS = (CallbackList, ProgressBarCallback)


def callbacks_of(root: BaseCallback, without: BaseCallback | None = None) -> dict[str, BaseCallback]:
    """Return a callback and all callbacks inside it by class and number, for example ``"EvalCallback 0"``."""
    found: dict[str, BaseCallback] = {}
    for callback in walk_callbacks(root):
        is_known = any(callback is other for other in (without, *found.values()))
        if not is_known and not isinstance(callback, _STATELESS):
            name = type(callback).__name__
            found[f"{name} {sum(other.startswith(f'{name} ') for other in found)}"] = callback
    return found


def walk_callbacks(callback: BaseCallback) -> Iterator[BaseCallback]:
    """Yield a callback and all callbacks inside it, some of them several times."""
    yield callback
    for name, value in vars(callback).items():
        for inner in value if isinstance(value, list) else [value]:
            if name not in PROCESS_ATTRIBUTES and isinstance(inner, BaseCallback):
                yield from walk_callbacks(inner)


def environments_of(callback: BaseCallback) -> dict[str, VecEnv]:
    """Return the environments that a callback holds, except the training environment, by attribute name."""
    model = getattr(callback, "model", None)  # None before training
    held = {name: value for name, value in vars(callback).items() if isinstance(value, VecEnv)}
    return {name: env for name, env in held.items() if model is None or env is not model.env}
