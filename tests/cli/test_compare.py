"""``compare``: agents with several seeds each."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sb3_trmrl.__main__ import main
from sb3_trmrl.envs.bandit import BernoulliBanditEnv
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import ENV, assert_picture, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_compare(logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"TrMRL={logs}/trmrl/{ENV}_*", f"RL2={logs}/ppo_lstm/{ENV}_*"]
    arguments = ["--lower", "RL2", "--oracle", "TrMRL", "--n-tasks", "5", "--n-episodes", "2"]
    assert main(["compare", *agents, *arguments, "--output", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "comparison.csv", index_col=0)
    assert list(frame.index) == ["TrMRL", "RL2"] and list(frame["seeds"]) == [2, 2]
    by_hand = []
    for number in (1, 2):
        agent = open_agent(logs / "ppo_lstm" / f"{ENV}_{number}")
        result = evaluate_adaptation(
            agent.model, ENV, 5, 2, env_kwargs=agent.env_kwargs, vec_normalize=agent.vec_normalize
        )
        by_hand.append(result.returns[:, -1].mean())
    assert frame.loc["RL2", "last episode"] == pytest.approx(np.mean(by_hand))
    assert list(frame["share of gap"]) == [1.0, 0.0]  # exactly, so without an interval
    assert frame[["share of gap, low", "share of gap, high"]].isna().all(axis=None)
    assert_picture(tmp_path / "comparison.png")
    assert not [name for name in frame.columns if "success" in name]  # bandits do not report success
    printed = capsys.readouterr().out
    assert "interval over seeds" in " ".join(printed.split()) and "from step 40 to step 80" in printed


def test_compare_tasks_that_are_arrays(logs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    own_tasks = BernoulliBanditEnv.draw_tasks
    monkeypatch.setattr(BernoulliBanditEnv, "draw_tasks", lambda *args: list(map(np.array, own_tasks(*args))))
    agents = [f"a={logs}/trmrl/{ENV}_1", f"b={logs}/trmrl/{ENV}_2"]
    options = ["--n-tasks", "3", "--n-episodes", "1", "--output", str(tmp_path)]
    assert main(["compare", *agents, *options]) == 0
    # From the second agent on, the tasks are others
    n_calls = iter(range(99))
    monkeypatch.setattr(
        BernoulliBanditEnv,
        "draw_tasks",
        lambda env, n, rng: [np.full(env.n_arms, 0.1 * (1 + next(n_calls)))] * n,
    )
    assert "all agents need the same tasks" in error_of(["compare", *agents, *options], capsys)


def test_three_agents_fit_into_80_characters(logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"{name}={logs}/{algo}/{ENV}_*" for name, algo in (("a", "trmrl"), ("b", "ppo_lstm"), ("c", "trmrl"))]
    assert main(["compare", *agents, "--n-tasks", "3", "--n-episodes", "1", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line[:1] in "┃│" and line]
    assert max(map(len, table)) <= 80 and not any("…" in line for line in table)
    (head,) = [line for line in table if line.startswith("┃")]
    assert head.replace("┃", " ").split() == ["a", "b", "c"]
    (seeds,) = [line for line in table if "seeds" in line]
    assert seeds.replace("│", " ").split() == ["seeds", "2", "2", "2"]


def test_compare_a_run_without_its_last_model(killed: Path, logs: Path, tmp_path: Path, capsys: Any) -> None:
    agents = [f"killed={killed}", f"whole={logs}/trmrl/{ENV}_1"]
    assert main(["compare", *agents, "--n-tasks", "5", "--n-episodes", "1", "--output", str(tmp_path)]) == 0
    frame = pd.read_csv(tmp_path / "comparison.csv", index_col="agent")
    assert frame.loc["killed", "last episode"] == frame.loc["whole", "last episode"]
    of_last = [name for name in frame.columns if "last model" in name and not name.endswith(("low", "high"))]
    assert len(of_last) == 2
    assert frame.loc["killed", of_last].isna().all() and frame.loc["whole", of_last].notna().all()
    assert "│ - │" in " ".join(capsys.readouterr().out.split())


def test_compare_has_success_rates(tmp_path: Path, monkeypatch: Any) -> None:
    def step(env: BernoulliBanditEnv, action: Any) -> Any:
        *rest, info = own_step(env, action)
        return *rest, {**info, "is_success": rest[1] > 0}

    own_step = BernoulliBanditEnv.step
    monkeypatch.setattr(BernoulliBanditEnv, "step", step)
    run = train(tmp_path, "-n", "80", "--eval-freq", "40")
    options = ["--n-tasks", "6", "--n-episodes", "2", "--split", "validation", "--env-kwargs", "n_pulls:2"]
    assert main(["compare", f"TrMRL={run}", *options, "--output", str(tmp_path / "out")]) == 0
    row = pd.read_csv(tmp_path / "out" / "comparison.csv", index_col="agent").loc["TrMRL"]
    result = evaluate_adaptation(open_agent(run).model, ENV, 6, 2, env_kwargs={"n_pulls": 2}, split="validation")
    assert result.success_rates is not None and (result.success_rates > 0).all()
    assert [row["success, first episode"], row["success, last episode"]] == pytest.approx(list(result.success_rates))
    assert row["last episode"] == pytest.approx(result.mean_returns[1])
    picture = Image.open(tmp_path / "out" / "comparison.png")
    assert picture.width > 3 * picture.height  # a panel more


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (ENV, "HalfCheetahVel-v0", "{run} has BernoulliBandit-v0, {changed} has HalfCheetahVel-v0"),
        ("episodes_per_trial: 2", "n_arms: 3", "those of {run} and {changed} differ"),
    ],
)
def test_compare_needs_the_same_tasks(
    before: str, after: str, message: str, run: Path, tmp_path: Path, capsys: Any
) -> None:
    changed = Path(shutil.copytree(run, tmp_path / run.name))
    arguments = changed / ENV / "args.yml"
    text = arguments.read_text()
    assert before in text
    arguments.write_text(text.replace(before, after))
    assert message.format(run=run, changed=changed) in error_of(["compare", f"A={run}", f"B={changed}"], capsys)


def test_compare_a_run_with_exported_agents(logs: Path, run: Path, tmp_path: Path, capsys: Any) -> None:
    """The exported agent of a run has its returns, but no learning curve and no last model."""
    agents = tmp_path / "agents"
    agents.mkdir()
    assert main(["export", str(run), str(agents / "1.safetensors")]) == 0
    counts = ["--n-tasks", "4", "--n-episodes", "2", "--output", str(tmp_path)]
    for names in (["run", "file"], ["file"]):
        paths = {"run": str(run), "file": f"{agents}/*.safetensors"}
        assert main(["compare", *(f"{name}={paths[name]}" for name in names), *counts]) == 0
        frame = pd.read_csv(tmp_path / "comparison.csv", index_col="agent")
        assert list(frame.index) == names
        of_file = frame.loc["file"]
        assert of_file[["last episode, last model", "area under learning curve"]].isna().all()
        assert "from step" in capsys.readouterr().out or names == ["file"]
        if "run" in names:
            same = ["first episode", "last episode", "last episode, sampled"]
            assert of_file[same].tolist() == frame.loc["run", same].tolist()
            assert_picture(tmp_path / "comparison.png")
    shutil.copytree(run, agents / "run")
    error = error_of(["compare", f"both={agents}/*"], capsys)
    assert "all runs or all exported agents" in error and f"{agents}/*" in error
