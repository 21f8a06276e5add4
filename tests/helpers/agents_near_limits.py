"""
Valid agents as large as the limits allow. As a script, this module loads them and prints the time and the memory of the
whole process; see ``test_sharing_files.py``.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.agent_mutations import KEY, Parts, peak, raw

Description = dict[str, Any]
MIB = 2**20
BOX = {"type": "Box", "shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0}


def _observations(shape: list[int], dtype: str = "float64") -> Description:
    return {"observation_space": {**BOX, "shape": shape, "dtype": dtype}}


def wide_heads(agent: Description) -> None:
    agent["policy"]["net_arch"] = {"pi": [5700, 5700], "vf": [1]}


def _noisy(agent: Description, full_std: bool) -> None:
    """The noise matrix is as large as allowed; the critic fills the rest of the file."""
    agent["action_space"] = {**BOX, "shape": [16]}
    agent["policy"] |= {"use_sde": True, "full_std": full_std}
    agent["policy"]["net_arch"] = {"pi": [2**16], "vf": [5400, 5400] if full_std else [5500, 5500]}


def noise_of_few_parameters(agent: Description) -> None:
    _noisy(agent, full_std=False)


def noise_of_many_parameters(agent: Description) -> None:
    _noisy(agent, full_std=True)


def long_context(agent: Description) -> None:
    agent["policy"] |= {"memory": "full", "context_length": 2**16, "d_model": 32, "positional_encoding": "sinusoidal"}


def long_window(agent: Description) -> None:
    agent["policy"] |= {"context_length": 4096, "d_model": 512, "n_heads": 1, "positional_encoding": "learned"}


def wide_observations(agent: Description) -> None:
    agent |= _observations([2 * MIB])
    agent["policy"] |= {"d_model": 8, "share_features_extractor": True}
    agent["policy"]["net_arch"] = {"pi": [2800, 2800], "vf": [1]}
    agent["normalization"] = {"keys": None, "clip_obs": 10.0, "epsilon": 1e-8}


def many_keys(agent: Description) -> None:
    box = {**BOX, "shape": [2 * MIB // 256], "dtype": "float64"}
    agent["observation_space"] = {"type": "Dict", "spaces": [[f"key {index}", box] for index in range(256)]}
    agent["policy"] |= {"d_model": 4, "n_heads": 1, "features_extractor": "CombinedExtractor"}
    agent["policy"]["net_arch"] = {"pi": [2800, 2800], "vf": [1]}
    agent["normalization"] = {"keys": [f"key {index}" for index in range(256)], "clip_obs": 10.0, "epsilon": 1e-8}


def large_image(agent: Description) -> None:
    agent |= _observations([1, 1448, 1448], "uint8")
    agent["observation_space"] |= {"low": 0, "high": 255}
    agent["policy"] |= {"features_extractor": "NatureCNN", "features_extractor_kwargs": {"features_dim": 7}}
    agent["policy"]["context_length"] = 1


def many_actions(agent: Description) -> None:
    n = 300_000
    agent["action_space"] = {"type": "MultiDiscrete", "nvec": [2] * n, "start": [0] * n, "dtype": "int64"}
    agent["policy"]["net_arch"] = {"pi": [40], "vf": [1]}


def long_bounds(agent: Description) -> None:
    n = 200_000
    agent["observation_space"] = {**BOX, "shape": [n], "low": [-1.0] * n, "high": [1.0] * n}


def many_numbers(agent: Description) -> None:
    agent["summary"] = {"numbers": [1.5, 0, 7] * 100_000}


def many_texts(agent: Description) -> None:
    agent["summary"] = {"texts": [""] * 200_000, "keys": {f"{index}": None for index in range(50_000)}}


def everything(agent: Description) -> None:
    wide_observations(agent)
    noise_of_few_parameters(agent)
    long_context(agent)
    many_texts(agent)
    agent["policy"]["embedding_arch"] = [1]
    agent["policy"]["net_arch"]["vf"] = [4300, 4300]


AGENTS: dict[str, Callable[[Description], None]] = {
    make.__name__: make
    for make in (
        wide_heads,
        noise_of_few_parameters,
        noise_of_many_parameters,
        long_context,
        long_window,
        wide_observations,
        many_keys,
        large_image,
        many_actions,
        long_bounds,
        many_numbers,
        many_texts,
        everything,
    )
}


def write(data: bytes, change: Callable[[Description], None], path: Path) -> None:
    """Write a small agent after a change that makes it large. The weights are zeros in a sparse file."""
    from sb3_trmrl.sharing.blueprint import Blueprint
    from sb3_trmrl.sharing.description import Description

    agent = Parts(data).agent
    change(agent)
    entries = Blueprint(Description.from_json(agent)).entries()
    header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(agent, separators=(",", ":"))}}
    end = 0
    for key, (dtype, shape) in entries.items():
        begin, end = end, end + {"F32": 4, "F64": 8}[dtype] * math.prod(shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    packed = raw(json.dumps(header, separators=(",", ":")).encode(), b"")
    path.write_bytes(packed)
    with path.open("ab") as file:
        file.truncate(len(packed) + end)


def main(paths: list[Path]) -> None:
    """Load agents and print, as JSON, the seconds for each and the peak memory of the process after it."""
    from sb3_trmrl import load_agent

    report = {}
    for path in paths:
        start = time.perf_counter()
        load_agent(path)
        report[path.stem] = time.perf_counter() - start, peak()
    print(json.dumps(report))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
