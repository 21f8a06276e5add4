"""Records of the observation and action spaces that PPO supports."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from gymnasium import spaces
from msgspec import Meta

from sb3_trmrl.sharing.limits import MAX_KEYS, MAX_NAME, MAX_RANK, MAX_VALUES
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, Record, shown

_Count = Annotated[int, Meta(ge=1, le=MAX_VALUES)]
_Start = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Shape = Annotated[tuple[Annotated[int, Meta(ge=0, le=MAX_VALUES)], ...], Meta(max_length=MAX_RANK)]
_Integer: TypeAlias = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_Number: TypeAlias = Literal["float16", "float32", "float64", "bool"] | _Integer
#: One number for the whole Box, or a list in C order. JSON has no number for infinity
_Bound: TypeAlias = bool | int | float | Literal["inf", "-inf"]
_Bounds: TypeAlias = _Bound | list[_Bound]


class SpaceRecord(Record, tag_field="type"):
    """A space. Its size is checked when the record is decoded, before the space is built."""

    def __post_init__(self) -> None:
        if n_values(self) > MAX_VALUES:
            raise InvalidAgentFile(f"a space has {n_values(self)} numbers, more than {MAX_VALUES}")


class _Box(SpaceRecord, tag="Box"):
    shape: _Shape
    dtype: _Number
    low: _Bounds
    high: _Bounds


class _Discrete(SpaceRecord, tag="Discrete"):
    n: _Count
    start: _Start
    dtype: _Integer


class _MultiDiscrete(SpaceRecord, tag="MultiDiscrete"):
    nvec: Annotated[list[_Count], Meta(min_length=1, max_length=MAX_VALUES)]
    start: list[_Start]
    dtype: _Integer


class _MultiBinary(SpaceRecord, tag="MultiBinary"):
    shape: _Shape
    is_flat: bool  # whether it was made from a number instead of a shape


#: Spaces of actions, and of the parts of a Dict
Leaf: TypeAlias = _Box | _Discrete | _MultiDiscrete | _MultiBinary


class _Dict(SpaceRecord, tag="Dict"):
    spaces: Annotated[
        list[tuple[Annotated[str, Meta(min_length=1, max_length=MAX_NAME)], Leaf]],
        Meta(min_length=1, max_length=MAX_KEYS),
    ]

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = [key for key, _ in self.spaces]
        for key in keys:
            if keys.count(key) > 1 or not key.isprintable():
                raise InvalidAgentFile(f"keys must be printable and unique, got {shown(key)}")


#: Spaces of observations
Space: TypeAlias = Leaf | _Dict


def n_values(record: SpaceRecord) -> int:
    """Return the number of values of a flattened observation, like ``gymnasium.spaces.flatdim``."""
    if isinstance(record, _Dict):
        return sum(n_values(part) for _, part in record.spaces)
    if isinstance(record, _MultiDiscrete):
        return sum(record.nvec)
    if isinstance(record, (_Box, _MultiBinary)):
        return math.prod(record.shape)
    assert isinstance(record, _Discrete)
    return record.n


def space_record(space: spaces.Space[Any], where: str) -> Any:
    """Return the record of a space, named ``where`` in messages."""
    dtype: Any = str(space.dtype)
    if isinstance(space, spaces.Dict):
        return _Dict([(key, space_record(part, f"{where}[{key!r}]")) for key, part in space.spaces.items()])
    if isinstance(space, spaces.Box):
        return _Box(space.shape, dtype, _short_bounds(space.low), _short_bounds(space.high))
    if isinstance(space, spaces.Discrete):
        return _Discrete(int(space.n), int(space.start), dtype)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return _MultiDiscrete(space.nvec.tolist(), space.start.tolist(), dtype)
    if isinstance(space, spaces.MultiBinary):
        return _MultiBinary(space.shape, isinstance(space.n, int))
    raise ValueError(f"{where} must be a Box, Discrete, MultiDiscrete, MultiBinary or Dict of these, got {space}")


def build_space(record: SpaceRecord, where: str) -> spaces.Space[Any]:
    """Return the space of a record, named ``where`` in messages."""
    if isinstance(record, _Dict):  # Gymnasium keeps the order of a list
        return spaces.Dict([(key, build_space(part, f"{where}[{key!r}]")) for key, part in record.spaces])
    try:
        return _build_leaf(record)
    except (AssertionError, OverflowError, TypeError, ValueError) as error:
        raise InvalidAgentFile(f"{where}: {error}") from error


def _build_leaf(record: SpaceRecord) -> spaces.Space[Any]:
    if isinstance(record, _Box):
        low, high = (_full_bounds(record, name) for name in ("low", "high"))
        if not (low <= high).all():
            raise ValueError("low must not be above high")
        return spaces.Box(low, high, record.shape, low.dtype.type)
    if isinstance(record, _Discrete):
        # Older versions of Gymnasium only know int64 and have no argument for it
        options: dict[str, Any] = {} if record.dtype == "int64" else {"dtype": np.dtype(record.dtype).type}
        return spaces.Discrete(record.n, start=record.start, **options)
    if isinstance(record, _MultiDiscrete):
        if len(record.nvec) != len(record.start):
            raise ValueError(f"nvec has {len(record.nvec)} entries, start has {len(record.start)}")
        return spaces.MultiDiscrete(record.nvec, dtype=np.dtype(record.dtype).type, start=record.start)
    assert isinstance(record, _MultiBinary)
    if record.is_flat and len(record.shape) != 1:
        raise ValueError(f"shape must have one axis, got {record.shape}")
    return spaces.MultiBinary(record.shape[0] if record.is_flat else record.shape)


def _short_bounds(bounds: np.ndarray[Any, Any]) -> Any:
    values = [str(value) if value in (math.inf, -math.inf) else value for value in bounds.ravel().tolist()]
    return values[0] if values and all(value == values[0] for value in values) else values


def _full_bounds(box: _Box, name: str) -> np.ndarray[Any, Any]:
    bounds: _Bounds = getattr(box, name)
    values = bounds if isinstance(bounds, list) else [bounds]
    if isinstance(bounds, list) and len(values) != n_values(box):
        raise ValueError(f"{name} must be one number or {n_values(box)} of them, got {len(values)}")
    dtype = np.dtype(box.dtype)
    is_float = dtype.kind == "f"
    allowed = {bool} if dtype.kind == "b" else {int, float, str} if is_float else {int}
    if not {type(value) for value in values} <= allowed:
        raise ValueError(f"{name} must be of type {dtype}, got {shown(bounds)}")
    exact = np.array(values, dtype=float if is_float else dtype)  # an integer that does not fit raises an error
    with np.errstate(over="ignore"):
        found = exact.astype(dtype)
    if is_float and (np.isinf(found) != np.isinf(exact)).any():
        raise ValueError(f"{name} must be of type {dtype}, got {shown(bounds)}")
    return found.reshape(box.shape) if isinstance(bounds, list) else np.full(box.shape, found[0])
