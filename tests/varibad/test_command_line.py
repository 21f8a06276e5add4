"""VariBAD through the command line, in a run of a few dozen steps."""

from pathlib import Path
from typing import Any

import pytest

from sb3_trmrl import VariBAD
from sb3_trmrl.__main__ import main
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import ENV, NORMALIZE, TINY, assert_picture, error_of, train

ALGO = ("--algo", "varibad")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arguments = (*ALGO, "-n", "80", "--eval-freq", "20", "--eval-episodes", "2")
    return train(tmp_path_factory.mktemp("logs"), *arguments, params=[*TINY, NORMALIZE], env="GridNavi-v0")


def test_a_run_is_evaluated_compared_analysed_and_watched(run: Path, tmp_path: Path, capsys: Any) -> None:
    agent = open_agent(run)
    assert isinstance(agent.model, VariBAD) and agent.vec_normalize is not None
    tasks, output = ("--n-tasks", "3"), ("--output", str(tmp_path))
    assert main(["evaluate", str(run), *tasks, "--n-episodes", "2", *output]) == 0
    table = tmp_path / "adaptation_test_n_tasks=3_n_episodes=2.csv"
    assert len(table.read_text().splitlines()) == 1 + 3 * 2
    assert main(["compare", f"VariBAD={run}", f"same={run}", *tasks, *output]) == 0
    assert main(["analyze", "online", str(run), *tasks, "--window", "1", *output]) == 0
    assert_picture(next(tmp_path.glob("*online*.png")))
    assert main(["render", str(run), "--output", str(tmp_path / "video.gif"), "--n-episodes", "2"]) == 0
    folder = ["--env", "GridNavi-v0", "-f", str(run.parents[1]), *ALGO]
    assert main(["enjoy", *folder, "--no-render", "-n", "60"]) == 0


def test_training_continues_from_a_zip(run: Path, tmp_path: Path) -> None:
    last = str(run / "GridNavi-v0.zip")
    continued = train(tmp_path, *ALGO, "-n", "80", "--eval-freq", "-1", "-i", last, params=[], env="GridNavi-v0")
    assert VariBAD.load(continued / "GridNavi-v0.zip").num_timesteps == 160


def test_what_is_not_supported_is_named(run: Path, tmp_path: Path, capsys: Any) -> None:
    file = str(tmp_path / "agent.safetensors")
    assert "must hold a TransformerPPO or TransformerSAC, got VariBAD" in error_of(["export", run, file], capsys)
    error = error_of(["train", *ALGO, "--env", "CartPole-v1", "-f", tmp_path], capsys)
    assert "PreviousTransitionObservation" in error
    assert ENV not in error
