"""
The file format around an agent: safetensors, that is the length of the header (8 bytes), the header (JSON) and the
tensors. The agent's description is a JSON text in the header's metadata.

The header is checked here before the safetensors library reads the file, so that the library only allocates tensors of
the expected types and shapes. The library itself checks that the tensors fill the file without gaps or overlaps.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch as th
from msgspec import Meta, to_builtins

from sb3_trmrl.common.checks import short_repr
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_RANK, MAX_TENSORS
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, Record, decode, parse, shown

#: Name of the description in the metadata of the file
_KEY = "sb3_trmrl.agent"
_LENGTH_BYTES = 8

_Size = Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]
#: safetensors' name of a type, and a shape
Entry = tuple[str, tuple[int, ...]]


class _TensorRecord(Record):
    """A tensor in the header."""

    dtype: Literal["F16", "F32", "F64"]
    shape: Annotated[tuple[_Size, ...], Meta(max_length=MAX_RANK)]
    data_offsets: tuple[_Size, _Size]


def read_file(path: Path) -> bytes:
    """Read a file at once, so that the bytes which are checked are the bytes which are loaded."""
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
    """Return the parsed JSON of the agent's description, and type and shape of each tensor by name."""
    if data[:4] == b"PK\x03\x04":
        raise InvalidAgentFile("it is a zip, as SB3 saves models: `export` makes a file that is safe to load")
    begin, length = _LENGTH_BYTES, int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidAgentFile(f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    if begin + length > len(data):
        raise InvalidAgentFile(f"its header has {length} bytes, but the file ends after {len(data)}: it was truncated")
    header = parse(data[begin : begin + length], "the header")
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or list(metadata) != [_KEY] or not isinstance(metadata[_KEY], str):
        raise InvalidAgentFile(f"its metadata is not {_KEY!r} and a text, got {shown(metadata)}")
    if len(header) > MAX_TENSORS:
        raise InvalidAgentFile(f"it has {len(header)} tensors, more than {MAX_TENSORS}")
    records = {name: decode(value, _TensorRecord, f"tensor {short_repr(name)}") for name, value in header.items()}
    entries: dict[str, Entry] = {name: (record.dtype, record.shape) for name, record in records.items()}
    return parse(metadata[_KEY], "the description"), entries


def read_tensors(data: bytes) -> dict[str, th.Tensor]:
    """Return the tensors by name, as copies of the bytes, whose header has been checked."""
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise InvalidAgentFile(f"safetensors cannot read it: {error}") from error
    for name, tensor in tensors.items():
        # `isfinite` of the whole tensor would allocate a copy
        if tensor.numel() > 0 and not bool(th.isfinite(th.stack(tensor.aminmax())).all()):
            raise InvalidAgentFile(f"tensor {name!r} has numbers that are not finite")
    return tensors


def pack(description: Record, tensors: Mapping[str, th.Tensor]) -> bytes:
    """Pack an agent into the bytes of a file."""
    text = json.dumps(to_builtins(description), allow_nan=False, ensure_ascii=False)
    return safetensors.torch.save(dict(tensors), {_KEY: text})
