"""
The state of objects as plain data, and the state of environments, layer by layer.

Plain data are numbers, strings, arrays, NumPy generators and containers of these: a copy refers to no other objects.
"""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from functools import cache, partial
from inspect import getattr_static
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers.utils import RunningMeanStd as GymRunningMeanStd

_SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic, np.random.Generator)
_CONTAINERS = (list, tuple, set, frozenset, deque)
#: Classes whose objects never change
_CONSTANTS = (type, ModuleType, FunctionType, partial, np.ufunc, np.dtype)
#: Where Gymnasium's RecordConstructorArgs keeps the arguments of the constructor
_CONSTRUCTOR_ARGUMENTS = "_saved_kwargs"


# The environments import this module, but not SB3 and PyTorch, which take seconds to import


@cache
def _holders() -> tuple[type, ...]:
    """Return small classes in which wrappers keep arrays: running statistics, and the frames of VecFrameStack."""
    from stable_baselines3.common.running_mean_std import RunningMeanStd
    from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

    return GymRunningMeanStd, RunningMeanStd, StackedObservations


@cache
def _not_of_wrapper() -> tuple[type, ...]:
    """Return classes of attributes of wrappers that never change or have a state of their own."""
    from stable_baselines3.common.monitor import ResultsWriter  # the file of a Monitor

    return gym.Env, spaces.Space, EnvSpec, ResultsWriter


def _is_plain(value: Any) -> bool:
    if isinstance(value, (*_SCALARS, *_holders())):
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, dict):
        return all(_is_plain(each) for pair in value.items() for each in pair)
    return isinstance(value, _CONTAINERS) and all(_is_plain(each) for each in value)


def plain_state(owner: object) -> dict[str, Any]:
    """Return copies of the attributes of an object that are plain data, by name."""
    return {name: deepcopy(value) for name, value in _attributes(owner).items() if _is_plain(value)}


def set_plain_state(owner: object, state: dict[str, Any]) -> None:
    """Restore the attributes that :func:`plain_state` returned for a similar object."""
    vars(owner).update(deepcopy(state))


def opaque_attributes(owner: object, ignored: tuple[type, ...]) -> list[str]:
    """Return the attributes that may hold a state which is not saved; objects of ``ignored`` classes do not."""

    def is_known(value: Any) -> bool:
        if isinstance(value, (MethodType, BuiltinFunctionType)):
            # Methods of other objects may change these objects
            return value.__self__ is owner or isinstance(value.__self__, (type, ModuleType, type(None), *ignored))
        return _is_plain(value) or isinstance(value, (*_CONSTANTS, *ignored))

    return [name for name, value in _attributes(owner).items() if not is_known(value)]


def _attributes(owner: object) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if name != _CONSTRUCTOR_ARGUMENTS}


def _has_state_dict(layer: gym.Env) -> bool:
    # Not `hasattr`, as some wrappers pass on all attributes of the layers inside
    return getattr_static(layer, "state_dict", None) is not None


def layer_states(env: gym.Env) -> list[tuple[str, Any]] | None:
    """Return class name and state of each layer that was asked, or None if a layer cannot give its state."""
    # The layers are asked from the outermost one to the first that has a method state_dict(), which also covers what it
    # wraps. Wrappers without this method are described by their attributes, if all of them can be read
    states = []
    layer: Any = env
    while not _has_state_dict(layer):
        if not isinstance(layer, gym.Wrapper) or opaque_attributes(layer, _not_of_wrapper()):
            return None
        states.append((type(layer).__name__, plain_state(layer)))
        layer = layer.env
    state = layer.state_dict()
    return None if state is None else [*states, (type(layer).__name__, state)]


def load_layer_states(env: gym.Env, states: list[tuple[str, Any]]) -> None:
    """Restore what :func:`layer_states` returned to an environment with the same layers."""
    layer: Any = env
    for name, state in states:
        if type(layer).__name__ != name:
            raise ValueError(f"`env` must have a layer {name}, as when it was saved; it has {type(layer).__name__}")
        if _has_state_dict(layer):
            layer.load_state_dict(state)
        else:
            set_plain_state(layer, state)
            layer = layer.env
