"""Agents on the Hugging Face Hub, with its own client and a local server."""

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from PIL import Image
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl import InvalidAgentFile, load_from_hub, push_to_hub
from sb3_trmrl.__main__ import main
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.sharing.limits import MAX_FILE_BYTES
from tests.helpers.agents import sampled_vec_env, tiny_model
from tests.helpers.hub_server import StandInHub, stand_in_hub

pytestmark = pytest.mark.usefixtures("one_thread")
ENV, REPO = "BernoulliBandit-v0", "someone/bandit-agent"
KWARGS = {"n_arms": 3, "episodes_per_trial": 2}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with stand_in_hub() as server:
        yield server


@pytest.fixture(scope="module")
def agent_file(tmp_path_factory: Any) -> Path:
    env = VecNormalize(DummyVecEnv([lambda: gym.make(ENV, **KWARGS)]))
    path: Path = tiny_model(env).learn(64).export(tmp_path_factory.mktemp("agent") / "mine", summary={"author": "me"})
    return path


def test_push_and_load(hub: StandInHub, agent_file: Path, tmp_path: Path) -> None:
    url = push_to_hub(agent_file, REPO, n_eval_tasks=5, n_eval_episodes=3, private=True, endpoint=hub.endpoint)
    assert url.startswith(f"{hub.endpoint}/{REPO}/commit/")
    assert hub.private == {REPO: True} and hub.messages == ["Upload agent"]
    files = hub.files[REPO]
    assert set(files) == {"agent.safetensors", "README.md", "adaptation.png", "adaptation.npz"}
    assert files["agent.safetensors"] == agent_file.read_bytes()

    agent = load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert (agent.env_id, agent.env_kwargs, agent.summary["author"]) == (ENV, KWARGS, "me")
    result = evaluate_adaptation(agent, ENV, 5, 3, env_kwargs=KWARGS)
    (tmp_path / "pushed.npz").write_bytes(files["adaptation.npz"])
    pushed = AdaptationResult.load(tmp_path / "pushed.npz")
    assert np.array_equal(pushed.rewards, result.rewards)

    picture = np.asarray(Image.open(io.BytesIO(files["adaptation.png"])).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    _check_card(files["README.md"].decode(), result)


def _check_card(card: str, result: AdaptationResult) -> None:
    _, metadata, text = card.split("---\n", 2)
    about = yaml.safe_load(metadata)
    assert about["library_name"] == "sb3_trmrl" and about["pipeline_tag"] == "reinforcement-learning"
    assert {"reinforcement-learning", "stable-baselines3", ENV} <= set(about["tags"])
    (entry,) = about["model-index"]
    (metric,) = entry["results"][0]["metrics"]
    assert entry["name"] == "bandit-agent" and entry["results"][0]["dataset"]["type"] == ENV
    assert metric["value"] == pytest.approx(result.mean_returns[-1], abs=1e-3)
    assert f'load_from_hub("{REPO}")' in text and "![Return by episode of a trial](adaptation.png)" in text
    assert "normalises them itself" in text and '"author": "me"' in text and '"n_arms": 3' in text
    rows = [line for line in text.splitlines() if line.startswith(("| 1 |", "| 2 |", "| 3 |"))]
    assert [float(row.split("|")[2]) for row in rows] == pytest.approx(list(result.mean_returns), abs=0.005)


def test_a_result_that_is_given_and_none_at_all(hub: StandInHub, tmp_path: Path) -> None:
    path = tiny_model(sampled_vec_env()).export(tmp_path / "agent")
    with pytest.raises(ValueError, match="does not name its environment: pass `result`, or evaluate=False"):
        push_to_hub(path, REPO, endpoint=hub.endpoint)
    assert hub.requests == []
    push_to_hub(path, REPO, evaluate=False, endpoint=hub.endpoint)
    assert set(hub.files[REPO]) == {"agent.safetensors", "README.md"}
    assert "Adaptation" not in hub.files[REPO]["README.md"].decode()
    result = AdaptationResult("Own-v0", [0.0, 1.0], np.arange(4.0).reshape(2, 2, 1))
    push_to_hub(path, REPO, result, endpoint=hub.endpoint)
    card = hub.files[REPO]["README.md"].decode()
    assert "2 tasks of `Own-v0`" in card and "adaptation.png" in hub.files[REPO]
    assert load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path).env_id is None


def test_what_is_too_large_is_not_downloaded(hub: StandInHub, agent_file: Path, tmp_path: Path) -> None:
    push_to_hub(agent_file, REPO, evaluate=False, endpoint=hub.endpoint)
    hub.told_lengths["agent.safetensors"] = MAX_FILE_BYTES + 1
    with pytest.raises(InvalidAgentFile, match=f"{REPO} cannot be loaded as an agent: it has {MAX_FILE_BYTES + 1}"):
        load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path)
    hub.told_lengths["agent.safetensors"] = None
    with pytest.raises(InvalidAgentFile, match=f"{REPO} cannot be loaded as an agent: .* does not report its size"):
        load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert not [request for request in hub.requests if request.startswith("GET")]


def test_what_is_no_agent(hub: StandInHub, tmp_path: Path) -> None:
    hub.files[REPO] = {"agent.safetensors": b"\x80\x04N."}
    with pytest.raises(InvalidAgentFile, match="cannot be loaded as an agent"):
        load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path)
    (tmp_path / "no.safetensors").write_bytes(b"")
    with pytest.raises(InvalidAgentFile, match=r"no\.safetensors cannot be loaded"):
        push_to_hub(tmp_path / "no.safetensors", REPO, endpoint=hub.endpoint)
    assert set(hub.files[REPO]) == {"agent.safetensors"}


def test_the_command(hub: StandInHub, agent_file: Path, capsys: Any) -> None:
    arguments = ["push", str(agent_file), REPO, "--n-tasks", "2", "--n-episodes", "1", "--endpoint", hub.endpoint]
    assert main(arguments) == 0
    assert f"Pushed {hub.endpoint}/{REPO}/commit/" in capsys.readouterr().out
    assert "adaptation.png" in hub.files[REPO]


def test_an_agent_without_tasks(hub: StandInHub, tmp_path: Path) -> None:
    """Its card has the mean return of some episodes, and no plot."""
    path = tiny_model("CartPole-v1").export(tmp_path / "agent")
    assert main(["push", str(path), REPO, "--n-episodes", "3", "--endpoint", hub.endpoint]) == 0
    card = hub.files[REPO]["README.md"].decode()
    assert "3 episodes of `CartPole-v1`, frozen" in card and " tasks" not in card
    assert "adaptation.png" not in hub.files[REPO]
    push_to_hub(path, REPO, n_eval_tasks=2, endpoint=hub.endpoint)
    assert "2 episodes of `CartPole-v1`" in hub.files[REPO]["README.md"].decode()


@pytest.fixture
def nowhere() -> str:
    """Address of a port without a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_without_a_connection(nowhere: str, agent_file: Path, tmp_path: Path, capsys: Any) -> None:
    where = f"repository '{REPO}' at {nowhere} cannot be reached: "
    with pytest.raises(ConnectionError, match=f"{where}.*agent.safetensors is not in the cache"):
        load_from_hub(REPO, endpoint=nowhere, cache_dir=tmp_path)
    with pytest.raises(ConnectionError, match=where):
        push_to_hub(agent_file, REPO, evaluate=False, endpoint=nowhere)
    with pytest.raises(SystemExit):
        main(["push", str(agent_file), REPO, "--no-evaluation", "--endpoint", nowhere])
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"trmrl push: error: {where}")


_OFFLINE = """
import sys
from sb3_trmrl import load_from_hub
print(load_from_hub(sys.argv[1], cache_dir=sys.argv[2]).summary["author"])
try:
    load_from_hub("someone/else", cache_dir=sys.argv[2])
except ConnectionError as error:
    print(error)
"""


def test_what_was_downloaded_loads_without_a_connection(hub: StandInHub, agent_file: Path, tmp_path: Path) -> None:
    hub.files[REPO] = {"agent.safetensors": agent_file.read_bytes()}
    load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path)
    hub.status = 503
    assert load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path).summary["author"] == "me"
    with pytest.raises(ConnectionError, match=r"other.safetensors is not in the cache"):
        load_from_hub(REPO, "other.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path)
    hub.shutdown()
    hub.server_close()
    assert load_from_hub(REPO, endpoint=hub.endpoint, cache_dir=tmp_path).summary["author"] == "me"
    command = [sys.executable, "-c", _OFFLINE, REPO, str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    lines = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    assert lines[0] == "me" and "'someone/else'" in lines[1] and "is not in the cache" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({}, 401),
        ({}, 403),
        ({}, 404),
        ({"repo_id": "someone/else"}, None),
        ({"filename": "other.safetensors"}, None),
        ({"revision": "other"}, None),
    ],
)
def test_what_the_hub_refuses(
    arguments: dict[str, Any], status: int | None, hub: StandInHub, agent_file: Path, tmp_path: Path, capsys: Any
) -> None:
    hub.files[REPO] = {"agent.safetensors": agent_file.read_bytes()}
    hub.status = status
    repo_id = arguments.get("repo_id", REPO)
    refused = f"repository '{repo_id}' at {hub.endpoint} or its file does not exist, or access is denied: "
    with pytest.raises(ValueError, match=refused) as error:
        load_from_hub(**{"repo_id": REPO, **arguments}, endpoint=hub.endpoint, cache_dir=tmp_path)
    assert "\n" not in str(error.value)
    if status is not None:
        with pytest.raises(SystemExit):
            main(["push", str(agent_file), REPO, "--no-evaluation", "--endpoint", hub.endpoint])
        *_, last = capsys.readouterr().err.splitlines()
        assert last.startswith(f"trmrl push: error: {refused}")


def test_without_the_extra(agent_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: push_to_hub(agent_file, REPO), lambda: load_from_hub(REPO)):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'sb3_trmrl\[hub\]'"):
            call()
