"""The report of an experiment, whose runs are those of the fixture ``logs``."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sb3_trmrl.__main__ import main
from sb3_trmrl.analysis.comparison import Group
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.experiment_file import Experiment, read_experiment
from sb3_trmrl.zoo.experiment_report import _curves_of
from sb3_trmrl.zoo.experiment_runs import RECORD, RESUMED_WITH, run_folder
from sb3_trmrl.zoo.learning_curves import environment_note, learning_curves
from sb3_trmrl.zoo.report import _learning_curve
from sb3_trmrl.zoo.runs import Run
from tests.helpers.zoo import ENV, assert_picture, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")

EXPERIMENT = f"""
environment: {ENV}
n_timesteps: 80
eval_freq: 40
seeds: [0, 1]
env_kwargs: {{episodes_per_trial: 2}}
agents:
  TrMRL: {{vary: {{policy_kwargs.context_length: [3, 10], policy_kwargs.n_heads: [2]}}}}
  RL^2 | LSTM: {{algo: ppo_lstm}}
  not trained: {{algo: ppo}}
report:
  n_tasks: 5
  n_episodes: 3
  lower: RL^2 | LSTM
  oracle: TrMRL
  other_tasks:
    short episodes: {{n_pulls: 4}}
"""
#: The run of each agent, here the same for TrMRL and one of its variants
RUNS = {"TrMRL": "trmrl", "TrMRL, context_length=3": "trmrl", "RL^2 | LSTM": "ppo_lstm"}


@pytest.fixture(scope="module")
def experiment(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment in which some runs are missing, and one was made with other settings"""
    file = tmp_path_factory.mktemp("experiment") / "bandits.yml"
    file.write_text(EXPERIMENT)
    found = read_experiment(file, file.parent / "runs")
    for training in found.trainings:
        algo = RUNS.get(training.agent)
        if algo is not None and (training.agent, training.seed) != ("TrMRL, context_length=3", 1):
            shutil.copytree(logs / algo / f"{ENV}_{training.seed + 1}", training.folder / algo / f"{ENV}_1")
            is_other = (training.agent, training.seed) == ("TrMRL", 1)
            settings = {**training.settings, **({"eval_freq": 20} if is_other else {})}
            record = {"settings": settings, "with": {"cpus": 7}, **({RESUMED_WITH: [{"cpus": 8}]} if is_other else {})}
            (training.folder / RECORD).write_text(json.dumps(record))
    return found


@pytest.fixture(scope="module")
def report(experiment: Experiment) -> Path:
    """The folder of the report"""
    folder = experiment.file.parent / "report"
    options = ["--folder", str(experiment.file.parent / "runs"), "--jobs", "1"]
    assert main(["experiment", "report", str(experiment.file), "--output", str(folder), *options]) == 0
    return folder


def played(
    experiment: Experiment, agent: str, deterministic: bool = True, last: bool = False, **kwargs: Any
) -> np.ndarray:
    """Return the mean returns of an agent's runs in each episode, (runs, episodes)."""
    means = []
    for training in experiment.trainings:
        if training.agent == agent:
            found = open_agent(run_folder(training), env_kwargs=kwargs, last=last)  # type: ignore[arg-type]
            result = evaluate_adaptation(
                found.model,
                ENV,
                5,
                3,
                deterministic,
                env_kwargs=found.env_kwargs,
                vec_normalize=found.vec_normalize,
            )
            means.append(result.returns.mean(axis=0))
    return np.array(means)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, comment="#")


def test_the_table_has_the_returns_of_all_episodes(experiment: Experiment, report: Path) -> None:
    frame = read(report / f"table_{ENV}.csv").set_index("agent")
    assert list(frame.index) == ["TrMRL", "TrMRL, context_length=3", "RL^2 | LSTM"]
    assert list(frame["seeds"]) == [2, 1, 2] and list(frame["steps"]) == [80] * 3
    for agent in ("TrMRL", "RL^2 | LSTM"):
        expected = {f"episode {1 + i}": each for i, each in enumerate(played(experiment, agent).T)}
        expected["episode 3, stochastic"] = played(experiment, agent, deterministic=False)[:, 2]
        expected["episode 3, last model"] = played(experiment, agent, last=True)[:, 2]
        expected["episode 3, last model, stochastic"] = played(experiment, agent, False, True)[:, 2]
        expected["short episodes, episode 3"] = played(experiment, agent, n_pulls=4)[:, 2]
        for heading, runs in expected.items():
            # Of two runs, the interquartile mean is the mean, and the interval of resampled means is the range
            values = frame.loc[agent, [heading, f"{heading}, low", f"{heading}, high"]]
            np.testing.assert_allclose(values.to_numpy(float), [runs.mean(), runs.min(), runs.max()])
    assert list(frame["share of gap"])[::2] == [1.0, 0.0]
    files = experiment.file.parent.glob("runs/*/TrMRL/*/*/*/adaptation.npz")
    histories = [dict(np.load(file)) for file in files]
    minutes = [(each["seconds"][-1] + each["evaluation_seconds"][-1]) / 60 for each in histories]
    assert len(minutes) == 2 and frame.loc["TrMRL", "minutes"] == pytest.approx(np.mean(minutes))


def test_the_page_has_the_same_numbers(report: Path) -> None:
    text = (report / "report.md").read_text()
    frame = read(report / f"table_{ENV}.csv").set_index("agent")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    # The name of an agent may contain the sign that separates columns
    rows = pd.read_csv(io.StringIO("\n".join(lines).replace(r"\|", "or")), sep="|", skipinitialspace=True)
    rows.columns = rows.columns.str.strip()
    assert rows["agent"].str.strip().tolist()[1:] == [name.replace("|", "or") for name in frame.index]
    row = frame.iloc[0]
    middle, low, high = row["episode 2"], row["episode 2, low"], row["episode 2, high"]
    assert rows["episode 2"].str.strip().tolist()[1] == f"{middle:.2f} ({low:.2f} to {high:.2f})"
    assert "(" not in rows["episode 2"].tolist()[2]  # a single seed has no interval
    pictures = [line.partition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) == 4 and all((report / name).is_file() for name in pictures)
    for name in pictures:
        assert_picture(report / name)


def test_the_page_says_what_is_missing_and_what_it_was_made_with(experiment: Experiment, report: Path) -> None:
    text = (report / "report.md").read_text()
    (missing,) = [line for line in text.splitlines() if "not finished" in line]
    assert missing.startswith("5 runs") and f"{ENV}/not trained/1" in missing and "n_heads=2/0" in missing
    assert f"{ENV}/TrMRL/1 was trained with eval_freq=20 instead of 40." in text
    for path in report.glob("*.csv"):
        head = path.read_text().splitlines()[:4]
        assert f"trmrl experiment report {experiment.file}" in head[0] and "torch" in head[0]
        assert head[1] == "# 5 runs were trained with cpus 7"
        assert head[2] == "# 1 of them were resumed and trained with cpus 8" and not head[3].startswith("#")


def test_curves_are_those_of_the_runs(experiment: Experiment, report: Path) -> None:
    curves = read(report / "curves.csv")
    assert len(curves) == 5 * 2
    for training in experiment.trainings:
        folder = run_folder(training)
        if folder is None:
            continue
        rows = curves.query("agent == @training.agent and seed == @training.seed")
        with np.load(folder / "adaptation.npz") as data:
            assert (np.diff(data["seconds"], prepend=0) > 0).all()
            np.testing.assert_array_equal(rows["step"], data["timesteps"])
            assert (np.diff(data["evaluation_seconds"], prepend=0) > 0).all()
            np.testing.assert_allclose(rows["seconds"], data["seconds"], atol=0.05)
            np.testing.assert_allclose(rows["evaluation seconds"], data["evaluation_seconds"], atol=0.05)
            for index in range(2):
                np.testing.assert_allclose(
                    rows[f"return, episode {1 + index}"], data["returns"][:, :, index].mean(axis=1), atol=1e-4
                )
            np.testing.assert_allclose(rows["return"], data["returns"].mean(axis=(1, 2)), atol=1e-4)


def test_evaluations_are_kept_until_a_model_is_newer(
    experiment: Experiment, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plot_training", "plot_testing", "plot_ablations"):
        monkeypatch.setattr(f"sb3_trmrl.zoo.experiment_report.{name}", lambda *_: None)
    files = sorted(experiment.file.parent.glob("runs/**/test_*.npz"))
    times = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 5 * 5
    options = ["--folder", str(experiment.file.parent / "runs"), "--jobs", "1", "--output", str(report)]
    (model,) = experiment.file.parent.glob("runs/*/TrMRL/seed_0/*/*/best_model.zip")
    model.touch()
    before = read(report / "tests.csv")
    assert main(["experiment", "report", str(experiment.file), *options]) == 0
    again = [file for file, time in zip(files, times, strict=True) if file.stat().st_mtime_ns != time]
    assert [file.parent for file in again] == [model.parents[2]] * 5
    pd.testing.assert_frame_equal(before, read(report / "tests.csv"))


def test_results_of_missing_runs_are_not_overwritten(
    experiment: Experiment, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (training,) = (each for each in experiment.trainings if (each.agent, each.seed) == ("RL^2 | LSTM", 1))
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    options = ["--folder", str(experiment.file.parent / "runs"), "--jobs", "1", "--output", str(report)]
    elsewhere = training.folder.rename(experiment.file.parent / "elsewhere")
    try:
        error = error_of(["experiment", "report", experiment.file, *options], capsys)
    finally:
        elsewhere.rename(training.folder)
    assert f"{training.name}. Write to another folder" in error and "TrMRL" not in error
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_curves_of_runs_that_were_stopped_are_not_overwritten(
    experiment: Experiment, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those of agents that the file no longer has. There are no tests of them."""
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    with (folder / "curves.csv").open("a") as file:
        file.write(f"{ENV},not trained,0,False,40\n{ENV},None #2,1,False,40\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = ["--folder", experiment.file.parent / "runs", "--jobs", "1", "--output", folder]
    error = error_of(["experiment", "report", experiment.file, *options], capsys)
    assert f"folder of the runs: {ENV}/None #2/1, {ENV}/not trained/0. Write to another folder" in error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_curves_of_validation_trials_with_another_number_of_episodes(tmp_path: Path) -> None:
    file = tmp_path / "bandits.yml"
    file.write_text(EXPERIMENT)
    training = next(each for each in read_experiment(file, tmp_path / "runs").trainings if each.agent == "not trained")
    episodes = ["--env-kwargs", "episodes_per_trial:2", "--eval-env-kwargs", "episodes_per_trial:5"]
    run = Run(train(training.folder, "--algo", "ppo", "-n", "80", "--eval-freq", "40", *episodes))
    expected = run.history()["returns"].mean(axis=2)
    assert run.history()["returns"].shape == (2, 20, 5)
    np.testing.assert_allclose(learning_curves([run]).curves, [expected.mean(axis=1)])
    np.testing.assert_allclose(_curves_of(training)["return"], expected.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(_learning_curve(run, 2).returns, expected)


@pytest.mark.parametrize("name", ["adaptation.npz", "evaluations.npz"])
def test_a_run_that_dies_between_its_two_files_of_evaluations(name: str, run: Path, tmp_path: Path) -> None:
    """One of them has an evaluation more: the other is written later, or has not been written again after resuming."""
    file = tmp_path / "bandits.yml"
    file.write_text(EXPERIMENT)
    training = read_experiment(file, tmp_path / "runs").trainings[0]
    folder = training.folder / "trmrl" / f"{ENV}_1"
    shutil.copytree(run, folder)
    whole = Run(folder).history()
    arrays = dict(np.load(folder / name))
    np.savez(folder / name, **{key: each if key == "task_names" else each[:1] for key, each in arrays.items()})
    curves = _curves_of(training)
    assert list(curves["step"]) == [40]
    np.testing.assert_allclose(curves["return"], whole["returns"][:1].mean(axis=(1, 2)), atol=1e-4)
    np.testing.assert_allclose(curves["seconds"], whole["seconds"][:1], atol=0.05)
    assert learning_curves([Run(folder)], by_minutes=True).timesteps == pytest.approx(whole["seconds"][:1] / 60)


def test_arguments_of_the_environment_that_differ_are_named() -> None:
    same = {
        "TrMRL": [{"size": 4}, {"size": 4}],
        "PPO": [{"size": 4, "reveal_task": True, "previous_transition": False}],
    }
    assert environment_note(same) == ""
    note = environment_note({"TrMRL": [{"size": 4}, {"size": 4}], "PPO": [{}], "RL^2": [{"size": 4}]})
    assert note.endswith("size=4 (TrMRL, RL^2); size=default (PPO).")


def _with_times(run: Run, folder: Path, seconds: np.ndarray | None) -> Run:
    """A copy of the run with other times of its evaluations"""
    shutil.copytree(run.folder, folder)
    history = {key: value for key, value in run.history().items() if key != "seconds"}
    np.savez(folder / "adaptation.npz", **history, **({} if seconds is None else {"seconds": seconds}))
    return Run(folder)


def test_curves_by_minutes(logs: Path, tmp_path: Path) -> None:
    trained = [Run(path) for path in sorted((logs / "trmrl").glob(f"{ENV}_*"))]
    n_evaluations = len(trained[0].history()["seconds"])
    own_seconds = [60.0 * (1 + np.arange(n_evaluations)), 60.0 * (1.5 + 1.1 * np.arange(n_evaluations))]
    runs = [_with_times(run, tmp_path / str(i), own_seconds[i]) for i, run in enumerate(trained)]
    curves = [run.evaluations()[1].mean(axis=1) / 2 for run in runs]  # type: ignore[index]
    minutes = [seconds / 60 for seconds in own_seconds]
    found = learning_curves(runs, by_minutes=True)
    assert found.timesteps[0] == max(each[0] for each in minutes)
    assert found.timesteps[-1] == min(each[-1] for each in minutes)
    for curve, own, x in zip(found.curves, curves, minutes, strict=True):
        np.testing.assert_allclose(curve, np.interp(found.timesteps, x, own))
    # Runs of earlier versions have no times. The first evaluation of a slow run can be later than the last of another
    for name, seconds in {"old": None, "slow": own_seconds[1] + 1e6}.items():
        none: Group = learning_curves([runs[1], _with_times(runs[0], tmp_path / name, seconds)], by_minutes=True)
        assert len(none.timesteps) == 0 and none.curves.shape == (2, 0)
