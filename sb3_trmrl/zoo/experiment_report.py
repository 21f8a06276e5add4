"""The report of an experiment: tables, learning curves and pictures of the runs that are finished."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sb3_trmrl.analysis.ablations import Ablations, plot_ablations
from sb3_trmrl.analysis.comparison import Columns, Group, cell_text, common_steps, table_of
from sb3_trmrl.analysis.seeds import plot_testing, plot_training
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import episodes_per_trial
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.experiment_file import Experiment, Training
from sb3_trmrl.zoo.experiment_runs import (
    RESUMED_WITH,
    about_this_machine,
    is_finished,
    other_settings,
    record_of,
    run_folder,
)
from sb3_trmrl.zoo.experiment_settings import EVALUATIONS, ReportSettings
from sb3_trmrl.zoo.learning_curves import environment_note, learning_curves
from sb3_trmrl.zoo.runs import Run

#: The last three evaluations in headings
_IN_WORDS = {
    "selected, sampled": "stochastic",
    "last": "last model",
    "last, sampled": "last model, stochastic",
}
#: Lowest number of tasks that are played at the same time. Where hundreds are tested, they are cheap, and it is larger
_N_ENVS = 20


class _Evaluation(NamedTuple):
    """One evaluation of one run, and the file that keeps its result."""

    run: Path
    file: Path
    arguments: dict[str, Any]  # of evaluate_adaptation
    env_kwargs: dict[str, Any]  # added to those of the run
    last: bool


class _Trained(NamedTuple):
    """A finished run and its evaluations by name."""

    training: Training
    run: Run
    evaluations: dict[str, _Evaluation]


def write_report(
    experiment: Experiment,
    folder: Path,
    jobs: int = 1,
    progress: Callable[[str, int], Any] | None = None,
) -> str:
    """
    Evaluate the finished runs and write ``report.md``, tables, curves and pictures.

    :param experiment: The experiment
    :param folder: Folder to write to
    :param jobs: Number of processes that evaluate
    :param progress: Called with a name and the number of evaluations; returns a context manager that yields a function
        to call with the number of finished ones
    :return: The content of ``report.md``
    :raises FileNotFoundError: if no run is finished
    :raises ValueError: if an earlier report in the folder has results of runs that are missing now
    """
    trained = [_trained(each, experiment.report) for each in experiment.trainings if is_finished(each)]
    if not trained:
        raise FileNotFoundError(f"no run of {experiment.file} is finished: train with `trmrl experiment run`")
    _check_earlier_report(experiment, trained, folder)
    _evaluate([each for one in trained for each in one.evaluations.values()], jobs, progress)
    folder.mkdir(parents=True, exist_ok=True)
    header = _header(experiment, trained)
    parts = [f"<!--\n{header}\n-->", f"# {experiment.name}"]
    tested = []
    for environment in dict.fromkeys(one.training.environment for one in trained):
        own = [one for one in trained if one.training.environment == environment]
        parts += _write_environment(experiment, environment, own, folder, header)
        tested += [_tests_of(one) for one in own]
    parts += _missing(experiment, trained)
    curves = [_curves_of(training) for training in experiment.trainings]
    _write_csv(pd.concat(curves, ignore_index=True), folder / "curves.csv", header)
    _write_csv(pd.concat(tested, ignore_index=True), folder / "tests.csv", header)
    text = "\n\n".join(parts) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def _check_earlier_report(experiment: Experiment, trained: Sequence[_Trained], folder: Path) -> None:
    """Refuse to overwrite results whose runs have been deleted, are on another machine or are no longer in the file."""
    lost = _runs_in(folder / "tests.csv") - {one.training.name for one in trained}
    # Runs that were stopped have curves too
    lost |= _runs_in(folder / "curves.csv") - {each.name for each in experiment.trainings if record_of(each)}
    if lost:
        raise ValueError(
            f"the report in {folder} has results of runs that are not in {experiment.file} or not in the folder of the "
            f"runs: {', '.join(sorted(lost))}. Write to another folder, or delete the earlier report"
        )


def _runs_in(file: Path) -> set[str]:
    """Return the names of the runs that a table of an earlier report has, none if there is no table."""
    if not file.is_file():
        return set()
    with file.open(encoding="utf-8", newline="") as lines:
        # Not with pandas, which also takes "#" and "None" in the name of an agent for a comment and for a missing value
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {f"{row['environment']}/{row['agent']}/{row['seed']}" for row in rows}


# -- Evaluation -------------------------------------------------------------------------------------------------------


def _trained(training: Training, settings: ReportSettings) -> _Trained:
    folder = run_folder(training)
    assert folder is not None
    run = Run(folder)
    planned: dict[str, tuple[bool, bool, dict[str, Any]]] = {key: (*each, {}) for key, each in EVALUATIONS.items()}
    planned |= {name: (True, False, env_kwargs) for name, env_kwargs in settings.other_tasks.items()}
    evaluations = {}
    for name, (deterministic, last, env_kwargs) in planned.items():
        in_trials = episodes_per_trial(run.env_id, {**run.env_kwargs, **env_kwargs}) is not None
        arguments = {
            "n_eval_tasks": settings.n_tasks,
            "n_eval_episodes": settings.n_episodes if in_trials else 1,
            "split": settings.split,
            "deterministic": deterministic,
        }
        about = json.dumps([arguments, env_kwargs, last], sort_keys=True, default=str)
        file = training.folder / f"test_{hashlib.sha256(about.encode()).hexdigest()[:16]}.npz"
        evaluations[name] = _Evaluation(folder, file, arguments, env_kwargs, last)
    return _Trained(training, run, evaluations)


def _evaluate(evaluations: Sequence[_Evaluation], jobs: int, progress: Callable[[str, int], Any] | None) -> None:
    """Make the evaluations whose results are not known yet, in several processes."""
    missing = [each for each in evaluations if not _is_known(each)]
    if not missing:
        return
    with ExitStack() as stack:
        after = stack.enter_context(progress("evaluations", len(missing))) if progress else lambda _: None
        if min(jobs, len(missing)) > 1:
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            done: Iterator[None] = pool.map(_make, missing)
        else:
            done = map(_make, missing)
        for number, _ in enumerate(done, start=1):
            after(number)


def _is_known(evaluation: _Evaluation) -> bool:
    models = [path for path in evaluation.run.rglob("*.zip") if path.parent.name != "checkpoints"]
    return evaluation.file.is_file() and evaluation.file.stat().st_mtime > max(path.stat().st_mtime for path in models)


@one_thread()
def _make(evaluation: _Evaluation) -> None:
    agent = open_agent(evaluation.run, env_kwargs=evaluation.env_kwargs, last=evaluation.last)
    result = evaluate_adaptation(
        agent.model,
        agent.env_id,
        env_kwargs=agent.env_kwargs,
        vec_normalize=agent.vec_normalize,
        n_envs=max(_N_ENVS, evaluation.arguments["n_eval_tasks"] // 10),
        **evaluation.arguments,
    )
    unfinished = evaluation.file.with_suffix(".tmp")
    result.save(unfinished)
    unfinished.replace(evaluation.file)


# -- Tables and pictures ----------------------------------------------------------------------------------------------


def _write_environment(
    experiment: Experiment, environment: str, trained: Sequence[_Trained], folder: Path, header: str
) -> list[str]:
    """Write the files of one environment, and return its part of the report."""
    names = [name for name in experiment.agents(environment) if any(one.training.agent == name for one in trained)]
    by_agent = {name: [one for one in trained if one.training.agent == name] for name in names}
    groups = {name: _group(own) for name, own in by_agent.items()}
    settings = experiment.report
    references = (settings.lower, settings.oracle)
    has_both = all(reference in groups for reference in references)
    frame = table_of(groups, _columns(groups, settings), *(references if has_both else (None, None)))
    frame.insert(1, "steps", [max(one.training.n_timesteps for one in own) for own in by_agent.values()])
    frame.insert(2, "minutes", [_minutes(own) for own in by_agent.values()])
    stem = re.sub(r"[^\w.-]", "_", environment)
    _write_csv(frame.rename_axis("agent").reset_index(), folder / f"table_{stem}.csv", header)
    parts = [f"## {environment}", _markdown(frame), _explanation(trained[0], settings)]
    note = environment_note({name: [one.run.env_kwargs for one in own] for name, own in by_agent.items()})
    parts += [note] if note else []
    varied = experiment.varied[environment]
    variants = {name for (agent, _), panels in varied.items() for name in panels.values() if name != agent}
    drawn = {name: group for name, group in groups.items() if name not in variants} or groups
    timed = {name: learning_curves([one.run for one in by_agent[name]], by_minutes=True) for name in drawn}
    plot_training(drawn, timed, folder / f"training_{stem}.png", environment)
    plot_testing(drawn, folder / f"adaptation_{stem}.png", environment)
    pictures = {"Learning curves": f"training_{stem}.png", "Adaptation": f"adaptation_{stem}.png"}
    for name in settings.other_tasks:
        pictures[f"Adaptation, {name}"] = picture = f"adaptation_{stem}_{re.sub(r'[^a-zA-Z0-9.-]', '_', name)}.png"
        plot_testing(drawn, folder / picture, f"{environment}, {name}", name)
    for agent, found in _ablations(experiment, environment, by_agent).items():
        pictures[f"Ablations of {agent}"] = picture = f"ablations_{stem}_{re.sub(r'[^a-zA-Z0-9.-]', '_', agent)}.png"
        plot_ablations(found, folder / picture)
    return [*parts, *(f"![{name}]({picture})" for name, picture in pictures.items())]


def _group(trained: Sequence[_Trained]) -> Group:
    """Return the runs of one agent."""
    group = learning_curves([one.run for one in trained])
    for one in trained:
        for name, evaluation in one.evaluations.items():
            group.results.setdefault(name, []).append(AdaptationResult.load(evaluation.file))
    return group


def _columns(groups: Mapping[str, Group], settings: ReportSettings) -> Columns:
    """Return what the table estimates: each episode, the last one with stochastic actions, and on other tasks."""
    n_episodes = next(iter(groups.values())).returns().shape[2]

    def returns(episode: int, which: str, group: Group) -> np.ndarray | None:
        return group.mean_returns(episode, which)

    def success(episode: int, group: Group) -> np.ndarray | None:
        return group.success_rates(episode)

    last = n_episodes - 1
    columns = {f"episode {1 + index}": partial(returns, index, "selected") for index in range(n_episodes)}
    columns |= {f"episode {1 + last}, {_IN_WORDS[each]}": partial(returns, last, each) for each in _IN_WORDS}
    columns |= {f"success, episode {1 + index}": partial(success, index) for index in sorted({0, last})}
    columns |= {f"{name}, episode {1 + last}": partial(returns, last, name) for name in settings.other_tasks}
    return columns


def _minutes(trained: Sequence[_Trained]) -> float:
    """Return the mean processor time of a run with its evaluations, NaN if it is not known."""
    times = [one.run.history() for one in trained]
    parts = ("seconds", "evaluation_seconds")
    return float(np.mean([sum(each[part][-1] if part in each else np.nan for part in parts) for each in times]) / 60)


def _markdown(frame: pd.DataFrame) -> str:
    """Return the table with a row for each agent, ready to be pasted into a page."""
    estimates = [name for name in frame.columns if f"{name}, low" in frame.columns]
    lines = [["agent", *estimates, "seeds", "steps", "minutes"]]
    for name, row in frame.iterrows():
        # At least two digits, also for runs of seconds
        minutes = "-" if np.isnan(row["minutes"]) else f"{row['minutes']:.{1 if row['minutes'] >= 1 else 2}f}"
        cells = [cell_text(estimate, row) for estimate in estimates]
        lines.append([str(name).replace("|", "\\|"), *cells, f"{row['seeds']:.0f}", f"{row['steps']:,.0f}", minutes])
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def _explanation(first: _Trained, settings: ReportSettings) -> str:
    """Return the text below a table."""
    result = AdaptationResult.load(first.evaluations["selected"].file)
    subject = f"{len(result.tasks)} {f'{settings.split} ' if result.unit == 'tasks' else ''}{result.unit}"
    text = f"Returns of an episode: interquartile mean over seeds (95 % bootstrap interval over seeds), {subject}, "
    text += "deterministic actions and the model selected on validation tasks where nothing else is said. "
    text += "Minutes: processor time of a run with its evaluations, mean over seeds."
    if settings.lower is not None:
        text += f" Share of gap: (agent - {settings.lower}) / ({settings.oracle} - {settings.lower}), last episode."
    return text


def _ablations(
    experiment: Experiment, environment: str, by_agent: Mapping[str, Sequence[_Trained]]
) -> dict[str, Ablations]:
    """Return the learning curves for each value of each varied hyperparameter, by the agent."""
    found: dict[str, dict[str, dict[Any, Group]]] = {}
    for (agent, path), panels in experiment.varied[environment].items():
        trained = {value: by_agent[name] for value, name in panels.items() if name in by_agent}
        if trained:
            curves = {value: learning_curves([one.run for one in own]) for value, own in trained.items()}
            found.setdefault(agent, {})[path.rpartition(".")[2]] = curves
    results = {}
    for agent, settings in found.items():
        every = [group for values in settings.values() for group in values.values()]
        steps = every[0].between(*common_steps(every)).timesteps
        at_steps = {
            setting: {value: group.at(steps).curves for value, group in values.items()}
            for setting, values in settings.items()
        }
        results[agent] = Ablations(environment, steps, at_steps)
    return results


# -- Single runs ------------------------------------------------------------------------------------------------------


def _curves_of(training: Training) -> pd.DataFrame:
    """Return a row for each evaluation during training, also of a run that is not finished."""
    folder = run_folder(training)
    run = None if folder is None else Run(folder)
    evaluations = None if run is None else run.returns_per_episode()
    if run is None or evaluations is None:
        return pd.DataFrame()
    steps, returns = evaluations
    history = run.history()
    columns = {**_about(training), "finished": is_finished(training), "step": steps}
    for name in ("seconds", "evaluation_seconds"):
        columns[name.replace("_", " ")] = np.round(history.get(name, np.full(len(steps), np.nan)), 1)
    columns["return"] = np.round(returns.mean(axis=1), 4)
    for key, name in (("returns", "return"), ("successes", "success")):
        if key in history:
            means = history[key].mean(axis=1)
            columns |= {f"{name}, episode {index + 1}": np.round(each, 4) for index, each in enumerate(means.T)}
    return pd.DataFrame(columns)


def _tests_of(one: _Trained) -> pd.DataFrame:
    """Return a row for each evaluation after training and each of its episodes."""
    frames = []
    for name, evaluation in one.evaluations.items():
        result = AdaptationResult.load(evaluation.file)
        columns = _about(one.training)
        columns["tasks"] = result.split if name in EVALUATIONS else name
        columns["model"] = "last" if evaluation.last else "selected"
        columns["actions"] = "deterministic" if result.deterministic else "stochastic"
        columns |= {"episode": np.arange(1, len(result.mean_returns) + 1), "return": np.round(result.mean_returns, 4)}
        if result.success_rates is not None:
            columns["success"] = np.round(result.success_rates, 4)
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _about(training: Training) -> dict[str, Any]:
    return {"environment": training.environment, "agent": training.agent, "seed": training.seed}


# -- Text -------------------------------------------------------------------------------------------------------------


def _header(experiment: Experiment, trained: Sequence[_Trained]) -> str:
    """Return the command, the versions and the machine, of the report and of the runs."""
    records = [record_of(one.training) or {} for one in trained]
    machines = [json.dumps(record.get("with")) for record in records]
    others = [json.dumps(machine) for record in records for machine in record.get(RESUMED_WITH, ())]
    lines = [f"Written by `trmrl experiment report {experiment.file}` with {_in_words(about_this_machine())}"]
    for machine in dict.fromkeys(machines):
        lines.append(f"{machines.count(machine)} runs were trained with {_in_words(json.loads(machine))}")
    for machine in dict.fromkeys(others):
        lines.append(f"{others.count(machine)} of them were resumed and trained with {_in_words(json.loads(machine))}")
    return "\n".join(lines)


def _in_words(machine: Mapping[str, Any] | None) -> str:
    return "unknown versions" if machine is None else ", ".join(f"{key} {value}" for key, value in machine.items())


def _missing(experiment: Experiment, trained: Sequence[_Trained]) -> list[str]:
    """Return which runs are not part of the report, and which do not agree with the file."""
    finished = {one.training.name for one in trained}
    missing = [each.name for each in experiment.trainings if each.name not in finished]
    other = {one.training.name: other_settings(one.training) for one in trained}
    parts = [f"{len(missing)} runs are not finished and not part of this: {', '.join(missing)}."] if missing else []
    return parts + [f"{name} was trained with {settings}." for name, settings in other.items() if settings]


def _write_csv(frame: pd.DataFrame, path: Path, header: str) -> None:
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    path.write_text(comment + frame.to_csv(index=False), encoding="utf-8")
