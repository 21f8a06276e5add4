"""Attributes that are plain data: what is saved of an environment, a wrapper or a callback."""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

_SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic, np.random.Generator)
_CONTAINERS = (list, tuple, set, frozenset, deque)


def is_plain(value: Any, classes: tuple[type, ...] = ()) -> bool:
    """
    :param value: Any object
    :param classes: Classes whose objects count as plain data too
    :return: Whether it is a number, a string, an array of numbers, a NumPy generator, or a container of those
    """
    if isinstance(value, (*_SCALARS, *classes)):
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, dict):
        return all(is_plain(each, classes) for pair in value.items() for each in pair)
    return isinstance(value, _CONTAINERS) and all(is_plain(each, classes) for each in value)


def plain_state(owner: object, classes: tuple[type, ...] = ()) -> dict[str, Any]:
    """
    :param owner: Any object
    :param classes: See :func:`is_plain`
    :return: Copies of its attributes that are plain data, by name
    """
    return {name: deepcopy(value) for name, value in vars(owner).items() if is_plain(value, classes)}


def attributes_besides(owner: object, ignored: tuple[type, ...]) -> list[str]:
    """
    :param owner: Any object
    :param ignored: Classes whose objects do not change, or whose state is taken otherwise
    :return: Names of its attributes that :func:`plain_state` leaves out and that may hold a state
    """
    without_state = (*ignored, type, FunctionType, MethodType, BuiltinFunctionType, partial)
    return [name for name, value in vars(owner).items() if not is_plain(value) and not isinstance(value, without_state)]


def set_plain_state(owner: object, state: dict[str, Any]) -> None:
    """
    :param owner: An object like the one the state is of
    :param state: What :func:`plain_state` returned
    """
    vars(owner).update(deepcopy(state))
