"""``compare``: several agents with several seeds each, on the same test tasks."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from sb3_trmrl.analysis.comparison import (
    COLUMNS,
    Group,
    common_steps,
    interquartile_mean,
    plot_comparison,
    share_of_gap,
)
from sb3_trmrl.cli.options import argument_errors, evaluate_agent
from sb3_trmrl.cli.output import print_table, print_text, progress
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.trials.multi_episode_trial import trials_of
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import Run

#: Heading for the share of the gap between both references
_SHARE = "share of gap"


@one_thread()
def compare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Print a table of agents with intervals over seeds. Write it as CSV, with a plot."""
    folders = _folders(parser, options.agents)
    _check_references(parser, options, folders)
    register()
    with argument_errors(parser):
        runs = {name: [Run(folder) for folder in found] for name, found in folders.items()}
        env_id = _check_same_tasks([run for found in runs.values() for run in found], options)
        groups = _groups(runs, options)
        first, last = common_steps(groups.values())
    frame = _frame({name: group.between(first, last) for name, group in groups.items()}, options.lower, options.oracle)
    _print(frame, options)
    print(f"Area: mean return on validation tasks from step {first:.0f} to step {last:.0f}.")
    options.output.mkdir(parents=True, exist_ok=True)
    frame.to_csv(options.output / "comparison.csv", index_label="agent")
    plot_comparison(groups, options.output / "comparison.png", env_id, options.split)
    print(f"Wrote {options.output}/comparison.csv and .png")


def _folders(parser: argparse.ArgumentParser, agents: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders of runs by the name of the agent."""
    folders: dict[str, list[str]] = {}
    for agent in agents:
        name, separator, pattern = agent.partition("=")
        found = sorted(path for path in glob.glob(pattern) if Path(path).is_dir())
        if not separator or not found:
            parser.error(f"an agent must be given as NAME=FOLDERS with at least one folder, got {agent!r}")
        if name in folders:
            parser.error(f"each agent needs a different name, got {name!r} twice")
        folders[name] = found
    return folders


def _check_references(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Mapping[str, object]
) -> None:
    for option, reference in (("--lower", options.lower), ("--oracle", options.oracle)):
        if reference is not None and reference not in names:
            parser.error(f"{option} must be one of the agents {', '.join(names)}, got {reference!r}")
    if (options.lower is None) != (options.oracle is None):
        parser.error("--lower and --oracle must be given together")
    if options.lower is not None and options.lower == options.oracle:
        parser.error(f"--lower and --oracle must be two agents, got {options.lower!r} for both")


def _check_same_tasks(runs: Sequence[Run], options: argparse.Namespace) -> str:
    """Return the environment of all runs; raise ``ValueError`` if the runs do not have the same tasks."""
    first = runs[0]
    tasks: list[Any] = []
    for run in runs:
        if run.env_id != first.env_id:
            raise ValueError(
                f"all runs need the same environment: {first.folder} has {first.env_id}, {run.folder} has {run.env_id}"
            )
        kwargs = {**run.env_kwargs, **options.env_kwargs}
        own_tasks = Trials(run.env_id, options.n_tasks, 1, options.split, options.seed, kwargs).tasks
        tasks = tasks or own_tasks
        if own_tasks != tasks:
            raise ValueError(
                f"all runs need the same tasks, those of {first.folder} and {run.folder} differ: compare their "
                "env_kwargs"
            )
    return first.env_id


def _groups(runs: Mapping[str, Sequence[Run]], options: argparse.Namespace) -> dict[str, Group]:
    """Return learning curves and evaluations by the name of the agent."""
    groups = {name: _learning_curves(own) for name, own in runs.items()}
    pairs = [(name, run) for name, own in runs.items() for run in own]
    with progress("runs", len(pairs)) as after_run:
        for done, (name, run) in enumerate(pairs, start=1):
            for which, result in _evaluations(run, options).items():
                groups[name].results.setdefault(which, []).append(result)
            after_run(done)
    return groups


def _evaluations(run: Run, options: argparse.Namespace) -> dict[str, AdaptationResult]:
    """Evaluate the selected model, and the last one if training finished, with both kinds of actions."""
    results = {}
    for which in ("selected", "last") if run.last_model else ("selected",):
        agent = open_agent(run.folder, env_kwargs=options.env_kwargs, last=which == "last")
        for suffix, deterministic in (("", True), (", sampled", False)):
            results[which + suffix] = evaluate_agent(agent, options, deterministic=deterministic)
    return results


def _learning_curves(runs: Sequence[Run]) -> Group:
    """Return the learning curves of one agent, cut to the part that all its runs have."""
    curves = [_learning_curve(run) for run in runs]
    try:
        steps = curves[0].between(*common_steps(curves)).timesteps
    except ValueError as error:
        raise ValueError(f"{', '.join(str(run.folder) for run in runs)}: {error}") from None
    curves = [curve.at(steps) for curve in curves]
    successes = [curve.success_curves for curve in curves if curve.success_curves is not None]
    success_curves = np.concatenate(successes) if len(successes) == len(curves) else None
    return Group(steps, np.concatenate([curve.curves for curve in curves]), {}, success_curves)


def _learning_curve(run: Run) -> Group:
    evaluations = run.evaluations()
    if evaluations is None:
        raise FileNotFoundError(f"{run.folder} has no evaluations.npz: train with evaluation on")
    env = gym.make(run.env_id, **run.env_kwargs)
    trials = trials_of(env)
    env.close()
    timesteps, returns = evaluations
    curve = returns.mean(axis=1) / (trials.episodes_per_trial if trials else 1)
    successes = run.successes()
    if successes is None or len(successes) != len(timesteps):
        return Group(timesteps, curve[None], {})
    return Group(timesteps, curve[None], {}, successes.mean(axis=(1, 2))[None])


def _frame(groups: Mapping[str, Group], lower: str | None, oracle: str | None) -> pd.DataFrame:
    """Return the number of seeds of each agent, and all estimates with their intervals; NaN where unknown."""
    reports_success = any(group.success_rates(0) is not None for group in groups.values())
    rows = {}
    for name, group in groups.items():
        row: dict[str, float] = {"seeds": len(group.curves)}
        for heading, numbers in COLUMNS.items():
            if heading.startswith("success") and not reports_success:
                continue
            scores = numbers(group)
            middle, ends = (np.nan, (np.nan, np.nan)) if scores is None else interquartile_mean(scores)
            row |= dict(zip(_headings(heading), map(float, (middle, *ends)), strict=True))
        if lower is not None and oracle is not None:
            agent, worst, best = (groups[each].returns()[:, :, -1] for each in (name, lower, oracle))
            share, interval = share_of_gap(agent, worst, best)
            if name in (lower, oracle):  # 0 or 1 in every resample
                interval = (np.nan, np.nan)
            row |= dict(zip(_headings(_SHARE), (share, *interval), strict=True))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _headings(estimate: str) -> tuple[str, str, str]:
    """Return the names of an estimate and of the ends of its interval."""
    return estimate, f"{estimate}, low", f"{estimate}, high"


def _print(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a column for each agent, so that three agents fit into 80 characters."""
    title = f"{options.n_tasks} {options.split} tasks, {options.n_episodes} episodes of each: interquartile mean "
    title += "over seeds (95 % bootstrap interval over seeds)"
    rows = [["seeds", *(f"{seeds:.0f}" for seeds in frame["seeds"])]]
    for estimate in frame.columns[1:]:
        if not estimate.endswith((", low", ", high")):
            cells = [_cell(estimate, row) for _, row in frame.iterrows()]
            rows.append([estimate.replace("sampled", "stochastic"), *cells])
    print_table(title, ["", *map(str, frame.index)], rows, left=[0])
    if options.lower is not None:
        print_text(
            f"Share of gap: (agent - {options.lower}) / ({options.oracle} - {options.lower}) in the last episode, from "
            "means over seeds and tasks. Its interval is that of the whole ratio, over seeds and tasks."
        )


def _cell(estimate: str, row: pd.Series) -> str:
    """Return the estimate of one agent with its interval below."""
    factor, digits = (100, 0) if estimate.startswith("success") else (1, 2 if estimate == _SHARE else 1)
    middle, low, high = (f"{factor * row[name]:.{digits}f}" for name in _headings(estimate))
    if middle == "nan":
        return "-"
    unit = " %" if factor == 100 else ""
    return f"{middle}{unit}" if low == "nan" else f"{middle}{unit}\n({low} to {high})"
