"""Wrong arguments of the functions that write and read checkpoints and exported agents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th

from sb3_trmrl import InvalidAgentFile, TrainingCheckpoint, TransformerPPO, load_agent, load_from_hub, push_to_hub
from sb3_trmrl.sharing.agent import SUFFIX
from tests.helpers import wrong_use as w
from tests.helpers.agents import tiny_model

AGENT = Path(__file__).parents[2] / "docs" / "demo" / f"HalfCheetahVel-v0{SUFFIX}"
NOT_PATHS = (5, None, ["agent"])


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


CHECKPOINT = [
    *w.rows("folder", NOT_PATHS, TypeError, "a path"),
    w.Wrong("folder", f"{__file__}/inside", ValueError, "written to"),
    *w.wrong_integer("save_freq"),
    *w.wrong_integer("keep"),
    *w.rows("log_files", ("*.csv", 5, None), TypeError, "a list of patterns"),
    w.Wrong("log_files", [5], TypeError, "a list of patterns", quoted="5"),
]


RESUME = [
    *w.rows("path", NOT_PATHS, TypeError, "a path"),
    w.Wrong("path", "nowhere", FileNotFoundError, "a folder of checkpoints"),
    w.Wrong("path", str(AGENT), ValueError, "a checkpoint", quoted=str(AGENT)),
    *w.rows("env", (5, None, object), TypeError, "an environment or its registered id"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_model("BernoulliBandit-v0", n_steps=8, batch_size=8).learn(16, TrainingCheckpoint(folder, save_freq=8))
    return folder


@pytest.mark.parametrize("row", RESUME, ids=w.name_of)
def test_resume(row: w.Wrong, checkpoints: Path) -> None:
    row.check(TransformerPPO.resume, {"path": checkpoints, "env": "BernoulliBandit-v0"})


def test_resume_takes_an_id(checkpoints: Path) -> None:
    assert TransformerPPO.resume(checkpoints, "BernoulliBandit-v0").num_timesteps == 8


EXPORT = [
    *w.rows("path", NOT_PATHS, TypeError, "a path"),
    w.Wrong("path", "agent.zip", ValueError, SUFFIX),
    w.Wrong("path", f"{__file__}/agent", ValueError, "cannot write the agent", quoted=f"{__file__}/agent{SUFFIX}"),
    *w.rows("env_id", (5, "", ["Name-v0"], "no id", "module:Name-v0"), ValueError, "registered id without a module"),
    *w.rows("env_kwargs", (5, [1], "horizon"), ValueError, "a dictionary"),
    w.Wrong("env_kwargs", {1: 2}, ValueError, "strings as keys", quoted="1"),
    w.Wrong("env_kwargs", {"a": w.NAN}, ValueError, "finite", quoted="nan"),
    *w.rows("vec_normalize", (5, "statistics"), TypeError, "a VecNormalize or None"),
    *w.rows("summary", (5, [1], "good"), ValueError, "a dictionary"),
    w.Wrong("summary", {"score": object}, ValueError, "plain data", quoted="object"),
    *w.rows("dtype", ("float64", "half", None, th.float16), ValueError, "'float16'"),
    *w.rows("critic", (0, "no", None), TypeError, "True or False"),
]


LOAD = [
    *w.rows("path", NOT_PATHS, TypeError, "a path"),
    w.Wrong("path", "nowhere", FileNotFoundError, "no file", quoted="nowhere"),
    w.Wrong("path", __file__, ValueError, "loaded as an agent", quoted=__file__),
    w.Wrong("path", ".", InvalidAgentFile, "not a regular file", quoted="."),
    *w.rows("device", (5, "gpu", None), ValueError, "'cpu'"),
]


HUB = [
    *w.rows("repo_id", (5, None), TypeError, "'user/name'"),
    *w.rows("token", (5, ["secret"]), TypeError, "a string or None"),
    w.Wrong("endpoint", 5, TypeError, "an address or None"),
    *w.rows("endpoint", ("localhost", "ftp://localhost", "http://", "http://host:port"), ValueError, "http://"),
    *w.rows("repo_id", ("", "one/two/three", "no name", "../up"), ValueError, "'user/name'"),
]
PUSH = [
    *HUB,
    *w.rows("path", NOT_PATHS, TypeError, "a path"),
    *w.rows("result", (5, "good"), TypeError, "an AdaptationResult or None"),
    *w.wrong_bool("evaluate"),
    *w.wrong_integer("n_eval_tasks"),
    *w.wrong_integer("n_eval_episodes"),
    *w.rows("private", ("yes", 2), TypeError, "True or False"),
    *w.rows("commit_message", (5, None), TypeError, "a string"),
]
NOT_IN_THE_REPOSITORY = ("", "../a", "/a", "a/../b", "a//b", "a\\b", "C:a", "a\n")
LOAD_FROM_HUB = [
    *HUB,
    *w.rows("filename", (5, None), TypeError, "name of a file"),
    *w.rows("filename", NOT_IN_THE_REPOSITORY, ValueError, "file in the repository"),
    w.Wrong("revision", 5, TypeError, "a branch, tag or commit"),
    *w.rows("device", (5, "gpu"), ValueError, "'cpu'"),
    w.Wrong("cache_dir", 5, TypeError, "a folder or None"),
]
#: A port without a server: arguments are checked before any request
NOWHERE = "http://127.0.0.1:9"


TABLES = [
    w.Table(TrainingCheckpoint, {"folder": "checkpoints"}, CHECKPOINT, {"verbose": "SB3's"}),
    w.Table(tiny_model("BernoulliBandit-v0").export, {"path": "agent"}, EXPORT),
    w.Table(load_agent, {"path": AGENT}, LOAD),
    w.Table(push_to_hub, {"path": AGENT, "repo_id": "user/name", "endpoint": NOWHERE}, PUSH),
    w.Table(load_from_hub, {"repo_id": "user/name", "endpoint": NOWHERE}, LOAD_FROM_HUB),
]


@w.each_row(TABLES)
def test_wrong_use(function: Callable[..., Any], right: dict[str, Any], row: w.Wrong) -> None:
    row.check(function, right)
    assert not list(Path().iterdir())


def test_every_argument_is_in_the_table() -> None:
    w.assert_covered(TransformerPPO.resume, RESUME)
    w.assert_all_covered(TABLES)
