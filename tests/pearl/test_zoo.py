"""``--algo pearl``: entries of the yml file, and the commands on a run."""

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
SMALL: dict[str, Any] = dict(n_envs=1, n_train_tasks=2, meta_batch_size=2, batch_size=4, gradient_steps=1)
SMALL.update(initial_steps=4, tasks_per_iteration=1, prior_steps=4, posterior_steps=4)
ENTRIES = list(yaml.safe_load((hyperparams_folder() / "pearl.yml").read_text()))


@pytest.mark.parametrize("env_id", ENTRIES)
def test_every_entry_trains(env_id: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    written = yaml.safe_load((hyperparams_folder() / "pearl.yml").read_text())[env_id]
    config = None
    if env_id == "MetaWorldML45Train-v0":  # whose 45 simulations take long to load
        env_id, config = ENV, str(tmp_path / "renamed.yml")
        Path(config).write_text(yaml.safe_dump({ENV: written}))
    elif env_id.startswith("MetaWorld"):
        request.getfixturevalue("few_goals")

    def set_up(**hyperparams: Any) -> tuple[Any, Any]:
        manager = make_manager(tmp_path, "pearl", env_id, hyperparams=hyperparams, eval_freq=-1, config=config)
        return manager.setup_experiment()  # type: ignore[return-value]

    model, saved = set_up()
    assert dict(saved) == written
    assert model.policy.latent_dim == 5 and model.gradient_steps == written["gradient_steps"]
    assert set_up(**SMALL)[0].learn(1).num_timesteps == 2 * 4 + 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = [f"{key}:{value}" for key, value in SMALL.items()]
    folder = tmp_path_factory.mktemp("logs")
    settings = ["-n", "40", "--eval-freq", "8", "--eval-episodes", "2", "--report", "--save-replay-buffer"]
    return train(folder, "--algo", "pearl", *settings, params=params, env=ENV)


def test_the_files_of_a_run(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {"best_model.zip", f"{ENV}.zip", "replay_buffer.pkl", "adaptation.npz", "report.json"}
    assert type(open_agent(run).model).__name__ == "PEARL"


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "RUN", "--n-tasks", "2", "--n-episodes", "2"],
        ["compare", "PEARL=RUN", "--n-tasks", "2", "--n-episodes", "2"],
        ["analyze", "online", "RUN", "--n-tasks", "2"],
        ["render", "RUN", "--n-episodes", "1"],
        ["report", "RUN"],
    ],
    ids=lambda command: command[0],
)
def test_commands(command: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([part.replace("RUN", str(run)) for part in command]) == 0


def test_enjoy_and_continued_training(run: Path, capsys: Any) -> None:
    folder = str(run.parents[1])
    assert main(["enjoy", "--algo", "pearl", "--env", ENV, "-f", folder, "-n", "5", "--no-render"]) == 0
    params = [f"{key}:{value}" for key, value in SMALL.items()]
    continued = train(run.parents[1], "--algo", "pearl", "-n", "8", "-i", f"{run / ENV}.zip", params=params, env=ENV)
    assert (continued / f"{ENV}.zip").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "RUN", "agent.safetensors"], "must hold a TransformerPPO or TransformerSAC, got PEARL"),
        (["analyze", "attention", "RUN"], "attention needs a TransformerPPO or TransformerSAC, got a PEARL"),
        (["train", "--algo", "pearl", "--env", "GridNavi-v0"], "Hyperparameters not found for pearl-GridNavi-v0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_it_cannot_do(arguments: list[str], message: str, run: Path, capsys: Any) -> None:
    assert message in error_of([part.replace("RUN", str(run)) for part in arguments], capsys)
