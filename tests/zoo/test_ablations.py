"""The grid of the ablations: which agents are trained, and what is read from their runs."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_trmrl.__main__ import main
from sb3_trmrl.analysis.ablations import plot_ablations
from sb3_trmrl.zoo.ablations import ablation_runs, read_ablations, train_ablations
from tests.helpers import wrong_use as w
from tests.helpers.zoo import ENV, assert_picture

GRID = {"n_layers": (1, 2), "initialization": ("tfixup", "default")}


class Trainer:
    """Instead of training, writes evaluations with a return of n_layers + seed."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.names: list[str] = []
        self.dies_at = dies_at

    def __call__(self, folder: Path, options: Sequence[str]) -> None:
        if len(self.names) == self.dies_at:
            raise KeyboardInterrupt
        self.names.append("/".join(folder.parts[-2:]))
        kwargs = eval(options[options.index("--hyperparams") + 1].removeprefix("policy_kwargs:"))
        level = kwargs["n_layers"] + int(options[options.index("--seed") + 1])
        results = np.array([[0, 0], [level - 1, level + 1]])
        (folder / "trmrl" / "Env-v0_1").mkdir(parents=True)
        np.savez(folder / "trmrl" / "Env-v0_1" / "evaluations.npz", timesteps=[50, 100], results=results)


def test_the_grid_is_trained_once_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env, in_process = "HalfCheetahVel-v0", "sb3_trmrl.zoo.ablations._train_in_process"
    runs = ablation_runs(env, tmp_path, [0, 1], GRID)
    assert len(runs) == 2 * 4
    assert {run.policy_kwargs["context_length"] for run in runs} == {5}  # the recommended one
    died, again = Trainer(dies_at=2), Trainer()
    monkeypatch.setattr(in_process, died)
    with pytest.raises(KeyboardInterrupt):
        list(train_ablations(runs, env, 100, 2))
    monkeypatch.setattr(in_process, again)
    assert list(train_ablations(runs, env, 100, 2)) == runs
    # two layers and T-Fixup are the base, so these are the same run
    assert died.names == ["n_layers=1/seed_0", "base/seed_0"]
    assert again.names == [
        "initialization=default/seed_0",
        "n_layers=1/seed_1",
        "base/seed_1",
        "initialization=default/seed_1",
    ]
    found = read_ablations(runs, env)
    np.testing.assert_array_equal(found.curves["n_layers"][1], [[0, 1], [0, 2]])
    np.testing.assert_array_equal(found.curves["initialization"]["tfixup"], [[0, 2], [0, 3]])
    row = found.to_frame().query("setting == 'n_layers' and value == '1' and timesteps == 100").iloc[0]
    assert (row["mean"], row["low"], row["high"], row["seeds"]) == (1.5, 1, 2, 2)
    plot_ablations(found, tmp_path / "ablations.png")
    assert_picture(tmp_path / "ablations.png")
    with pytest.raises(ValueError, match=r"holds a run with .*100. instead of .*200."):
        list(train_ablations(runs, env, 200, 2))


def test_a_wrong_grid_is_refused(tmp_path: Path) -> None:
    runs = partial(ablation_runs, "HalfCheetahVel-v0", tmp_path, [0])
    with pytest.raises(ValueError, match="`n_heads` must divide d_model=64, got n_heads=5"):
        runs(grid={"n_heads": (4, 5)})
    heads = ablation_runs("HalfCheetahVel-v0", tmp_path, [0])
    assert {run.setting for run in heads} == {"initialization", "context_length", "n_layers", "n_heads"}


def test_another_length_does_not_change_the_kind_of_memory(tmp_path: Path) -> None:
    """A window is the default only where a length is given."""
    for env_id, memory in (("CartPole-v1", "full"), ("CartPoleNoVel-v1", "window")):
        runs = ablation_runs(env_id, tmp_path, [0], {"context_length": (4,)})
        assert [run.policy_kwargs["memory"] for run in runs] == [memory]
    runs = ablation_runs("HalfCheetahVel-v0", tmp_path, [0], {"memory": ("window", "full")})
    assert [run.folder.parent.name for run in runs] == ["base", "memory=full"]


def test_the_ablation_command_trains_what_is_missing(tmp_path: Path) -> None:
    sizes = ["--hyperparams", "n_envs:4", "n_steps:10", "batch_size:40", "n_epochs:1"]
    arguments = ["--env", "BernoulliBandit-v0", "--n-timesteps", "80", "--n-evaluations", "2", "--seeds", "0"]
    arguments += ["--grid", "n_layers:(1,)", "--output", str(tmp_path), "--num-threads", "1", *sizes]
    assert main(["analyze", "ablations", *arguments]) == 0
    (marker,) = tmp_path.glob("runs/n_layers=1/seed_0/finished.json")
    about = json.loads(marker.read_text())
    assert about["policy_kwargs"]["n_layers"] == 1 and about["policy_kwargs"]["d_model"] == 32
    config = next(marker.parent.glob("trmrl/*/*/config.yml")).read_text()
    assert "n_steps" in config and "n_layers" in config
    assert_picture(tmp_path / "ablations.png")
    assert main(["analyze", "ablations", *arguments]) == 0
    assert json.loads(marker.read_text()) == about
    with pytest.raises(RuntimeError, match="training ended with status"):
        main(["analyze", "ablations", *arguments, "--no-such-option", "--output", str(tmp_path / "other")])


TABLES = [
    w.Table(
        train_ablations,
        {"runs": [], "env_id": ENV, "n_timesteps": 10},
        [*w.wrong_integer("n_timesteps"), *w.wrong_integer("n_evaluations")],
        dict.fromkeys(("runs", "env_id"), "result and argument of ablation_runs")
        | {"arguments": "checked by `trmrl train`"},
    ),
    w.Table(
        ablation_runs,
        {"env_id": ENV, "folder": "runs", "seeds": [0]},
        [
            w.Wrong("env_id", "Mistyped-v0", ValueError, "registered"),
            w.Wrong("grid", {}, ValueError, "not be empty"),
            w.Wrong("grid", {"depth": (1,)}, ValueError, "TrMRLPolicy", quoted="'depth'"),
            w.Wrong("grid", {"n_layers": 2}, TypeError, "a list of values", quoted="2"),
            w.Wrong("seeds", [], ValueError, "not be empty"),
            w.Wrong("seeds", [-1], ValueError, "at least 0", quoted="-1"),
            w.Wrong("seeds", ["a"], TypeError, "integer", quoted="'a'"),
        ],
        {"folder": "made when the runs are"},
    ),
]


@w.each_row(TABLES)
def test_wrong_use(function: Callable[..., Any], right: dict[str, Any], row: w.Wrong) -> None:
    row.check(function, right)


def test_every_argument_is_in_the_table() -> None:
    w.assert_all_covered(TABLES)
