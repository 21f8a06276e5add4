"""
Strict reading of JSON that a stranger wrote. Nothing is accepted that the writer would not have written, and every
message says where in the document the problem is.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sb3_trmrl.sharing.limits import MAX_DIGITS, MAX_JSON_DEPTH, MAX_NAME


class InvalidAgentFile(ValueError):
    """A file is no exported agent, or a broken one; the message names the file and what is wrong."""


#: What JSON has a bracket, a quote or an escape for
_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def parse(text: bytes | str, what: str) -> Any:
    """
    :param text: JSON, in UTF-8 if it is bytes
    :param what: What it is, for messages
    :return: The document
    :raises InvalidAgentFile: if it is no JSON, is nested too deeply, repeats a key, or has a number that is not finite
        or too long
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidAgentFile(f"{what} has the key {shown(key)} twice")
            found[key] = value
        return found

    def refuse(constant: str) -> Any:
        raise InvalidAgentFile(f"{what} has the number {constant}")

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise InvalidAgentFile(f"{what} has a number of {len(digits)} digits, more than {MAX_DIGITS}")
        return int(digits)

    def real(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise InvalidAgentFile(f"{what} has the number {shown(digits)}, which is too large")
        return number

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_depth(decoded, what)
        return json.loads(decoded, object_pairs_hook=unique, parse_constant=refuse, parse_int=whole, parse_float=real)
    except InvalidAgentFile:
        raise
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are of this class
        raise InvalidAgentFile(f"{what} is no JSON in UTF-8: {error}") from error


def _check_depth(text: str, what: str) -> None:
    depth, in_string = 0, False
    for mark in _MARKS.finditer(text):
        character = mark.group()
        if character == '"':
            in_string = not in_string
        elif in_string:
            continue
        elif character in "[{":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                raise InvalidAgentFile(f"{what} is nested more than {MAX_JSON_DEPTH} deep")
        elif character in "]}":
            depth -= 1


def shown(value: Any) -> str:
    """
    :param value: Anything
    :return: What a message says about it, never long
    """
    return reprlib.repr(value)


def fields(value: Any, where: str, names: Sequence[str]) -> list[Any]:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param names: Names that it must have, and no others
    :return: What stands under each of them
    :raises InvalidAgentFile: if it is no object with exactly these names
    """
    if not isinstance(value, dict):
        raise InvalidAgentFile(f"{where} must be an object, got {shown(value)}")
    missing = [name for name in names if name not in value]
    unknown = [name for name in value if name not in names]
    if missing or unknown:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has the unknown {shown(unknown)}"] * bool(
            unknown
        )
        raise InvalidAgentFile(f"{where} {' and '.join(problems)}")
    return [value[name] for name in names]


def sequence(value: Any, where: str, longest: int) -> list[Any]:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param longest: Number of entries at most
    :return: The list
    :raises InvalidAgentFile: if it is no list, or a longer one
    """
    if not isinstance(value, list) or len(value) > longest:
        raise InvalidAgentFile(f"{where} must be a list of at most {longest} entries, got {shown(value)}")
    return value


def integer(value: Any, where: str, low: int, high: int) -> int:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param low: Lowest number allowed
    :param high: Highest number allowed
    :return: The number
    :raises InvalidAgentFile: if it is no integer of that range
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidAgentFile(f"{where} must be an integer from {low} to {high}, got {shown(value)}")
    return value


def integers(value: Any, where: str, longest: int, low: int, high: int) -> list[int]:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param longest: Number of entries at most
    :param low: Lowest number allowed
    :param high: Highest number allowed
    :return: The numbers
    :raises InvalidAgentFile: if it is no list of such integers
    """
    entries = sequence(value, where, longest)
    return [integer(entry, f"{where}[{index}]", low, high) for index, entry in enumerate(entries)]


def number(value: Any, where: str, low: float = -math.inf) -> float:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param low: Lowest number allowed
    :return: The number
    :raises InvalidAgentFile: if it is no finite number from ``low`` on
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < math.inf:
        least = "" if low == -math.inf else f", {low:g} or more"
        raise InvalidAgentFile(f"{where} must be a finite number{least}, got {shown(value)}")
    return float(value)


def flag(value: Any, where: str) -> bool:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :return: The truth value
    :raises InvalidAgentFile: if it is none
    """
    if not isinstance(value, bool):
        raise InvalidAgentFile(f"{where} must be true or false, got {shown(value)}")
    return value


def name(value: Any, where: str) -> str:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :return: The text
    :raises InvalidAgentFile: if it is no text of one line that can be printed, or is too long
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise InvalidAgentFile(f"{where} must be a printable text of 1 to {MAX_NAME} characters, got {shown(value)}")
    return value


def option(value: Any, where: str, options: Iterable[str]) -> str:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param options: The texts that are allowed
    :return: The text
    :raises InvalidAgentFile: if it is none of them
    """
    allowed = tuple(options)
    if not isinstance(value, str) or value not in allowed:
        raise InvalidAgentFile(f"{where} must be one of {', '.join(allowed)}, got {shown(value)}")
    return value


def plain_object(value: Any, where: str) -> dict[str, Any]:
    """
    :param value: Part of a document, or what a user gave
    :param where: Its place, for messages
    :return: The same as :func:`plain` makes of it
    :raises InvalidAgentFile: if it is no object of plain data
    """
    if not isinstance(value, dict):
        raise InvalidAgentFile(f"{where} must be a dictionary, got {shown(value)}")
    found: dict[str, Any] = plain(value, where)
    return found


def plain(value: Any, where: str, depth: int = MAX_JSON_DEPTH - 4) -> Any:
    """
    :param value: Part of a document, or what a user gave
    :param where: Its place, for messages
    :param depth: Lists and dictionaries within each other that are allowed
    :return: A copy in plain data: None, bool, int, float, text, and lists and dictionaries of these. Numbers of numpy
        become Python's, tuples become lists
    :raises InvalidAgentFile: if there is anything else in it
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 10 ** (MAX_DIGITS - 1):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and _is_unicode(value):
        return str(value)
    if depth > 0 and isinstance(value, (list, tuple)):
        return [plain(entry, f"{where}[{index}]", depth - 1) for index, entry in enumerate(value)]
    if depth > 0 and isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not _is_unicode(key):
                raise InvalidAgentFile(f"{where} must have texts for keys, got {shown(key)}")
        return {str(key): plain(entry, f"{where}[{shown(key)}]", depth - 1) for key, entry in value.items()}
    raise InvalidAgentFile(
        f"{where} must be plain data (None, numbers that are finite, texts, lists and dictionaries of these), "
        f"got {shown(value)} of type {type(value).__name__}"
    )


def _is_unicode(text: str) -> bool:
    """
    :return: Whether it can be written: JSON can spell halves of characters
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)
