"""Observation and action spaces as JSON: all that PPO takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trmrl.sharing.limits import MAX_KEYS, MAX_RANK, MAX_VALUES
from sb3_trmrl.sharing.strict_json import (
    InvalidAgentFile,
    fields,
    flag,
    integer,
    integers,
    name,
    number,
    option,
    sequence,
    shown,
)

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "float32", "float64")
#: Bounds that JSON has no number for
_INFINITE = {"inf": math.inf, "-inf": -math.inf}
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def space_to_json(space: spaces.Space[Any], where: str) -> dict[str, Any]:
    """
    :param space: Space
    :param where: What it is, for messages
    :return: Its JSON
    :raises ValueError: if it is none of those that PPO takes
    """
    if isinstance(space, spaces.Dict):
        return {
            "type": "Dict",
            "spaces": [[key, space_to_json(part, f"{where}[{key!r}]")] for key, part in space.spaces.items()],
        }
    if isinstance(space, spaces.Box):
        low, high = (_bound_to_json(bound) for bound in (space.low, space.high))
        return {"type": "Box", "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape), "is_flat": isinstance(space.n, int)}
    raise ValueError(f"{where} must be a Box, Discrete, MultiDiscrete, MultiBinary or Dict of these, got {space}")


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    """
    :param bound: Lower or upper bounds
    :return: The number that all of them are, or the numbers in a row
    """
    values = [_infinite_as_text(value) for value in bound.ravel().tolist()]
    return values[0] if values and all(value == values[0] for value in values) else values


def _infinite_as_text(value: Any) -> Any:
    return ("inf" if value > 0 else "-inf") if isinstance(value, float) and math.isinf(value) else value


def space_from_json(value: Any, where: str, may_be_dict: bool) -> spaces.Space[Any]:
    """
    :param value: Part of a document
    :param where: Its place, for messages
    :param may_be_dict: Whether a Dict is allowed: neither for actions nor within another
    :return: The space
    :raises InvalidAgentFile: if it is no such space, or too large
    """
    kinds = {
        "Box": ("shape", "dtype", "low", "high"),
        "Discrete": ("n", "start", "dtype"),
        "MultiDiscrete": ("nvec", "start", "dtype"),
        "MultiBinary": ("shape", "is_flat"),
        **({"Dict": ("spaces",)} if may_be_dict else {}),
    }
    kind = option(value.get("type") if isinstance(value, dict) else value, f"{where}.type", kinds)
    _, *parts = fields(value, where, ["type", *kinds[kind]])
    if kind == "Box":
        return _box(where, *parts)
    if kind == "Discrete":
        return _discrete(where, *parts)
    if kind == "MultiDiscrete":
        return _multi_discrete(where, *parts)
    if kind == "MultiBinary":
        return _multi_binary(where, *parts)
    return _dict(where, *parts)


def _shape(value: Any, where: str) -> tuple[int, ...]:
    shape = tuple(integers(value, f"{where}.shape", MAX_RANK, 0, MAX_VALUES))
    if math.prod(shape) > MAX_VALUES:
        raise InvalidAgentFile(f"{where}.shape {shape} has more than {MAX_VALUES} numbers")
    return shape


def _box(where: str, shape: Any, dtype: Any, low: Any, high: Any) -> spaces.Box:
    sides = _shape(shape, where)
    kind = option(dtype, f"{where}.dtype", (*_FLOATS, *_INTEGERS, "bool"))
    lows, highs = (_bound(value, f"{where}.{side}", sides, kind) for side, value in (("low", low), ("high", high)))
    if not (lows <= highs).all():
        raise InvalidAgentFile(f"{where}.low must not be above {where}.high")
    return spaces.Box(lows, highs, sides, np.dtype(kind).type)


def _bound(value: Any, where: str, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """
    :param value: One number, or as many as the box has
    :param where: Its place, for messages
    :param shape: Shape of the box
    :param dtype: Type of the box
    :return: The bounds
    """

    def one(entry: Any, place: str) -> Any:
        if dtype == "bool":
            return flag(entry, place)
        if dtype in _INTEGERS:
            limits = np.iinfo(dtype)
            return integer(entry, place, int(limits.min), int(limits.max))
        if isinstance(entry, str):
            return _INFINITE[option(entry, place, _INFINITE)]
        found = number(entry, place)
        if abs(found) > float(np.finfo(dtype).max):
            raise InvalidAgentFile(f"{place} must be a number of type {dtype}, got {shown(entry)}")
        return found

    if not isinstance(value, list):
        return np.full(shape, one(value, where), dtype=dtype)
    size = math.prod(shape)
    if len(value) != size:
        raise InvalidAgentFile(f"{where} must be a number or {size} of them, got {len(value)}")
    entries = [one(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    return np.array(entries, dtype=dtype).reshape(shape)


def _discrete(where: str, n: Any, start: Any, dtype: Any) -> spaces.Discrete[Any]:
    kind = option(dtype, f"{where}.dtype", _INTEGERS)
    count = integer(n, f"{where}.n", 1, MAX_VALUES)
    first = integer(start, f"{where}.start", _LOWEST, _HIGHEST)
    # Older versions of Gymnasium know this type only, and no argument for it
    chosen: dict[str, Any] = {} if kind == "int64" else {"dtype": np.dtype(kind).type}
    return spaces.Discrete(count, start=first, **chosen)


def _multi_discrete(where: str, nvec: Any, start: Any, dtype: Any) -> spaces.MultiDiscrete[Any]:
    kind = option(dtype, f"{where}.dtype", _INTEGERS)
    counts = integers(nvec, f"{where}.nvec", MAX_VALUES, 1, MAX_VALUES)
    firsts = integers(start, f"{where}.start", MAX_VALUES, _LOWEST, _HIGHEST)
    if not counts or len(firsts) != len(counts):
        raise InvalidAgentFile(f"{where} has {len(counts)} counts and {len(firsts)} starts")
    if sum(counts) > MAX_VALUES:
        raise InvalidAgentFile(f"{where}.nvec has {sum(counts)} classes, more than {MAX_VALUES}")
    return spaces.MultiDiscrete(counts, dtype=np.dtype(kind).type, start=firsts)


def _multi_binary(where: str, shape: Any, is_flat: Any) -> spaces.MultiBinary:
    sides = _shape(shape, where)
    if flag(is_flat, f"{where}.is_flat"):
        if len(sides) != 1:
            raise InvalidAgentFile(f"{where}.shape must have one number, got {sides}")
        return spaces.MultiBinary(sides[0])
    return spaces.MultiBinary(sides)


def _dict(where: str, parts: Any) -> spaces.Dict:
    pairs = sequence(parts, f"{where}.spaces", MAX_KEYS)
    found: dict[str, spaces.Space[Any]] = {}
    total = 0
    for index, pair in enumerate(pairs):
        place = f"{where}.spaces[{index}]"
        if len(sequence(pair, place, 2)) != 2:
            raise InvalidAgentFile(f"{place} must be a key and a space, got {shown(pair)}")
        key = name(pair[0], f"{place}[0]")
        if key in found:
            raise InvalidAgentFile(f"{where} has the key {shown(key)} twice")
        found[key] = space_from_json(pair[1], f"{where}[{key!r}]", may_be_dict=False)
        total += spaces.flatdim(found[key])
        if total > MAX_VALUES:  # before the next one is made
            raise InvalidAgentFile(f"{where} must have at most {MAX_VALUES} numbers, has {total} up to {place}")
    if not found:
        raise InvalidAgentFile(f"{where} must have a key")
    return spaces.Dict(list(found.items()))  # of a list the order is kept
