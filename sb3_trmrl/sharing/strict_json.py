"""
Untrusted JSON: :func:`parse` reads the text, :func:`decode` turns a part of it into a record.

A record is a ``msgspec.Struct``: its fields, their types and their bounds are stated once, for reading and for writing.
msgspec was chosen over pydantic because it stops at the first error, where pydantic collects one for each of a hundred
thousand wrong entries, because its types are strict by default, and because it is one small extension module without
dependencies.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections import Counter
from typing import Any, TypeVar

import msgspec
import numpy as np

from sb3_trmrl.sharing.limits import MAX_DIGITS, MAX_JSON_DEPTH

RecordT = TypeVar("RecordT")

#: How each byte of a text outside its strings changes the depth
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
#: An escape that may be half of a pair
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
#: Maximum length of msgspec's text in a message, because it quotes unknown names in full
_MAX_QUOTED = 200


class InvalidAgentFile(ValueError):
    """A file is not a valid exported agent. The message names the file and says what is wrong with it."""


class Record(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON object with exactly these fields."""


def parse(text: bytes | str, what: str) -> Any:
    """Parse the JSON of a document, named ``what`` in messages."""
    # With Python's json, whose hooks refuse what msgspec would accept in silence: repeated keys, infinities such as
    # 1e999, and integers of any length

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
            raise InvalidAgentFile(f"{what} repeats the key {shown(key)}")
        return found

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise InvalidAgentFile(f"{what} has a number of {len(digits)} digits, more than {MAX_DIGITS}")
        return int(digits)

    def real(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise InvalidAgentFile(f"{what} has the number {shown(digits)}, which is not finite")
        return number

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_depth(decoded, what)
        document = json.loads(decoded, object_pairs_hook=unique, parse_constant=real, parse_int=whole, parse_float=real)
        if _SURROGATE.search(decoded):
            json.dumps(document, ensure_ascii=False).encode()  # raises if a surrogate is alone
        return document
    except InvalidAgentFile:
        raise
    except ValueError as error:  # JSONDecodeError and UnicodeError are subclasses
        raise InvalidAgentFile(f"{what} is not valid JSON in UTF-8: {error}") from error


def _check_depth(text: str, what: str) -> None:
    """Reject deep nesting before ``json`` recurses: users can raise Python's own limit."""
    # Without escapes, every second quote ends a string. A text that escapes something outside its strings is no JSON:
    # the parser stops there, and up to there the depth is right. With array operations, because a file can have
    # millions of brackets
    outside = "".join(text.replace(r"\\", "").replace(r"\"", "").split('"')[::2])
    depths = _STEPS[np.frombuffer(outside.encode(), np.uint8)].cumsum(dtype=np.int32)
    if depths.max(initial=0) > MAX_JSON_DEPTH:
        raise InvalidAgentFile(f"{what} is nested more than {MAX_JSON_DEPTH} deep")


def decode(value: Any, kind: type[RecordT], where: str) -> RecordT:
    """Decode the part of a document at ``where`` (empty for the whole) into a record; errors name the field."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        # msgspec appends the path of the error, unless that is the whole part: "Expected `int` - at `$.n_layers`"
        reason, separator, path = str(error).rpartition("`$")
        if not separator:
            reason, path = path, ""
        reason = reason.removesuffix(" - at ").removesuffix(" - at `key` in ")
        path, got = path.rstrip("`"), ""
        if reason.startswith("Expected") and ", got " not in reason:
            # Other reasons quote the file, which could forge a path
            for field, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
                value = value[field or int(index)]
            got = f", got {shown(value)}"
        place = f"{where}{path}".lstrip(".") or "the description"
        raise InvalidAgentFile(f"{place[:_MAX_QUOTED]}: {reason[:_MAX_QUOTED]}{got}") from error


def shown(value: Any) -> str:
    """Return the ``repr``, shortened for messages."""
    return reprlib.repr(value)
