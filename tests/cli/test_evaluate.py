"""``evaluate`` and ``analyze``: files and tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sb3_trmrl.__main__ import main
from sb3_trmrl.cli.analyze import KINDS
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import DEMO, ENV, NORMALIZE, TINY, assert_picture, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_evaluate(run: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = ["--n-tasks", "6", "--n-episodes", "3", "--output", str(tmp_path), "--sampled"]
    assert main(["evaluate", str(run), *arguments]) == 0
    stem = "adaptation_test_sampled_n_tasks=6_n_episodes=3"
    result = AdaptationResult.load(tmp_path / f"{stem}.npz")
    assert result.returns.shape == (6, 3) and not result.deterministic
    frame = pd.read_csv(tmp_path / f"{stem}.csv")
    assert np.allclose(frame["return"].to_numpy().reshape(6, 3), result.returns)
    assert_picture(tmp_path / f"{stem}.png")
    printed = capsys.readouterr().out
    assert "95 % interval over tasks" in printed and f"{result.mean_returns[2]:.2f}" in printed


def test_files_of_evaluate_are_named_after_settings(run: Path, tmp_path: Path) -> None:
    options = {
        "": [],
        "_n_tasks=1": ["--n-tasks", "1"],
        "_n_episodes=1": ["--n-tasks", "20", "--n-episodes", "1"],
        "_last": ["--last"],
        "_seed=1": ["--seed", "1"],
        "_n_pulls=3": ["--env-kwargs", "n_pulls:3"],
        "_last_sampled": ["--last", "--sampled"],
    }
    for arguments in options.values():
        assert main(["evaluate", str(run), *arguments, "--output", str(tmp_path)]) == 0
    assert main(["evaluate", str(run / f"{ENV}.zip"), "--output", str(tmp_path)]) == 0
    names = {f"adaptation_test{suffix}" for suffix in [*options, f"_{ENV}"]}
    assert {path.stem for path in tmp_path.iterdir()} == names
    assert len(list(tmp_path.iterdir())) == 3 * len(names)


def test_the_progress_bar_moves(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen = []

    def spied(*args: Any, after_task: Any, **kwargs: Any) -> AdaptationResult:
        return evaluate_adaptation(*args, after_task=lambda done: (seen.append(done), after_task(done)), **kwargs)

    monkeypatch.setattr("sb3_trmrl.evaluation.adaptation.evaluate_adaptation", spied)
    arguments = ["--n-tasks", "25", "--n-episodes", "1", "--output", str(tmp_path)]
    assert main(["evaluate", str(run), *arguments]) == 0
    assert seen == [10, 20, 25]


@pytest.mark.usefixtures("few_goals")
def test_metaworlds_protocol(tmp_path: Path, capsys: Any) -> None:
    env, kwargs = "MetaWorldML1-v0", {"horizon": 5}
    run = train(
        tmp_path, "-n", "40", "--eval-freq", "40", "--env-kwargs", "horizon:5", params=[*TINY, NORMALIZE], env=env
    )
    arguments = ["--protocol", "metaworld", "--n-tasks", "2", "--n-episodes", "5"]
    assert main(["evaluate", str(run), *arguments]) == 0
    frame = pd.read_csv(run / "metaworld_protocol_test_n_tasks=2_n_episodes=5.csv")
    agent = open_agent(run)
    result = evaluate_adaptation(agent.model, env, 2, 5, env_kwargs=kwargs, vec_normalize=agent.vec_normalize)
    assert result.successes is not None and not result.successes.any()  # or returns would end with success
    assert list(frame["class"]) == [result.tasks[0].name, "mean of classes"]
    assert frame["return"].to_numpy() == pytest.approx(result.returns[:, 2:].mean(), rel=1e-4)
    assert (frame["success"] == 0).all() and "last 3 of 5 episodes" in " ".join(capsys.readouterr().out.split())
    assert "--n-episodes must be above 3" in error_of(["evaluate", str(run), *arguments[:-1], "3"], capsys)


def test_analyze_names_its_files_and_intervals(tmp_path: Path, capsys: Any) -> None:
    arguments = ["--n-tasks", "2", "--env-kwargs", "horizon:10", "--output", str(tmp_path)]
    assert main(["analyze", "online", DEMO, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "95 % bootstrap interval over tasks" in " ".join(printed.split())
    files = {Path(name) for name in printed.split("Wrote ")[1].strip().split(", ")}
    assert files == set(tmp_path.iterdir()) and len(files) == 3


def test_stacked_frames_of_an_environment_without_tasks(tmp_path: Path, capsys: Any) -> None:
    """Frames are stacked over normalised observations, as rl-zoo3 does in training and report."""
    env, params = "CartPoleNoVel-v1", [*TINY, NORMALIZE, "frame_stack:3"]
    run = train(tmp_path, "-n", "80", "--eval-freq", "-1", "--report", params=params, env=env)
    assert main(["evaluate", str(run), "--seed", "3"]) == 0  # the seed of the run
    reported = json.loads((run / "report.json").read_text())["returns"]["at the end of training"]["episode"]["each"]
    result = AdaptationResult.load(run / "adaptation_test_seed=3.npz")
    assert sorted(result.returns[:, 0]) == sorted(reported) and result.unit == "episodes"
    printed = capsys.readouterr().out
    assert "20 episodes, deterministic" in printed and "per episode" in printed and "task" not in printed
    assert not (run / "adaptation_test_seed=3.png").exists()
    assert main(["evaluate", str(run), "--n-episodes", "2"]) == 0
    assert AdaptationResult.load(run / "adaptation_test_n_episodes=2.npz").returns.shape == (2, 1)
    error = error_of(["evaluate", run, "--n-episodes", "2", "--n-tasks", "3"], capsys)
    assert "only one of --n-tasks and --n-episodes" in error and "no tasks" in error

    assert main(["analyze", "all", str(run), "--n-episodes", "4"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "refinement, 4 episodes" in printed and "attention, 1 episode" in printed and "tasks" not in printed
    assert {path.stem for path in (run / "analysis").glob("*.png")} == set(KINDS)
    error = error_of(["analyze", "attention", run, "--n-episodes", "2"], capsys)
    assert "--n-episodes must be 1" in error and "got 2" in error
    error = error_of(["export", run, tmp_path / "agent"], capsys)
    assert "VecFrameStack outside VecNormalize" in error


def test_an_unknown_environment_may_need_its_module(capsys: Any) -> None:
    assert "--gym-packages MODULE" in error_of(["evaluate", DEMO, "--env", "MyRobot-v0"], capsys)
