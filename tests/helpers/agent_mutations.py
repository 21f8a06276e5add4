"""
Damaged and hostile versions of an exported agent with their expected outcomes. As a script, this module loads all of
them and prints what happened; see ``test_sharing_files.py``.
"""

import json
import math
import random
import re
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

#: Expected outcomes: must be refused, must load, or either
REFUSED, LOADS, EITHER = "refused", "loads", "either"
KEY = "sb3_trmrl.agent"
Mutation = tuple[bytes, str]

NASTY: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3.5,
    2**16,
    2**31,
    2**62,
    10**19,
    1e308,
    -1e308,
    "",
    "inf",
    "x" * 5000,
    "\ud800",
    "builtins.eval",
    [],
    [[]],
    {},
    [2**40],
    [1] * 1000,
    {"type": "Box"},
    {"type": "Dict", "spaces": []},
    "Dict",
    "CombinedExtractor",
    "NatureCNN",
    "full",
    "learned",
]


class Parts:
    """The unpacked parts of an exported agent: header, description and body."""

    def __init__(self, data: bytes) -> None:
        (self.length,) = struct.unpack("<Q", data[:8])
        self.data = data
        self.header: dict[str, Any] = json.loads(data[8 : 8 + self.length])
        self.agent: dict[str, Any] = json.loads(self.header.pop("__metadata__")[KEY])
        self.body = data[8 + self.length :]

    def pack(self, agent_text: str | None = None, more: dict[str, Any] | None = None) -> bytes:
        """Pack the file, with another JSON text for the description and more in the header, if given."""
        text = json.dumps(self.agent) if agent_text is None else agent_text
        return raw(json.dumps({"__metadata__": {KEY: text}, **self.header, **(more or {})}).encode(), self.body)


def raw(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def truncated(parts: Parts, rng: random.Random) -> Mutation:
    return parts.data[: rng.randrange(len(parts.data))], REFUSED


def extended(parts: Parts, rng: random.Random) -> Mutation:
    return parts.data + rng.randbytes(rng.choice([1, 8, 4096])), REFUSED


def header_length(parts: Parts, rng: random.Random) -> Mutation:
    length = parts.length
    other = rng.choice([0, 1, 2, length - 1, length + 1, length * 2, 2**20, 2**31, 2**32 + length, 2**63, 2**64 - 1])
    return struct.pack("<Q", other) + parts.data[8:], REFUSED


def flipped_in_header(parts: Parts, rng: random.Random) -> Mutation:
    return _flipped(parts.data, rng, 0, 8 + parts.length), EITHER


def flipped_in_data(parts: Parts, rng: random.Random) -> Mutation:
    other = _flipped(parts.data, rng, 8 + parts.length, len(parts.data))
    parts = Parts(other)
    for name, entry in parts.header.items():
        dtype = {"F32": np.float32, "F64": np.float64}[entry["dtype"]]
        array = np.frombuffer(parts.body[slice(*entry["data_offsets"])], dtype)
        if not np.isfinite(array).all():
            return other, REFUSED
        if ".var" in name and ((array < 0) | (array + parts.agent["normalization"]["epsilon"] <= 0)).any():
            return other, REFUSED
    return other, LOADS


def _flipped(data: bytes, rng: random.Random, begin: int, end: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 16])):
        changed[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    return bytes(changed) if changed != data else _flipped(data, rng, begin, end)


def not_a_number(parts: Parts, rng: random.Random) -> Mutation:
    entry = parts.header[rng.choice(sorted(parts.header))]
    begin, end = entry["data_offsets"]
    size, code = (4, "f") if entry["dtype"] == "F32" else (8, "d")
    place = begin + size * rng.randrange((end - begin) // size)
    number = struct.pack(f"<{code}", rng.choice([math.nan, math.inf, -math.inf]))
    parts.body = parts.body[:place] + number + parts.body[place + size :]
    return parts.pack(), REFUSED


def other_tensor(parts: Parts, rng: random.Random) -> Mutation:
    """A tensor with a wrong shape, type or place."""
    entry = parts.header[rng.choice(sorted(parts.header))]
    values: list[tuple[str, list[Any]]] = [
        ("shape", [[2**62], [2**31, 2**31], [], [0], [-1], [1.0], [True], None, [1] * 100, "4", [2**70]]),
        ("data_offsets", [[0, 2**63], [-8, 0], [8, 0], [0], None, [0, 4, 8], [0.0, 4.0], [True, 4]]),
        ("dtype", ["F16", "I8", "U64", "f32", None, 3, ["F32"], "BF16", "F128"]),
    ]
    change = rng.randrange(4)
    if change < 3:
        key, wrong = values[change]
        entry[key] = rng.choice(wrong)
    else:
        entry[rng.choice(["dtype", "shape", "data_offsets", "more"])] = {}
    return parts.pack(), EITHER if entry["shape"] == [] else REFUSED


def swapped_tensors(parts: Parts, rng: random.Random) -> Mutation:
    first, second = rng.sample(sorted(parts.header), 2)
    one, other = parts.header[first], parts.header[second]
    same = (one["dtype"], one["shape"]) == (other["dtype"], other["shape"])
    # Means may be negative, variances may not
    same_kind = first.startswith("policy.") and second.startswith("policy.")
    parts.header[first], parts.header[second] = other, one
    return parts.pack(), (LOADS if same_kind else EITHER) if same else REFUSED


def renamed_tensor(parts: Parts, rng: random.Random) -> Mutation:
    name = rng.choice(sorted(parts.header))
    entry = parts.header.pop(name)
    if rng.random() < 0.7:
        parts.header[rng.choice([f"{name}2", "", "policy.", "../up", "x" * 300, "policy\n", name.upper()])] = entry
    return parts.pack(), REFUSED


def many_tensors(parts: Parts, rng: random.Random) -> Mutation:
    count = rng.choice([1, 100, 20_000, 200_000])
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return parts.pack(more={f"t{index}": entry for index in range(count)}), REFUSED


def nasty_value(parts: Parts, rng: random.Random) -> Mutation:
    """One value of the description is replaced, sometimes by a valid one."""
    places = list(_places(parts.agent))
    container, key = rng.choice(places)
    container[key] = deepcopy(rng.choice(NASTY))
    return parts.pack(), EITHER


def _places(value: Any) -> Any:
    """Yield every place in a document: container and key."""
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(part, (dict, list)):
            yield from _places(part)


def missing_or_unknown(parts: Parts, rng: random.Random) -> Mutation:
    part = rng.choice([parts.agent, parts.agent["policy"], parts.agent["action_space"], parts.agent["normalization"]])
    if rng.random() < 0.5:
        del part[rng.choice(sorted(part))]
    else:
        forged = " - at `$.policy.net_arch[7].x"  # ends like a message of msgspec
        names = ["more", "", "__class__", "optimizer_class", "torch.load", forged, forged + "x" * 5000, forged * 500]
        part[rng.choice(names)] = 1
    return parts.pack(), REFUSED


def wrong_version(parts: Parts, rng: random.Random) -> Mutation:
    parts.agent[rng.choice(["format", "format_version"])] = rng.choice([0, 2, 99, "1", None, True, "pickle", 1.5, [1]])
    return parts.pack(), REFUSED


def duplicate_key(parts: Parts, rng: random.Random) -> Mutation:
    if rng.random() < 0.2:  # after many other keys
        name = f"k{rng.randrange(60_000)}"
        text = ", ".join(f'"k{index}": 0' for index in range(60_000)) + f', "{name}": 0'
        return parts.pack(json.dumps(parts.agent).replace('"summary": {', f'"summary": {{{text}, ', 1)), REFUSED
    if rng.random() < 0.5:
        name = rng.choice(sorted(parts.header))
        header = json.dumps({"__metadata__": {KEY: json.dumps(parts.agent)}, **parts.header})
        twice = f'{header[:-1]}, "{name}": {json.dumps(parts.header[name])}}}'
        return raw(twice.encode(), parts.body), REFUSED
    text = json.dumps(parts.agent)
    name = rng.choice(sorted(parts.agent))
    return parts.pack(f'{text[:-1]}, "{name}": {json.dumps(parts.agent[name])}}}'), REFUSED


def bad_number(parts: Parts, rng: random.Random) -> Mutation:
    """Numbers that JSON parsers are slow with, or turn into infinity."""
    number = rng.choice(["9" * 5000, "1" + "0" * 400_000, "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "0x10"])
    name = rng.choice(["d_model", "clip_obs", "n_layers", "epsilon"])
    text, n_places = re.subn(rf'"{name}": [\d.e-]+', f'"{name}": {number}', json.dumps(parts.agent))
    assert n_places == 1
    return parts.pack(text), REFUSED


def deep(parts: Parts, rng: random.Random) -> Mutation:
    depth = rng.choice([20, 1_000, 100_000, 900_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    nested = opening * depth + "1" + closing * depth
    if len(nested) > 1_900_000 and rng.random() < 0.5:
        nested = opening * depth  # never closed
    if rng.random() < 0.5:
        return raw(nested.encode(), parts.body), REFUSED
    text = json.dumps(parts.agent).replace('"summary": {', f'"summary": {{"deep": {nested}, ', 1)
    return parts.pack(text), REFUSED


def hostile_sizes(parts: Parts, rng: random.Random) -> Mutation:
    """Settings that would take gigabytes or hours, with or without tensors that claim these sizes."""
    sizes: list[dict[str, Any]] = [
        dict(d_model=65536, n_heads=1),
        dict(n_layers=64, dim_feedforward=65536, d_model=8192),
        dict(context_length=65536, d_model=8192),
        dict(context_length=65536),
        dict(net_arch={"pi": [65536, 65536], "vf": []}),
        dict(net_arch={"pi": [1] * 100_000, "vf": []}),
        dict(embedding_arch=[65536] * 32),
        dict(memory="full", context_length=65536, d_model=128, n_layers=64),
        dict(n_layers=10**9),
    ]
    settings = rng.choice(sizes)
    parts.agent["policy"].update(settings)
    if rng.random() < 0.5:
        for entry in parts.header.values():
            entry["shape"] = [rng.choice([8192, 65536, 2**31]) for _ in entry["shape"]]
    return parts.pack(), REFUSED


def hostile_space(parts: Parts, rng: random.Random) -> Mutation:
    box = {"type": "Box", "shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0}
    image = {**box, "shape": [3, 64, 64], "dtype": "uint8", "low": 0, "high": 255}
    space = rng.choice(
        [
            {**box, "shape": [2**40]},
            {**box, "shape": [2**20, 2**20]},
            {**box, "shape": [1] * 64},
            {**box, "shape": [-3]},
            {**box, "low": 2.0},
            {**box, "low": [0.0, 0.0]},
            {**box, "dtype": "object"},
            {**box, "dtype": "O8"},
            {**box, "dtype": "U1000000"},
            {**box, "dtype": "uint8"},
            {**box, "high": 1e300},
            {"type": "Discrete", "n": 2**62, "start": 0, "dtype": "int64"},
            {"type": "Discrete", "n": 300, "start": 0, "dtype": "int8"},
            {"type": "MultiDiscrete", "nvec": [2**20] * 1000, "start": [0] * 1000, "dtype": "int64"},
            {"type": "MultiDiscrete", "nvec": [[2]], "start": [[0]], "dtype": "int64"},
            {"type": "MultiBinary", "shape": [2**40], "is_flat": True},
            {"type": "Dict", "spaces": [[f"k{index}", box] for index in range(5000)]},
            {"type": "Dict", "spaces": [["a", box], ["a", box]]},
            {"type": "Dict", "spaces": [["a", {"type": "Dict", "spaces": [["b", box]]}]]},
            {"type": "Dict", "spaces": [["a.b", image]]},
            {"type": "Dict", "spaces": [["keys", {**box, "shape": [1024, 1024]}]] * 3},
            {"type": "Dict", "spaces": [[f"k{index}", {**box, "shape": [2**21]}] for index in range(256)]},
            {"type": "Graph"},
            "Box",
            None,
        ]
    )
    parts.agent[rng.choice(["observation_space", "action_space"])] = space
    return parts.pack(), REFUSED


def hostile_file(parts: Parts, rng: random.Random) -> Mutation:
    """Files that are not agents at all."""
    kinds = [
        b"",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"PK\x03\x04" + rng.randbytes(500),
        rng.randbytes(4096),
        raw(b"{}", b""),
        raw(b"[]", b""),
        raw(b"null", b""),
        raw(b'{"__metadata__": {}}', b""),
        raw(b'{"__metadata__": {"sb3_trmrl.agent": 5}}', b""),
        raw(b'{"__metadata__": {"sb3_trmrl.agent": "{}"}}', b""),
        raw(b'{"__metadata__": "sb3_trmrl.agent"}', b""),
        raw(b"\xff\xfe{}", b""),
        raw(b'{"' + b'\\"' * 900_000, b""),
        raw(b"[" + b"{}," * 600_000 + b"1]", b""),
        raw(b"{" + b'"a":{},' * 200_000 + b'"b":1}', b""),
        raw(b" " * 2_000_000, b""),
    ]
    return rng.choice(kinds), REFUSED


def heavy_headers(parts: Parts) -> Iterator[Mutation]:
    """Headers of two MiB, and descriptions of one, with one kind of element each: reading must take linear time."""
    n_bytes = 2**21 - 1000
    distinct = ",".join(f'"{index}":0' for index in range(180_000))
    whole = [
        f'{{{distinct},"179999":0}}',
        f"{{{distinct}}}",
        *(
            f"[{unit * (n_bytes // len(unit))}1]"
            for unit in ("1,", "1.5,", "1e5,", '"",', '{"":0},', "[],", "[[[[]]]],")
        ),
        '["' + r"\u0041" * (n_bytes // 6) + '"]',
        "[0." + "1" * n_bytes + "]",
        "[" + "9" * n_bytes + "]",
        "[" + "9" * n_bytes + "e-2000000]",
    ]
    for header in whole:
        yield raw(header.encode(), b""), REFUSED
    for unit in ("1,", "1.5,", '"",', "[],", '{"":0},'):
        entries = unit * (10**6 // len(unit.replace('"', "xx")))  # a quote takes two characters within a text
        text = json.dumps(parts.agent).replace('"summary": {', f'"summary": {{"heavy": [{entries}1], ', 1)
        yield parts.pack(text), LOADS


MUTATIONS: dict[Callable[[Parts, random.Random], Mutation], int] = {
    truncated: 60,
    extended: 20,
    header_length: 50,
    flipped_in_header: 150,
    flipped_in_data: 100,
    not_a_number: 40,
    other_tensor: 80,
    swapped_tensors: 50,
    renamed_tensor: 40,
    many_tensors: 15,
    nasty_value: 150,
    missing_or_unknown: 80,
    wrong_version: 20,
    duplicate_key: 30,
    bad_number: 30,
    deep: 25,
    hostile_sizes: 30,
    hostile_space: 40,
    hostile_file: 40,
}


def peak() -> int:
    """Return the peak memory of this process in bytes. ``getrusage`` would include the process that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main(path: Path, seed: int) -> None:
    """Load every mutation of an exported agent and print what happened as JSON."""
    from sb3_trmrl import InvalidAgentFile, load_agent
    from sb3_trmrl.sharing.limits import MAX_FILE_BYTES

    data, rng = path.read_bytes(), random.Random(seed)
    load_agent(path)  # imports everything that loading needs
    counts: Counter[str] = Counter()
    problems: list[str] = []
    slowest = (0.0, "")
    mutated = path.with_name("mutated.safetensors")

    def load(what: str, expected: str) -> None:
        nonlocal slowest
        start = time.process_time()  # excludes other processes
        try:
            load_agent(mutated)
            outcome = LOADS
        except InvalidAgentFile as error:
            outcome = REFUSED
            if type(error) is not InvalidAgentFile or str(mutated) not in str(error) or len(str(error)) > 1000:
                problems.append(f"{what}: bad message {str(error)[:300]}")
        except BaseException as error:
            outcome = type(error).__name__
            problems.append(f"{what}: {outcome}: {str(error)[:300]}")
        slowest = max(slowest, (time.process_time() - start, what))
        counts[outcome] += 1
        if expected not in (EITHER, outcome):
            problems.append(f"{what}: {outcome} instead of {expected}")

    for mutate, times in MUTATIONS.items():
        for index in range(times):
            content, expected = mutate(Parts(data), rng)
            mutated.write_bytes(content)
            load(f"{mutate.__name__} {index}", expected)
    for index, (content, expected) in enumerate(heavy_headers(Parts(data))):
        mutated.write_bytes(content)
        load(f"heavy header {index}", expected)
    for size in (MAX_FILE_BYTES - 1, MAX_FILE_BYTES, MAX_FILE_BYTES + 1, 2**40):  # sparse files
        mutated.write_bytes(data)
        with mutated.open("ab") as file:
            file.truncate(size)
        load(f"{size} bytes", REFUSED)
    mutated.unlink()
    print(json.dumps({"counts": counts, "problems": problems, "slowest": slowest, "peak": peak()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
