"""
Tables of wrong uses. A row gives a wrong value for one argument of a function, and the expected error: its type, and a
message with the name of the argument, the value and the allowed values.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NamedTuple

import pytest

NAN, INF = float("nan"), float("inf")
NOT_INTEGERS = (2.5, "4", True, [4], NAN, None)
NOT_NUMBERS = ("fast", True, [1.0], None, 1j)
NOT_BOOLS = ("yes", None, 2)
NOT_KEYWORDS = (5, "width", {1: 2})


class Wrong(NamedTuple):
    """One wrong use. ``quoted`` is the value in the message, by default its ``repr``."""

    argument: str
    value: Any
    error: type[Exception] | tuple[type[Exception], ...]
    allowed: str
    quoted: str | None = None
    given: dict[str, Any] = {}  # noqa: RUF012

    def check(self, function: Callable[..., Any], arguments: dict[str, Any] | None = None) -> None:
        """Call the function with its other arguments, which are right, and check the error of it or of its iterator."""
        quoted = repr(self.value) if self.quoted is None else self.quoted
        with refused(self.error, self.argument, quoted, self.allowed):
            found = function(**{**(arguments or {}), **self.given, self.argument: self.value})
            if isinstance(found, Iterator):
                list(found)


@contextmanager
def refused(
    error: type[Exception] | tuple[type[Exception], ...], *parts: str
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """The block raises an error, whose message has these parts."""
    with pytest.raises(error) as caught:
        yield caught
    assert_says(str(caught.value), *parts)


def assert_says(message: str, *parts: str) -> None:
    """The message has these parts; words are not parts of longer words."""
    for part in parts:
        pattern = rf"(?<![\w-]){re.escape(part)}(?![\w])" if re.fullmatch(r"[\w-]+", part) else re.escape(part)
        assert re.search(pattern, message), f"{part!r} is not in the message {message!r}"


def rows(
    argument: str, values: Iterable[Any], error: type[Exception] | tuple[type[Exception], ...], allowed: str
) -> list[Wrong]:
    """Return a row for each value."""
    return [Wrong(argument, value, error, allowed) for value in values]


def wrong_integer(argument: str, low: int = 1, or_none: bool = False, high: int | None = None) -> list[Wrong]:
    """Wrong uses of an integer of at least ``low`` and at most ``high``"""
    kinds = [value for value in NOT_INTEGERS if not (or_none and value is None)]
    made = rows(argument, kinds, TypeError, "integer")
    made += [Wrong(argument, value, ValueError, f"at least {low}") for value in (low - 1, low - 10)]
    return made + ([] if high is None else [Wrong(argument, high + 1, ValueError, f"at most {high}")])


def wrong_number(argument: str, values: Iterable[Any], allowed: str, or_none: bool = False) -> list[Wrong]:
    """Wrong uses of a number; ``values`` are out of range"""
    kinds = [value for value in NOT_NUMBERS if not (or_none and value is None)]
    return rows(argument, kinds, TypeError, "number") + rows(argument, values, ValueError, allowed)


def wrong_bool(argument: str) -> list[Wrong]:
    """Wrong uses of a flag"""
    return rows(argument, NOT_BOOLS, TypeError, "True or False")


def wrong_option(argument: str, one_of: str, or_none: bool = False) -> list[Wrong]:
    """Wrong uses of a string; ``one_of`` is an allowed one"""
    values = ["no such", "", 1, [one_of], *([] if or_none else [None])]
    return rows(argument, values, ValueError, repr(one_of))


def wrong_keywords(argument: str) -> list[Wrong]:
    """Wrong uses of keyword arguments"""
    return rows(argument, NOT_KEYWORDS, TypeError, "dictionary")


def assert_covered(function: Callable[..., Any], table: Iterable[Wrong], without: Iterable[str] = ()) -> None:
    """Every argument of the function has a row, except those in ``without``, so that new ones are not forgotten."""
    named = {name for name, each in inspect.signature(function).parameters.items() if each.kind is not each.VAR_KEYWORD}
    named -= {"self", *(name for name in named if name.startswith("_"))}
    covered = {row.argument for row in table}
    assert not covered & set(without), "arguments with a row are no exceptions"
    assert named - covered - set(without) == set(), f"arguments of {function} without a row"
    assert set(without) <= named, f"exceptions that {function} does not have"


def saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    """Return the content of a file that one of NumPy's functions saves."""
    file = BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def name_of(value: Any) -> str | None:
    """Return the name of a row for pytest's ``ids``, the same in each process."""
    return (
        f"{value.argument}={re.sub(' at 0x[0-9a-f]+', '', str(value.value))[:30]}"
        if isinstance(value, Wrong)
        else getattr(value, "__name__", None)
    )


class Table(NamedTuple):
    """A function, its arguments, which are right, its wrong uses, and the arguments that need none with the reason."""

    function: Callable[..., Any]
    right: dict[str, Any]
    rows: list[Wrong]
    without: dict[str, str] = {}  # noqa: RUF012


def each_row(tables: Iterable[Table]) -> pytest.MarkDecorator:
    """Parametrise a test with ``function``, ``right`` and ``row``."""
    cases = [(table.function, table.right, row) for table in tables for row in table.rows]
    return pytest.mark.parametrize(("function", "right", "row"), cases, ids=name_of)


def assert_all_covered(tables: Iterable[Table]) -> None:
    """Every argument of every function has a row or a reason."""
    for table in tables:
        assert_covered(table.function, table.rows, table.without)
