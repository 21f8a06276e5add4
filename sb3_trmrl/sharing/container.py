"""
The file around an agent: safetensors, that is the length of a header (8 bytes), the header (JSON), and the tensors.

The header is read here first, and strictly, so that the library only gets files whose sizes are known to fit.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch as th

from sb3_trmrl.common.atomic_file import atomic_file, make_place
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_RANK, MAX_TENSORS
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, fields, integer, integers, name, option, parse, shown

#: Name of the agent's JSON in the metadata of the file
_KEY = "sb3_trmrl.agent"
#: Types of tensors by safetensors' name for them
_DTYPES = {"F32": th.float32, "F64": th.float64}
_LENGTH_BYTES = 8


class Entry(NamedTuple):
    """
    What the header says about a tensor.

    :param dtype: Its type
    :param shape: Its shape
    """

    dtype: th.dtype
    shape: tuple[int, ...]


def read_file(path: Path) -> bytes:
    """
    :param path: File to read, at once: what is checked is then what is loaded
    :return: Its bytes
    :raises FileNotFoundError: if there is none
    :raises InvalidAgentFile: if it is no file, cannot be read, or is too large
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device might never end
            raise InvalidAgentFile("it is not a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise InvalidAgentFile(f"it has {size} bytes, more than {MAX_FILE_BYTES}")
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(f"`path` must be an exported agent: there is no file {path}") from None
    except OSError as error:
        raise InvalidAgentFile(f"it cannot be read: {error}") from error


def read_header(data: bytes) -> tuple[Any, dict[str, Entry]]:
    """
    :param data: Bytes of a file
    :return: The agent's JSON, and what tensors there are, by name
    :raises InvalidAgentFile: if it is no safetensors file of an agent, or its parts do not fit together
    """
    if data[:4] == b"PK\x03\x04":
        raise InvalidAgentFile("it is a zip, as SB3 saves models: `export` makes a file that is safe to load")
    if len(data) < _LENGTH_BYTES:
        raise InvalidAgentFile(f"it has {len(data)} bytes, fewer than the length of a header")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidAgentFile(f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    if length > len(data) - _LENGTH_BYTES:
        raise InvalidAgentFile(f"its header has {length} bytes, the file ends after {len(data)}: it was cut off")
    header = parse(data[_LENGTH_BYTES : _LENGTH_BYTES + length], "the header")
    if not isinstance(header, dict) or "__metadata__" not in header:
        raise InvalidAgentFile("its header has no metadata: it is no exported agent")
    metadata = header.pop("__metadata__")
    if not isinstance(metadata, dict) or _KEY not in metadata:
        raise InvalidAgentFile(f"its metadata has no {_KEY!r}: it is no exported agent")
    (text,) = fields(metadata, "the metadata", [_KEY])
    if not isinstance(text, str):
        raise InvalidAgentFile(f"{_KEY!r} must be a text, got {shown(text)}")
    entries = _entries(header, len(data) - _LENGTH_BYTES - length)
    return parse(text, "the agent's description"), entries


def _entries(header: dict[str, Any], n_bytes: int) -> dict[str, Entry]:
    """
    :param header: Tensors by name
    :param n_bytes: Bytes behind the header
    :return: What they are, if they fill these bytes without gap or overlap
    """
    if len(header) > MAX_TENSORS:
        raise InvalidAgentFile(f"it has {len(header)} tensors, more than {MAX_TENSORS}")
    found = {}
    places = []
    for key, value in header.items():
        where = f"tensor {shown(name(key, 'the name of a tensor'))}"
        dtype, shape, offsets = fields(value, where, ["dtype", "shape", "data_offsets"])
        entry = Entry(
            _DTYPES[option(dtype, f"{where}.dtype", _DTYPES)],
            tuple(integers(shape, f"{where}.shape", MAX_RANK, 0, MAX_FILE_BYTES)),
        )
        begin, end = (integer(offset, f"{where}.data_offsets", 0, n_bytes) for offset in _pair(offsets, where))
        size = math.prod(entry.shape) * entry.dtype.itemsize
        if end - begin != size:
            raise InvalidAgentFile(f"{where} has the shape {entry.shape}, {size} bytes, in {end - begin} bytes")
        found[key] = entry
        places.append((begin, end, where))
    filled = 0
    for begin, end, where in sorted(places):
        if begin != filled:
            raise InvalidAgentFile(f"{where} begins at byte {begin} of the data, the tensor before it ends at {filled}")
        filled = end
    if filled != n_bytes:
        raise InvalidAgentFile(f"its tensors have {filled} bytes, the file has {n_bytes} for them")
    return found


def _pair(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidAgentFile(f"{where}.data_offsets must be a pair, got {shown(value)}")
    return value


def read_tensors(data: bytes) -> dict[str, th.Tensor]:
    """
    :param data: Bytes of a file whose header :func:`read_header` has accepted
    :return: Its tensors by name
    :raises InvalidAgentFile: if the library refuses them
    """
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise InvalidAgentFile(f"safetensors cannot read it: {error}") from error


def pack(description: Mapping[str, Any], tensors: Mapping[str, th.Tensor]) -> bytes:
    """
    :param description: The agent's JSON
    :param tensors: Its tensors by name
    :return: Bytes of a file
    """
    text = json.dumps(description, allow_nan=False, ensure_ascii=False)
    return safetensors.torch.save(dict(tensors), {_KEY: text})


def write_file(path: Path, data: bytes) -> None:
    """
    The file is whole or not there: an older one stays as it was until the new one is on the disk.

    :param path: File to write; its folder is made if need be
    :param data: Its bytes
    :raises ValueError: if ``path`` cannot be written to
    """
    try:
        with atomic_file(make_place(path)) as file:
            file.write(data)
    except OSError as error:
        raise ValueError(f"cannot write the agent to `path` {str(path)!r}: {error}") from error
