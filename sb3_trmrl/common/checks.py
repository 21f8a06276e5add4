"""
Argument checks. The messages name the argument, quote its value and say what is allowed.

Every check takes the ``name`` of an argument and its ``value``, and returns the value; numbers become plain Python
numbers. It raises ``TypeError`` for a value of the wrong type (a bool is not a number) and ``ValueError`` for one that
is not allowed.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np


def _wrong_type(name: str, value: Any, allowed: str) -> TypeError:
    return TypeError(f"`{name}` must be {allowed}, got {value!r} of type {type(value).__name__}")


def check_instance(name: str, value: Any, kinds: type | tuple[type, ...], allowed: str) -> Any:
    """Check that the value is an instance of one of the classes, which the message calls ``allowed``."""
    if not isinstance(value, kinds):
        raise _wrong_type(name, value, allowed)
    return value


def check_callable(name: str, value: Any, allowed: str = "a function") -> Any:
    """Check that the value can be called; the message calls it ``allowed``."""
    if not callable(value):
        raise _wrong_type(name, value, allowed)
    return value


def check_subclass(name: str, value: Any, kind: type) -> Any:
    """Check that the value is a subclass of ``kind``."""
    if not (isinstance(value, type) and issubclass(value, kind)):
        raise TypeError(f"`{name}` must be a subclass of {kind.__name__}, got {value!r}")
    return value


def check_path(name: str, value: Any) -> Path:
    """Check that the value is a path, and return it as a ``Path``."""
    return Path(check_instance(name, value, (str, PathLike), "a path"))


def check_bool(name: str, value: Any) -> bool:
    """Check that the value is True or False."""
    return bool(check_instance(name, value, (bool, np.bool_), "True or False"))


def check_int(name: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """Check that the value is an integer from ``low`` to ``high``; None: no upper bound."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise _wrong_type(name, value, "an integer")
    if value < low:
        raise ValueError(f"`{name}` must be at least {low}, got {value}")
    if high is not None and value > high:
        raise ValueError(f"`{name}` must be at most {high}, got {value}")
    return int(value)


def check_positive_int(name: str, value: Any) -> int:
    """Check that the value is an integer of at least 1."""
    return check_int(name, value, low=1)


def check_seed(name: str, value: Any) -> int:
    """Check that the value is a seed that NumPy's generators accept."""
    return check_int(name, value, low=0, high=2**32 - 1)


def check_whole_number(name: str, value: Any, low: int = 0) -> int:
    """Check that the value is an integer of at least ``low``, or a float such as 1e6 that equals one."""
    is_whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return check_int(name, int(value) if is_whole else value, low)


def check_number(name: str, value: Any) -> float:
    """Check that the value is a finite number."""
    if type(value) is float and math.isfinite(value):  # nearly always, where it has to be fast
        return value
    return _check_real(name, value, "finite", math.isfinite)


def check_non_negative(name: str, value: Any) -> float:
    """Check that the value is a finite number of at least 0."""
    return _check_real(name, value, "finite and not negative", lambda number: 0 <= number < np.inf)


def check_positive(name: str, value: Any, finite: bool = True) -> float:
    """Check that the value is a positive number, and finite unless ``finite`` is False."""
    if finite:
        return _check_real(name, value, "finite and positive", lambda number: 0 < number < np.inf)
    return _check_real(name, value, "positive", lambda number: number > 0)


def check_between(name: str, value: Any, low: float, high: float) -> float:
    """Check that the value is a number in [``low``, ``high``]."""
    return _check_real(name, value, f"in [{low:g}, {high:g}]", lambda number: low <= number <= high)


def _check_real(name: str, value: Any, allowed: str, is_allowed: Callable[[float], bool]) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise _wrong_type(name, value, "a number")
    if not is_allowed(float(value)):
        raise ValueError(f"`{name}` must be {allowed}, got {value}")
    return float(value)


def check_option(name: str, value: Any, options: Iterable[str]) -> str:
    """Check that the value is one of the strings in ``options``; anything else is a ``ValueError``."""
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def check_names(name: str, value: Any) -> None:
    """Check that the value is a list or another collection of strings, or None."""
    is_collection = isinstance(value, Collection) and not isinstance(value, str)
    if value is not None and not (is_collection and all(isinstance(each, str) for each in value)):
        raise _wrong_type(name, value, "a list of names or None")


def check_keywords(
    name: str, value: Any, function: Callable[..., Any] | None = None, passed: Iterable[str] = ()
) -> dict[str, Any]:
    """Check that the value is a dictionary of keyword arguments or None, and return a copy, empty for None."""
    # If ``function`` is given, it has to accept their names, and those in ``passed`` are not allowed
    value = {} if value is None else value
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong_type(name, value, "a dictionary of keyword arguments or None")
    if function is not None and value:
        known = inspect.signature(function).parameters.values()
        allowed = sorted({p.name for p in known if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)} - {*passed})
        unknown = [key for key in value if key not in allowed]
        if unknown and not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known):
            hint = "".join(f". Did you mean {each!r}?" for each in difflib.get_close_matches(unknown[0], allowed, 1))
            taken = f"it takes {', '.join(allowed) or 'none'}{hint}"
            called = getattr(function, "__name__", repr(function))
            raise TypeError(f"`{name}` has unknown arguments {', '.join(map(repr, unknown))} for {called}: {taken}")
    return dict(value)


def check_finite(name: str, array: np.ndarray | Mapping[str, np.ndarray], largest: float = 3.4e38) -> None:
    """Check that arrays of B environments, (B, ...), are finite and at most ``largest``, by default in 32 bits."""
    # One NaN in a rollout would turn all weights into NaN at the next update
    if isinstance(array, Mapping):
        for key, value in array.items():
            check_finite(f"{name}[{key!r}]", value, largest)
        return
    array = np.asarray(array)
    if array.dtype.kind != "f":
        return
    is_right = np.abs(array) <= np.float64(largest)  # False for NaN
    if not is_right.all():
        index = int(np.argwhere(~is_right)[0][0]) if array.ndim else 0
        wrong = array[index] if array.ndim else array
        problem = "too large a number in" if np.isfinite(wrong).all() else "non-finite"
        raise ValueError(f"{problem} {name} from environment {index}: {wrong}")


def short_repr(value: Any) -> str:
    """Return the first 200 characters of the value's ``repr``, for a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
