"""The state of callbacks: their attributes, and the environments they hold."""

from __future__ import annotations

import inspect
import pickle
import warnings
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.common.callback_tree import PROCESS_ATTRIBUTES, callbacks_of, environments_of
from sb3_trmrl.resuming.vec_env_state import set_vec_env_state, vec_env_state


class CallbackWatch:
    """Takes the state of all callbacks except the observer while a model is trained."""

    # The state of a callback is every attribute that can be pickled, except arguments of its constructor that have not
    # changed: a resumed run may set other ones. Attributes that cannot be pickled when training begins, such as open
    # files, are not part of the state

    def __init__(self, root: BaseCallback, observer: BaseCallback | None = None) -> None:
        self._callbacks = callbacks_of(root, without=observer)
        self._at_start = self._attributes()

    def _attributes(self) -> dict[str, dict[str, bytes]]:
        attributes = {}
        for name, callback in self._callbacks.items():
            pickled = {key: _pickled(value) for key, value in vars(callback).items() if _is_own(key, value)}
            attributes[name] = {key: value for key, value in pickled.items() if value is not None}
        return attributes

    def state(self) -> dict[str, Any]:
        """Return the attributes of each callback and the states of the environments it holds, by its name."""
        states = {}
        for name, attributes in self._attributes().items():
            callback, before = self._callbacks[name], self._at_start[name]
            arguments = _constructor_arguments(callback)
            kept = {
                key: value
                for key, value in attributes.items()
                if key.lstrip("_") not in arguments or value != before.get(key)
            }
            lost = sorted(before.keys() - attributes.keys())
            if lost:
                warnings.warn(
                    f"{name}: {', '.join(lost)} can no longer be pickled and will not be restored in a resumed run",
                    UserWarning,
                    stacklevel=2,
                )
            environments = {key: vec_env_state(env) for key, env in environments_of(callback).items()}
            states[name] = {"attributes": kept, "environments": environments}
        return states


def set_callback_state(root: BaseCallback, state: dict[str, Any]) -> None:
    """Restore what :meth:`CallbackWatch.state` returned to a callback and the callbacks inside it."""
    callbacks = callbacks_of(root)
    missing = sorted(state.keys() - callbacks.keys())
    if missing:
        warnings.warn(
            f"the interrupted run had the callbacks {', '.join(missing)}, which the resumed run does not have",
            UserWarning,
            stacklevel=2,
        )
    for name in sorted(state.keys() & callbacks.keys()):
        for key, value in state[name]["attributes"].items():
            setattr(callbacks[name], key, pickle.loads(value))
        for key, saved in state[name]["environments"].items():
            env = getattr(callbacks[name], key, None)
            if isinstance(env, VecEnv):
                set_vec_env_state(env, saved)


def _is_own(name: str, value: Any) -> bool:
    """Return whether an attribute is part of a callback's state."""
    not_own = (BaseCallback, BaseAlgorithm, VecEnv, Logger, KVWriter, CallbackWatch)
    first = value[0] if isinstance(value, list) and value else value
    return name not in PROCESS_ATTRIBUTES and not isinstance(first, not_own)


def _constructor_arguments(callback: BaseCallback) -> set[str]:
    """Return the argument names of a callback's constructor and of those of its base classes."""
    constructors = [vars(each)["__init__"] for each in type(callback).__mro__ if "__init__" in vars(each)]
    return {name for constructor in constructors for name in inspect.signature(constructor).parameters}


def _pickled(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:  # any type of exception is possible
        return None
