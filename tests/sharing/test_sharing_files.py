"""Damaged and hostile files are refused with one clear error and at little cost."""

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl import InvalidAgentFile, load_agent
from sb3_trmrl.sharing.agent import SUFFIX
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES, MAX_NOISE
from tests.helpers import agent_mutations, agents_near_limits
from tests.helpers.agent_mutations import Parts
from tests.helpers.agents import BOX_ACTION, TRANSITION, VECTOR, sampled_vec_env, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
#: Upper limit for the memory of the whole process, including Python and PyTorch
GIGABYTE = 10**9


@pytest.fixture(scope="module")
def agent_file(tmp_path_factory: Any) -> Path:
    model = tiny_model(VecNormalize(sampled_vec_env(2, TRANSITION)), dict(memory="window")).learn(32)
    path: Path = tmp_path_factory.mktemp("agent") / "agent.safetensors"
    return model.export(path, env_id="BernoulliBandit-v0", env_kwargs={"n_arms": 3}, summary={"a": [1, {"b": "c"}]})


def _run(module: Any, *arguments: Any) -> Any:
    """Run a module in a new process and return the JSON that it prints."""
    command = [sys.executable, "-m", module.__name__, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=True)
    return json.loads(found.stdout)


def test_a_thousand_mutations(agent_file: Path) -> None:
    assert sum(agent_mutations.MUTATIONS.values()) >= 1000
    report = _run(agent_mutations, agent_file, 0)
    assert report["problems"] == []
    assert set(report["counts"]) == {"refused", "loads"} and report["counts"]["loads"] > 50
    assert report["peak"] < GIGABYTE, report["peak"]
    assert report["slowest"][0] < 5, report["slowest"]


def test_valid_agents_near_the_limits(tmp_path: Path) -> None:
    model = tiny_model(sampled_vec_env(1, VECTOR, BOX_ACTION), dict(memory="window"))
    small = model.export(tmp_path / "small").read_bytes()
    paths = [tmp_path / f"{name}{SUFFIX}" for name in agents_near_limits.AGENTS]
    for path in paths:
        agents_near_limits.write(small, agents_near_limits.AGENTS[path.stem], path)
    sizes = {path.stem: path.stat().st_size for path in paths}
    assert all(size <= MAX_FILE_BYTES for size in sizes.values())
    assert sum(size > 0.9 * MAX_FILE_BYTES for size in sizes.values()) >= 5
    report = _run(agents_near_limits, *paths)
    assert set(report) == set(agents_near_limits.AGENTS)
    for name, (seconds, peak) in report.items():
        assert peak < 0.9 * GIGABYTE and seconds < 20, (name, seconds, peak)


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "zip", "tensor", "metadata"])
def test_a_pickle_inside_is_refused_and_not_run(kind: str, agent_file: Path, tmp_path: Path) -> None:
    trace, path = tmp_path / "was_here", tmp_path / "agent.safetensors"
    payload = pickle.dumps(Malicious(trace))
    if kind == "pickle":
        path.write_bytes(payload)
        message = "cannot be loaded"
    elif kind == "zip":
        tiny_model(sampled_vec_env()).save(tmp_path / "model.zip")
        (tmp_path / "model.zip").rename(path)
        message = "it is a zip, as SB3 saves models"
    elif kind == "tensor":
        import numpy as np

        tensors = {**load_file(agent_file), "payload": np.frombuffer(payload, np.uint8)}
        parts = Parts(agent_file.read_bytes())
        save_file(tensors, path, {agent_mutations.KEY: json.dumps(parts.agent)})
        message = "'payload'.dtype: Invalid enum value 'U8'"
    else:
        parts = Parts(agent_file.read_bytes())
        parts.agent["policy"]["activation_fn"] = payload.decode("latin1")
        path.write_bytes(parts.pack())
        message = "policy: activation_fn must be one of Tanh"
    with pytest.raises(InvalidAgentFile, match=message) as error:
        load_agent(path)
    assert str(path) in str(error.value) and not trace.exists()
    pickle.loads(payload)  # this runs it
    assert trace.exists()


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse file
    start = time.process_time()  # excludes other processes
    with pytest.raises(InvalidAgentFile, match=f"has {2**40} bytes, more than {MAX_FILE_BYTES}"):
        load_agent(path)
    assert time.process_time() - start < 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "agent.safetensors")
    with pytest.raises(InvalidAgentFile, match="not a regular file"):
        load_agent(tmp_path / "agent.safetensors")


@pytest.fixture
def assert_refused(agent_file: Path, tmp_path: Path) -> Callable[[Callable[[Parts], object], str], None]:
    """Check that a changed file is refused with a message that names it."""
    path = tmp_path / "changed.safetensors"

    def check(change: Callable[[Parts], object], message: str) -> None:
        parts = Parts(agent_file.read_bytes())
        change(parts)
        path.write_bytes(parts.pack())
        with pytest.raises(InvalidAgentFile, match=message) as error:
            load_agent(path)
        assert str(error.value).startswith(f"`path` {path} cannot be loaded as an agent: ")

    return check


@pytest.mark.parametrize(
    ("places", "value", "message"),
    [
        (["format_version"], 5, "format_version must be 1, 2, 3 or 4, which this version of sb3_trmrl reads, got 5"),
        (["policy", "n_heads"], 3, "no policy can be built from its settings: `n_heads` must divide `d_model`"),
        (["policy", "d_model"], 16, r"must be F32 of shape .*16.*, as the description says, got F32"),
        (["policy", "memory"], "half", "policy: memory must be one of window, full, got 'half'"),
        (["policy", "use_sde"], 1, "policy.use_sde: Expected `bool`, got `int`"),
        (["policy", "use_sde"], True, "policy.use_sde needs a Box as action_space"),
        (["policy", "context_length"], 5000, "context_length must be at most 4096 with a window, got 5000"),
        (["policy", "features_extractor"], "os.system", "policy: features_extractor must be one of Flatten"),
        (["action_space", "n"], -1, "action_space.n: Expected `int` >= 1, got -1"),
        (["action_space"], {**agents_near_limits.BOX, "shape": [2, 0]}, "action_space has no numbers"),
        (["observation_space"], {**agents_near_limits.BOX, "shape": [0]}, "observation_space has no numbers"),
        (["normalization", "keys"], ["nothing"], "normalization.keys must be keys of the observation"),
        (["normalization", "clip_obs"], -1, "normalization.clip_obs: Expected `float` >= 0.0, got -1"),
        (["normalization"], None, "tensor 'observations.mean.*' must be absent, as the description says, got F64"),
        (["env_id"], "os:Env-v0", "env_id must be a registered id without a module"),
        (["env_kwargs"], [1], "env_kwargs: Expected `object`, got `array`"),
    ],
)
def test_messages_name_the_place_and_the_value(
    places: list[str], value: Any, message: str, assert_refused: Any
) -> None:
    *outer, last = places
    assert_refused(lambda parts: reduce(getitem, outer, parts.agent).update({last: value}), message)


@pytest.mark.parametrize(
    "section",
    [[], ["policy"], ["policy", "net_arch"], ["observation_space"], ["action_space"], ["normalization"]],
    ids=".".join,
)
def test_every_field_is_required_and_no_other_allowed(
    section: list[str], agent_file: Path, assert_refused: Any
) -> None:
    def record(parts: Parts) -> dict[str, Any]:
        return reduce(getitem, section, parts.agent)

    for field in record(Parts(agent_file.read_bytes())):
        assert_refused(lambda parts, field=field: record(parts).pop(field), field)
    assert_refused(lambda parts: record(parts).update(more=1), "more")


@pytest.mark.parametrize("shift", [-8, 8])
def test_tensors_fill_the_file_exactly(shift: int, assert_refused: Any) -> None:
    """The last tensor overlaps the one before it, or leaves a gap; the file has the right size for it."""

    def change(parts: Parts) -> None:
        last = max(parts.header.values(), key=lambda entry: entry["data_offsets"])
        last["data_offsets"] = [offset + shift for offset in last["data_offsets"]]
        parts.body = parts.body[:shift] if shift < 0 else parts.body + bytes(shift)

    assert_refused(change, "safetensors cannot read it")


def test_the_noise_of_gsde_has_a_limit(assert_refused: Any) -> None:
    """The noise matrix has few parameters but would be 900 times as large."""

    def change(parts: Parts) -> None:
        parts.agent["action_space"] = {**agents_near_limits.BOX, "shape": [900]}
        parts.agent["policy"] |= {"use_sde": True, "full_std": False, "net_arch": {"pi": [2**16], "vf": [1]}}

    assert_refused(change, f"the noise of gSDE has 65536 times 900 numbers, more than {MAX_NOISE}")


def test_the_mutations_start_from_a_valid_file(agent_file: Path, tmp_path: Path) -> None:
    """A file that was unpacked and packed again loads, so refusals are due to the mutations."""
    path = tmp_path / "agent.safetensors"
    path.write_bytes(Parts(agent_file.read_bytes()).pack())
    assert load_agent(path).env_kwargs == {"n_arms": 3}
