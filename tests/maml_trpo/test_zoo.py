"""``--algo maml_trpo``: entries of the yml file, and the commands on a run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_trmrl import MAMLTRPO
from sb3_trmrl.__main__ import main
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.hyperparams_files import hyperparams_folder
from tests.helpers.zoo import error_of, train
from tests.zoo.test_zoo import make_manager

pytestmark = pytest.mark.usefixtures("one_thread")
ENV = "GridNavi-v0"
ALGO = ("--algo", "maml_trpo")
SMALL = ["n_envs:2", "n_tasks:2", "n_inner_episodes:1"]
NORMALIZE = "normalize:dict(norm_obs=True,norm_reward=True)"
ENTRIES = yaml.safe_load((hyperparams_folder() / "maml_trpo.yml").read_text())


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_makes_a_model(entry: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    env_id, config = entry, None
    if entry == "MetaWorldML45Train-v0":  # whose simulations take long to load
        env_id, config = ENV, str(tmp_path / "renamed.yml")
        Path(config).write_text(yaml.safe_dump({ENV: ENTRIES[entry]}))
    elif entry.startswith("MetaWorld"):
        request.getfixturevalue("few_goals")
    manager = make_manager(tmp_path, "maml_trpo", env_id, hyperparams=dict(n_envs=2), eval_freq=-1, config=config)
    model, saved = manager.setup_experiment()  # type: ignore[misc]
    assert isinstance(model, MAMLTRPO) and dict(saved) == {**ENTRIES[entry], "n_envs": 2}
    for name in ("n_tasks", "n_inner_episodes", "inner_learning_rate", "target_kl"):
        assert getattr(model, name) == ENTRIES[entry][name]
    assert ENTRIES[entry]["n_tasks"] % ENTRIES[entry]["n_envs"] == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = (*ALGO, "-n", "60", "--eval-freq", "20", "--eval-episodes", "2", "--report")
    return train(tmp_path_factory.mktemp("logs"), *settings, params=[*SMALL, NORMALIZE], env=ENV)


def test_the_files_of_a_run(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {"best_model.zip", f"{ENV}.zip", "report.json"}
    agent = open_agent(run)
    assert isinstance(agent.model, MAMLTRPO) and agent.vec_normalize is not None


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "RUN", "--n-tasks", "2", "--n-episodes", "3"],
        ["compare", "MAML=RUN", "--n-tasks", "2", "--n-episodes", "2"],
        ["analyze", "online", "RUN", "--n-tasks", "2", "--window", "1"],
        ["render", "RUN", "--n-episodes", "2"],
        ["report", "RUN"],
    ],
    ids=lambda command: command[0],
)
def test_commands(command: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([part.replace("RUN", str(run)) for part in command]) == 0


def test_enjoy_and_continued_training(run: Path) -> None:
    folder = str(run.parents[1])
    assert main(["enjoy", *ALGO, "--env", ENV, "-f", folder, "-n", "50", "--no-render"]) == 0
    last = str(run / f"{ENV}.zip")
    continued = train(run.parents[1], *ALGO, "-n", "60", "--eval-freq", "-1", "-i", last, params=[], env=ENV)
    assert MAMLTRPO.load(continued / f"{ENV}.zip").num_timesteps == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "RUN", "agent.safetensors"], "must hold a TransformerPPO or TransformerSAC, got MAMLTRPO"),
        (["analyze", "attention", "RUN"], "attention needs a TransformerPPO or TransformerSAC, got a MAMLTRPO"),
        (["train", *ALGO, "--env", "CartPole-v1"], "Hyperparameters not found for maml_trpo-CartPole-v1"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_it_cannot_do(
    arguments: list[str], message: str, run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of([part.replace("RUN", str(run)) for part in arguments], capsys)
