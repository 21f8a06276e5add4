"""The commands about trained agents: evaluate, compare, render."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rliable import metrics
from zoo_helpers import TINY

from sb3_trmrl.__main__ import main
from sb3_trmrl.analysis.comparison import Group, interquartile_mean, share_of_gap
from sb3_trmrl.cli.agents import load_agent
from sb3_trmrl.common.adaptation_result import AdaptationResult
from sb3_trmrl.common.evaluation import evaluate_adaptation

pytestmark = pytest.mark.usefixtures("one_thread")
ENV = "BernoulliBandit-v0"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: Any) -> Path:
    """
    :return: Log folder with two seeds of each of two algorithms, normalised
    """
    folder = tmp_path_factory.mktemp("logs")
    for algo in ("trmrl", "ppo_lstm"):
        for seed in ("0", "1"):
            arguments = [
                "--algo",
                algo,
                "--env",
                ENV,
                "-f",
                str(folder),
                "--seed",
                seed,
                "-n",
                "80",
                "--eval-freq",
                "40",
            ]
            params = [*TINY, "normalize:dict(norm_obs=True,norm_reward=False)"]
            assert main(["train", *arguments, "--env-kwargs", "episodes_per_trial:2", "-params", *params]) == 0
    return folder


def is_drawn(path: Path) -> bool:
    """
    :return: Whether a picture has more than a background
    """
    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_load_agent(logs: Path) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    best, last = load_agent(run), load_agent(run, last=True)
    assert best.env_id == ENV and best.env_kwargs == {"episodes_per_trial": 2}
    assert best.vec_normalize is not None and not best.vec_normalize.training
    assert last.model.num_timesteps == 80
    from_zip = load_agent(run / "best_model.zip")
    assert from_zip[1:3] == best[1:3]
    same = [
        evaluate_adaptation(agent.model, ENV, 5, 2, vec_normalize=agent.vec_normalize) for agent in (best, from_zip)
    ]
    assert np.array_equal(same[0].rewards, same[1].rewards)
    assert type(load_agent(logs / "ppo_lstm" / f"{ENV}_1").model).__name__ == "RecurrentPPO"


def test_load_agent_without_run(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes((logs / "trmrl" / f"{ENV}_1" / "best_model.zip").read_bytes())
    with pytest.raises(ValueError, match="env"):
        load_agent(tmp_path / "model.zip")
    assert load_agent(tmp_path / "model", env=ENV).vec_normalize is None
    with pytest.raises(ValueError, match="'sarsa'"):
        load_agent(tmp_path / "model.zip", env=ENV, algo="sarsa")
    with pytest.raises(FileNotFoundError, match="neither"):
        load_agent(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        load_agent(tmp_path)


def test_evaluate(logs: Path, tmp_path: Path, capsys: Any) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="rich is experimental")
        arguments = ["--n-tasks", "6", "--n-episodes", "3", "--output", str(tmp_path), "--sampled"]
        assert main(["evaluate", str(run), *arguments]) == 0
    result = AdaptationResult.load(tmp_path / "adaptation_test_sampled.npz")
    assert result.returns.shape == (6, 3) and not result.deterministic
    frame = pd.read_csv(tmp_path / "adaptation_test_sampled.csv")
    assert np.allclose(frame["return"].to_numpy().reshape(6, 3), result.returns)
    assert is_drawn(tmp_path / "adaptation_test_sampled.png")
    printed = capsys.readouterr().out
    assert "95 % interval over tasks" in printed and f"{result.mean_returns[2]:.2f}" in printed


def test_compare(logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"TrMRL={logs}/trmrl/{ENV}_*", f"RL2={logs}/ppo_lstm/{ENV}_*"]
    arguments = ["--lower", "RL2", "--oracle", "TrMRL", "--n-tasks", "5", "--n-episodes", "2"]
    assert main(["compare", *agents, *arguments, "--output", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "comparison.csv", index_col=0)
    assert list(frame.index) == ["TrMRL", "RL2"] and list(frame["seeds"]) == [2, 2]
    by_hand = []
    for number in (1, 2):
        agent = load_agent(logs / "ppo_lstm" / f"{ENV}_{number}")
        result = evaluate_adaptation(
            agent.model, ENV, 5, 2, env_kwargs=agent.env_kwargs, vec_normalize=agent.vec_normalize
        )
        by_hand.append(result.returns[:, -1].mean())
    assert frame.loc["RL2", "last episode"] == pytest.approx(np.mean(by_hand))
    assert frame.loc["TrMRL", "share of gap"] == pytest.approx(1.0)
    assert is_drawn(tmp_path / "comparison.png")
    assert "interval over seeds" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("agents", [["TrMRL"], ["TrMRL=nowhere/*"], ["--lower", "A", "A={logs}/trmrl/*"]])
def test_compare_wrong_arguments(logs: Path, agents: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", *[agent.format(logs=logs) for agent in agents]])


def test_interquartile_mean_over_runs() -> None:
    scores = np.random.default_rng(0).normal(size=(8, 3))
    middle, interval = interquartile_mean(scores)
    for column in range(3):
        assert middle[column] == pytest.approx(np.sort(scores[:, column])[2:6].mean())
        assert middle[column] == pytest.approx(metrics.aggregate_iqm(scores[:, [column]]))
    assert (interval[0] < middle).all() and (middle < interval[1]).all()
    assert np.isnan(interquartile_mean(scores[:1])[1]).all()


def test_share_of_gap() -> None:
    rng = np.random.default_rng(0)
    of_task = rng.normal(scale=5.0, size=20)  # common to all agents, so it cancels
    lower, agent, upper = (level + of_task + rng.normal(scale=0.1, size=(3, 20)) for level in (-100.0, -40.0, -20.0))
    share, (low, high) = share_of_gap(agent, lower, upper)
    assert share == pytest.approx(0.75, abs=0.005)
    assert low < share < high and high - low < 0.01
    with pytest.raises(ValueError, match="same tasks"):
        share_of_gap(agent[:, :5], lower, upper)


def test_area_under_curve() -> None:
    steps = np.array([0, 10, 30])
    group = Group(steps, np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]), {})
    assert group.areas() == pytest.approx([(5 + 20) / 30, 2.0])


@pytest.mark.parametrize("env", [ENV, "HalfCheetahVel-v0"])
def test_render(env: str, tmp_path: Path, logs: Path) -> None:
    run = logs / "trmrl" / f"{ENV}_1"
    video = tmp_path / "trial.mp4"
    if env != ENV:
        arguments = ["-f", str(tmp_path), "-n", "40", "--env-kwargs", "horizon:10", "--eval-freq", "40"]
        assert main(["train", "--env", env, *arguments, "-params", *TINY]) == 0
        run = tmp_path / "trmrl" / f"{env}_1"
    assert main(["render", str(run), "--output", str(video), "--task", "3", "--n-episodes", "2"]) == 0
    assert video.stat().st_size > 1_000
    from moviepy import VideoFileClip

    with VideoFileClip(str(video)) as clip:
        assert clip.get_frame(0).std() > 1.0
        assert round(clip.duration * clip.fps) == 20
