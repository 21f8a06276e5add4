"""Argument checks whose messages name the argument and quote the value."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def check_positive_int(name: str, value: Any) -> int:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python integer
    :raises TypeError: if it is not an integer (a bool is not)
    :raises ValueError: if it is below 1
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an integer, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")
    return int(value)


def check_option(name: str, value: Any, options: Iterable[str]) -> str:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param options: The strings that are allowed
    :return: ``value``
    :raises ValueError: if it is none of the options
    """
    if value not in tuple(options):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, options))}, got {value!r}")
    option: str = value
    return option


def check_non_negative(name: str, value: Any) -> float:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python float
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is negative or not finite
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"`{name}` must be a number, got {value!r} of type {type(value).__name__}")
    if not 0 <= value < np.inf:
        raise ValueError(f"`{name}` must be finite and not negative, got {value}")
    return float(value)


def check_finite(name: str, array: np.ndarray | Mapping[str, np.ndarray]) -> None:
    """
    One NaN in a rollout turns every weight into NaN at the next update, so it is refused where it appears.

    :param name: What the numbers are, for the message
    :param array: Numbers of a batch of environments, shape (B, ...), or a mapping of those
    :raises ValueError: naming the first environment whose numbers are not all finite
    """
    if isinstance(array, Mapping):
        for key, value in array.items():
            check_finite(f"{name}[{key!r}]", value)
        return
    array = np.asarray(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
        raise ValueError(f"non-finite {name} from environment {index}: {array[index] if array.ndim else array}")
