"""Plain data from users: values that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sb3_trmrl.common.checks import short_repr
from sb3_trmrl.sharing.limits import MAX_DIGITS, MAX_JSON_DEPTH


def plain(value: Any, where: str, depth: int = MAX_JSON_DEPTH - 4) -> Any:
    """Copy None, bool, int, float, str, and lists and dictionaries of these, ``depth`` of which may be nested."""
    # NumPy scalars become Python's numbers, and tuples become lists
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
                raise ValueError(f"{where} must have strings as keys, got {short_repr(key)}")
        return {str(key): plain(entry, f"{where}[{short_repr(key)}]", depth - 1) for key, entry in value.items()}
    raise ValueError(
        f"{where} must be plain data (None, finite numbers, strings, lists and dictionaries of these), "
        f"got {short_repr(value)} of type {type(value).__name__}"
    )


def _is_unicode(text: str) -> bool:
    """Return whether the text can be encoded. Python strings can contain lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
