"""The state of callbacks: what they have gathered, and the environments they hold."""

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
    """
    Callbacks while a model is trained. Their state is all that can be pickled, without arguments of their constructors
    that have not changed: a resumed run may have others. What cannot be pickled when training begins are tools, such as
    open files.

    :param root: The callback that the model calls, when training begins
    :param observer: The callback that asks, which is not looked at
    """

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
        """
        :return: Attributes of each callback, and the states of the environments they hold
        """
        taken = {}
        for name, attributes in self._attributes().items():
            before, arguments = self._at_start[name], _arguments(self._callbacks[name])
            taken[name] = {
                key: value
                for key, value in attributes.items()
                if key.lstrip("_") not in arguments or value != before.get(key)
            }
            lost = sorted(before.keys() - attributes.keys())
            if lost:
                warnings.warn(
                    f"{name}: {', '.join(lost)} cannot be pickled any more and will start anew in a resumed run",
                    UserWarning,
                    stacklevel=2,
                )
        environments = {
            name: {key: vec_env_state(env) for key, env in environments_of(callback).items()}
            for name, callback in self._callbacks.items()
        }
        return {"attributes": taken, "environments": environments}


def set_callback_state(root: BaseCallback, state: dict[str, Any]) -> None:
    """
    :param root: The callback that the model calls
    :param state: What :meth:`CallbackWatch.state` returned
    """
    callbacks = callbacks_of(root)
    missing = sorted(state["attributes"].keys() - callbacks.keys())
    if missing:
        warnings.warn(
            f"the interrupted run had the callbacks {', '.join(missing)}, which this one has not",
            UserWarning,
            stacklevel=2,
        )
    for name, callback in callbacks.items():
        for key, value in state["attributes"].get(name, {}).items():
            setattr(callback, key, pickle.loads(value))
        for key, saved in state["environments"].get(name, {}).items():
            env = getattr(callback, key, None)
            if isinstance(env, VecEnv):
                set_vec_env_state(env, saved)


def _is_own(name: str, value: Any) -> bool:
    """
    :param name: Name of a callback's attribute
    :param value: Its value
    :return: Whether it is part of its state
    """
    of_others = (BaseCallback, BaseAlgorithm, VecEnv, Logger, KVWriter, CallbackWatch)
    first = value[0] if isinstance(value, list) and value else value
    return name not in PROCESS_ATTRIBUTES and not isinstance(first, of_others)


def _arguments(callback: BaseCallback) -> set[str]:
    """
    :param callback: A callback
    :return: Names of its constructor's arguments, those of its base classes among them
    """
    constructors = [vars(each)["__init__"] for each in type(callback).__mro__ if "__init__" in vars(each)]
    return {name for constructor in constructors for name in inspect.signature(constructor).parameters}


def _pickled(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:  # objects refuse to be pickled in any way they like
        return None
