"""``--algo trmrl_sac``: entries of the yml file, and the commands on a run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_trmrl.__main__ import main
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.hyperparams_files import hyperparams_folder
from tests.helpers.zoo import error_of, train
from tests.zoo.test_zoo import make_manager

pytestmark = pytest.mark.usefixtures("one_thread")
ENV = "SparsePointRobot-v0"
ENTRIES = yaml.safe_load((hyperparams_folder() / "trmrl_sac.yml").read_text())
SMALL = ["n_envs:2", "learning_starts:10", "gradient_steps:1", "batch_size:4", "buffer_size:500"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_trains(entry: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if entry.startswith("MetaWorld"):
        request.getfixturevalue("few_goals")
    env_id = ENV if entry == "default" else entry
    small = dict(n_envs=2, learning_starts=6, batch_size=4, buffer_size=100)
    manager = make_manager(tmp_path, "trmrl_sac", env_id, hyperparams=small, eval_freq=-1)
    model, saved = manager.setup_experiment()  # type: ignore[misc]
    written = ENTRIES[entry]
    assert dict(saved) == {**written, **small}
    assert model.gamma == written.get("gamma", 0.99)
    assert model.policy.context_length == written["policy_kwargs"]["context_length"]
    model.learn(10)
    assert model._n_updates == 2 * written.get("gradient_steps", 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    settings = ["-n", "40", "--eval-freq", "20", "--eval-episodes", "2", "--report", "--save-replay-buffer"]
    return train(folder, "--algo", "trmrl_sac", *settings, params=SMALL, env=ENV)


def test_the_files_of_a_run(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {"best_model.zip", f"{ENV}.zip", "replay_buffer.pkl", "adaptation.npz", "report.json"}
    assert type(open_agent(run).model).__name__ == "TransformerSAC"


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "RUN", "--n-tasks", "2", "--n-episodes", "2"],
        ["compare", "SAC=RUN", "--n-tasks", "2", "--n-episodes", "2"],
        ["analyze", "online", "RUN", "--n-tasks", "2"],
        ["analyze", "attention", "RUN"],
        ["render", "RUN", "--n-episodes", "1"],
        ["export", "RUN", "agent.safetensors"],
        ["evaluate", "agent.safetensors", "--n-tasks", "2", "--n-episodes", "2"],
    ],
    ids=lambda command: f"{command[0]}-{command[1][:6]}",
)
def test_commands(command: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    if command[1] == "agent.safetensors":
        assert main(["export", str(run), "agent.safetensors"]) == 0
    assert main([part.replace("RUN", str(run)) for part in command]) == 0


def test_enjoy_and_continued_training(run: Path) -> None:
    folder = str(run.parents[1])
    assert main(["enjoy", "--algo", "trmrl_sac", "--env", ENV, "-f", folder, "-n", "5", "--no-render"]) == 0
    arguments = ["--algo", "trmrl_sac", "-n", "8", "-i", f"{run / ENV}.zip"]
    continued = train(run.parents[1], *arguments, params=SMALL, env=ENV)
    model: Any = open_agent(continued, last=True).model
    assert model.num_timesteps == 48


def test_discrete_actions_are_refused(capsys: Any) -> None:
    arguments = ["train", "--algo", "trmrl_sac", "--env", "GridNavi-v0"]
    assert "`env` must have a Box action space" in error_of(arguments, capsys)
