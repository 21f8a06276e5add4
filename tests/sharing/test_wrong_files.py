"""Wrong arguments of the functions that write and read checkpoints and exported agents."""

from pathlib import Path

import pytest

from sb3_trmrl import InvalidAgentFile, TrainingCheckpoint, TransformerPPO, load_agent, load_from_hub, push_to_hub
from sb3_trmrl.sharing.agent import SUFFIX
from tests.helpers.agents import tiny_model
from tests.helpers.wrong_use import NAN, Wrong, assert_covered, name_of, rows, wrong_bool, wrong_integer

AGENT = Path(__file__).parents[2] / "docs" / "demo" / f"HalfCheetahVel-v0{SUFFIX}"
NOT_PATHS = (5, None, ["agent"])


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


CHECKPOINT = [
    *rows("folder", NOT_PATHS, TypeError, "a path"),
    Wrong("folder", f"{__file__}/inside", ValueError, "written to"),
    *wrong_integer("save_freq"),
    *wrong_integer("keep"),
    *rows("log_files", ("*.csv", 5, None, [5]), TypeError, "a list of patterns"),
]
CHECKPOINT[-1] = Wrong("log_files", [5], TypeError, "a list of patterns", quoted="5")


@pytest.mark.parametrize("row", CHECKPOINT, ids=name_of)
def test_training_checkpoint(row: Wrong) -> None:
    row.check(TrainingCheckpoint, {"folder": "checkpoints"})


RESUME = [
    *rows("path", NOT_PATHS, TypeError, "a path"),
    Wrong("path", "nowhere", FileNotFoundError, "a folder of checkpoints"),
    Wrong("path", str(AGENT), ValueError, "a checkpoint", quoted=str(AGENT)),
    *rows("env", (5, None, object), TypeError, "an environment or its registered id"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny_model("BernoulliBandit-v0", n_steps=8, batch_size=8).learn(16, TrainingCheckpoint(folder, save_freq=8))
    return folder


@pytest.mark.parametrize("row", RESUME, ids=name_of)
def test_resume(row: Wrong, checkpoints: Path) -> None:
    row.check(TransformerPPO.resume, {"path": checkpoints, "env": "BernoulliBandit-v0"})


def test_resume_takes_an_id(checkpoints: Path) -> None:
    assert TransformerPPO.resume(checkpoints, "BernoulliBandit-v0").num_timesteps == 8


EXPORT = [
    *rows("path", NOT_PATHS, TypeError, "a path"),
    Wrong("path", "agent.zip", ValueError, SUFFIX),
    Wrong("path", f"{__file__}/agent", ValueError, "path", quoted=f"{__file__}/agent{SUFFIX}"),
    *rows("env_id", (5, "", ["Name-v0"], "no id", "module:Name-v0"), ValueError, "registered id without a module"),
    *rows("env_kwargs", (5, [1], "horizon"), ValueError, "a dictionary"),
    Wrong("env_kwargs", {1: 2}, ValueError, "strings as keys", quoted="1"),
    Wrong("env_kwargs", {"a": NAN}, ValueError, "finite", quoted="nan"),
    *rows("vec_normalize", (5, "statistics"), TypeError, "a VecNormalize or None"),
    *rows("summary", (5, [1], "good"), ValueError, "a dictionary"),
    Wrong("summary", {"score": object}, ValueError, "plain data", quoted="object"),
]


@pytest.mark.parametrize("row", EXPORT, ids=name_of)
def test_export(row: Wrong) -> None:
    row.check(tiny_model("BernoulliBandit-v0").export, {"path": "agent"})
    assert not list(Path().iterdir())


LOAD = [
    *rows("path", NOT_PATHS, TypeError, "a path"),
    Wrong("path", "nowhere", FileNotFoundError, "no file", quoted="nowhere"),
    Wrong("path", __file__, ValueError, "loaded as an agent", quoted=__file__),
    Wrong("path", ".", InvalidAgentFile, "not a regular file", quoted="."),
    *rows("device", (5, "gpu", None), ValueError, "'cpu'"),
]


@pytest.mark.parametrize("row", LOAD, ids=name_of)
def test_load_agent(row: Wrong) -> None:
    row.check(load_agent, {"path": AGENT})


HUB = [
    *rows("repo_id", (5, None), TypeError, "'user/name'"),
    *rows("token", (5, ["secret"]), TypeError, "a string or None"),
    Wrong("endpoint", 5, TypeError, "an address or None"),
    *rows("endpoint", ("localhost", "ftp://localhost", "http://", "http://host:port"), ValueError, "http://"),
    *rows("repo_id", ("", "one/two/three", "no name", "../up"), ValueError, "'user/name'"),
]
PUSH = [
    *HUB,
    *rows("path", NOT_PATHS, TypeError, "a path"),
    *rows("result", (5, "good"), TypeError, "an AdaptationResult or None"),
    *wrong_bool("evaluate"),
    *wrong_integer("n_eval_tasks"),
    *wrong_integer("n_eval_episodes"),
    *rows("private", ("yes", 2), TypeError, "True or False"),
    *rows("commit_message", (5, None), TypeError, "a string"),
]
LOAD_FROM_HUB = [
    *HUB,
    *rows("filename", (5, None), TypeError, "name of a file"),
    *rows("filename", ("", "../a", "/a", "a/../b", "a//b", "a\\b", "C:a", "a\n"), ValueError, "file in the repository"),
    Wrong("revision", 5, TypeError, "a branch, tag or commit"),
    *rows("device", (5, "gpu"), ValueError, "'cpu'"),
    Wrong("cache_dir", 5, TypeError, "a folder or None"),
]
#: A port without a server: arguments are checked before any request
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("row", PUSH, ids=name_of)
def test_push_to_hub(row: Wrong) -> None:
    row.check(push_to_hub, {"path": AGENT, "repo_id": "user/name", "endpoint": NOWHERE})


@pytest.mark.parametrize("row", LOAD_FROM_HUB, ids=name_of)
def test_load_from_hub(row: Wrong) -> None:
    row.check(load_from_hub, {"repo_id": "user/name", "endpoint": NOWHERE})


def test_every_argument_is_in_the_table() -> None:
    assert_covered(TrainingCheckpoint, CHECKPOINT, without=["verbose"])
    assert_covered(TransformerPPO.resume, RESUME)
    assert_covered(TransformerPPO.export, EXPORT)
    assert_covered(load_agent, LOAD)
    assert_covered(push_to_hub, PUSH)
    assert_covered(load_from_hub, LOAD_FROM_HUB)
