"""
Valid agents as large as the limits allow. As a script, this module loads them and prints the time and the memory of the
whole process; see ``test_sharing_files.py``.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tests.helpers.agent_mutations import KEY, Parts, peak, raw

Changes = dict[str, Any]
MIB = 2**20
BOX = {"type": "Box", "shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0}


def net(pi: list[int], vf: list[int]) -> Changes:
    return {"net_arch": {"pi": pi, "vf": vf}}


def noisy(full_std: bool, vf: list[int]) -> Changes:
    """The noise matrix is as large as allowed; the critic fills the rest of the file."""
    return {
        "action_space": {**BOX, "shape": [16]},
        "policy": {"use_sde": True, "full_std": full_std, **net([2**16], vf)},
    }


def normalization(keys: list[str] | None) -> Changes:
    return {"normalization": {"keys": keys, "clip_obs": 10.0, "epsilon": 1e-8}}


WIDE = {**BOX, "shape": [2 * MIB], "dtype": "float64"}
KEYS = [f"key {index}" for index in range(256)]
FULL = {"memory": "full", "context_length": 2**16, "d_model": 32, "positional_encoding": "sinusoidal"}
TEXTS = {"summary": {"texts": [""] * 200_000, "keys": {f"{index}": None for index in range(50_000)}}}
#: What differs from a small agent. Settings of the policy that are not named stay.
AGENTS: dict[str, Changes] = {
    "wide_heads": {"policy": net([5700, 5700], [1])},
    "noise_of_few_parameters": noisy(False, [5500, 5500]),
    "noise_of_many_parameters": noisy(True, [5400, 5400]),
    "long_context": {"policy": FULL},
    "long_window": {"policy": {"context_length": 4096, "d_model": 512, "n_heads": 1, "positional_encoding": "learned"}},
    "wide_observations": {
        "observation_space": WIDE,
        "policy": {"d_model": 8, "share_features_extractor": True, **net([2800, 2800], [1])},
        **normalization(None),
    },
    "many_keys": {
        "observation_space": {"type": "Dict", "spaces": [[key, {**WIDE, "shape": [2 * MIB // 256]}] for key in KEYS]},
        "policy": {"d_model": 4, "n_heads": 1, "features_extractor": "CombinedExtractor", **net([2800, 2800], [1])},
        **normalization(KEYS),
    },
    "large_image": {
        "observation_space": {**BOX, "shape": [1, 1448, 1448], "dtype": "uint8", "low": 0, "high": 255},
        "policy": {
            "features_extractor": "NatureCNN",
            "features_extractor_kwargs": {"features_dim": 7},
            "context_length": 1,
        },
    },
    "many_actions": {
        "action_space": {"type": "MultiDiscrete", "nvec": [2] * 300_000, "start": [0] * 300_000, "dtype": "int64"},
        "policy": net([40], [1]),
    },
    "long_bounds": {"observation_space": {**BOX, "shape": [200_000], "low": [-1.0] * 200_000, "high": [1.0] * 200_000}},
    "many_numbers": {"summary": {"numbers": [1.5, 0, 7] * 100_000}},
    "many_texts": TEXTS,
    "everything": {
        "action_space": {**BOX, "shape": [16]},
        "observation_space": WIDE,
        "policy": {
            "share_features_extractor": True,
            "use_sde": True,
            "full_std": False,
            **FULL,
            "embedding_arch": [1],
            **net([2**16], [4300, 4300]),
        },
        **normalization(None),
        **TEXTS,
    },
}


def write(data: bytes, changes: Changes, path: Path) -> None:
    """Write a small agent with changes that make it large. The weights are zeros in a sparse file."""
    from sb3_trmrl.sharing.blueprint import Blueprint
    from sb3_trmrl.sharing.description import Description

    agent = Parts(data).agent
    agent |= {**changes, "policy": {**agent["policy"], **changes.get("policy", {})}}
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
        start = time.process_time()  # excludes other processes
        load_agent(path)
        report[path.stem] = time.process_time() - start, peak()
    print(json.dumps(report))


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
