"""Action masks through the command line: every command plays only valid actions, which the environment checks."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("rl_zoo3")

from sb3_trmrl.__main__ import main
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.agents import Still
from tests.helpers.masked import no_repeat_bandit
from tests.helpers.zoo import TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")
ENV = "NoRepeatBandit-v0"


@pytest.fixture(autouse=True, scope="module")
def registered() -> Any:
    gym.register(ENV, no_repeat_bandit)
    yield
    del gym.registry[ENV]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["-n", "80", "--eval-freq", "20", "--eval-episodes", "4", "--n-eval-envs", "2"]
    return train(tmp_path_factory.mktemp("masked"), *settings, env=ENV)


def test_training_and_its_evaluations(run: Path) -> None:
    assert open_agent(run).model.uses_action_masks  # type: ignore[union-attr]
    with np.load(run / "evaluations.npz") as evaluations:
        assert evaluations["results"].shape[1] == 4


def test_evaluate_adaptation(run: Path) -> None:
    model = open_agent(run).model
    for agent in (model, model.policy):
        result = evaluate_adaptation(agent, ENV, n_eval_tasks=5, n_eval_episodes=3, deterministic=False)
        assert result.lengths.min() == 10
    with pytest.raises(AssertionError):  # its `predict` takes no masks
        evaluate_adaptation(Still(), ENV, n_eval_tasks=2, n_eval_episodes=1)


def test_commands(run: Path, tmp_path: Path, capsys: Any) -> None:
    folder = ["--env", ENV, "-f", str(run.parents[1])]
    assert main(["enjoy", *folder, "--no-render", "-n", "60"]) == 0
    assert "6 Episodes" in capsys.readouterr().out
    assert main(["render", str(run), "--output", str(tmp_path / "trial.mp4")]) == 0
    assert main(["evaluate", str(run), "--n-tasks", "3", "--sampled", "--output", str(tmp_path)]) == 0
    assert main(["record_video", *folder, "-n", "30", "-o", str(tmp_path)]) == 0


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_search_of_hyperparameters(tmp_path: Path) -> None:
    search = ["--optimize-hyperparameters", "--n-trials", "1", "--n-evaluations", "1", "--sampler", "random"]
    settings = ["-f", str(tmp_path), "-n", "40", "--eval-episodes", "2", "--no-optim-plots", "-params", *TINY]
    assert main(["train", "--env", ENV, *search, *settings]) == 0
    (report,) = tmp_path.glob("trmrl/report_*.csv")
    assert "COMPLETE" in report.read_text()
