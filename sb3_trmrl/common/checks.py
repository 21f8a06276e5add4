"""
Argument checks whose messages name the argument, quote the value and say what is allowed.

Every check takes the argument's name and what the user gave, and returns it, numbers as plain Python numbers.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np


def check_instance(name: str, value: Any, kinds: type | tuple[type, ...], allowed: str) -> Any:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param kinds: What it has to be an instance of
    :param allowed: What to call that in the message
    :return: ``value``
    :raises TypeError: if it is something else
    """
    if not isinstance(value, kinds):
        raise TypeError(f"`{name}` must be {allowed}, got {value!r} of type {type(value).__name__}")
    return value


def check_path(name: str, value: Any) -> Path:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a path
    :raises TypeError: if it is none
    """
    return Path(check_instance(name, value, (str, PathLike), "a path"))


def check_subclass(name: str, value: Any, kind: type) -> Any:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param kind: What it has to be a subclass of
    :return: ``value``
    :raises TypeError: if it is no class, or another one
    """
    if not (isinstance(value, type) and issubclass(value, kind)):
        raise TypeError(f"`{name}` must be a subclass of {kind.__name__}, got {value!r}")
    return value


def check_callable(name: str, value: Any, allowed: str = "a function") -> Any:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param allowed: What it has to be, for the message
    :return: ``value``
    :raises TypeError: if it cannot be called
    """
    if not callable(value):
        raise TypeError(f"`{name}` must be {allowed}, got {value!r} of type {type(value).__name__}")
    return value


def check_bool(name: str, value: Any) -> bool:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python bool
    :raises TypeError: if it is neither True nor False
    """
    return bool(check_instance(name, value, (bool, np.bool_), "True or False"))


def check_int(name: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param low: Lowest integer allowed
    :param high: Highest integer allowed, None for no bound
    :return: ``value`` as a Python integer
    :raises TypeError: if it is not an integer (a bool is not)
    :raises ValueError: if it is out of range
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an integer, got {value!r} of type {type(value).__name__}")
    if value < low:
        raise ValueError(f"`{name}` must be at least {low}, got {value}")
    if high is not None and value > high:
        raise ValueError(f"`{name}` must be at most {high}, got {value}")
    return int(value)


def check_positive_int(name: str, value: Any) -> int:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python integer
    :raises TypeError: if it is not an integer (a bool is not)
    :raises ValueError: if it is below 1
    """
    return check_int(name, value, low=1)


def check_whole_number(name: str, value: Any, low: int = 0) -> int:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave: an integer, or a float such as 1e6 that is one
    :param low: Lowest number allowed
    :return: ``value`` as a Python integer
    :raises TypeError: if it is not an integer (a bool is not)
    :raises ValueError: if it is below ``low``
    """
    is_whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return check_int(name, int(value) if is_whole else value, low)


def check_names(name: str, value: Any) -> None:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :raises TypeError: if it is neither a list of strings, or another collection of them, nor None
    """
    if value is None:
        return
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"`{name}` must be a list of names or None, got {value!r} of type {type(value).__name__}")


def check_seed(name: str, value: Any) -> int:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python integer
    :raises TypeError: if it is not an integer (a bool is not)
    :raises ValueError: if NumPy's generators do not take it
    """
    return check_int(name, value, low=0, high=2**32 - 1)


def check_number(name: str, value: Any) -> float:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python float
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is not finite
    """
    number = _real(name, value)
    if not np.isfinite(number):
        raise ValueError(f"`{name}` must be finite, got {value}")
    return number


def check_non_negative(name: str, value: Any) -> float:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :return: ``value`` as a Python float
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is negative or not finite
    """
    number = _real(name, value)
    if not 0 <= number < np.inf:
        raise ValueError(f"`{name}` must be finite and not negative, got {value}")
    return number


def check_positive(name: str, value: Any, finite: bool = True) -> float:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param finite: Whether infinity is refused
    :return: ``value`` as a Python float
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is not positive, or not finite
    """
    number = _real(name, value)
    if not number > 0 or (finite and number == np.inf):
        raise ValueError(f"`{name}` must be {'finite and ' if finite else ''}positive, got {value}")
    return number


def check_between(name: str, value: Any, low: float, high: float) -> float:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param low: Lowest number allowed
    :param high: Highest number allowed
    :return: ``value`` as a Python float
    :raises TypeError: if it is not a real number (a bool is not)
    :raises ValueError: if it is out of range
    """
    number = _real(name, value)
    if not low <= number <= high:
        raise ValueError(f"`{name}` must be in [{low:g}, {high:g}], got {value}")
    return number


def _real(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"`{name}` must be a number, got {value!r} of type {type(value).__name__}")
    return float(value)


def check_option(name: str, value: Any, options: Iterable[str]) -> str:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave
    :param options: The strings that are allowed
    :return: ``value``
    :raises ValueError: if it is none of the options
    """
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def check_keywords(
    name: str, value: Any, function: Callable[..., Any] | None = None, passed: Iterable[str] = ()
) -> dict[str, Any]:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave: keyword arguments, None for none
    :param function: What takes them, if their names are to be looked at
    :param passed: Arguments of it that it gets from elsewhere
    :return: A copy of ``value``
    :raises TypeError: if it is no dictionary with names as keys, or has a name that ``function`` does not take
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        kind = type(value).__name__
        raise TypeError(f"`{name}` must be a dictionary of keyword arguments or None, got {value!r} of type {kind}")
    if function is not None:
        parameters = inspect.signature(function).parameters
        named = {key for key, each in parameters.items() if each.kind not in _NOT_KEYWORDS}
        allowed = sorted(named - set(passed))
        unknown = [key for key in value if key not in allowed]
        if unknown and (inspect.Parameter.VAR_KEYWORD not in {each.kind for each in parameters.values()}):
            taken = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            called = getattr(function, "__name__", repr(function))
            raise TypeError(f"`{name}` has {', '.join(map(repr, unknown))}, not arguments for {called}: {taken}")
    return dict(value)


_NOT_KEYWORDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


def short_repr(value: Any, length: int = 200) -> str:
    """
    :param value: What the user gave, of any size
    :param length: Most characters to show
    :return: What a message shows of it
    """
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."


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
