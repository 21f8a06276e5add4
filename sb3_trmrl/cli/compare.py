"""``compare``: several agents with several seeds each, on the same test tasks."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sb3_trmrl.analysis.comparison import (
    COLUMNS,
    Group,
    cell_text,
    common_steps,
    plot_comparison,
    table_of,
)
from sb3_trmrl.cli.options import argument_errors, evaluate_agent, fill_in_counts
from sb3_trmrl.cli.output import print_table, print_text, progress
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import Trials, episodes_per_trial
from sb3_trmrl.sharing.agent import SUFFIX, load_agent
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.learning_curves import environment_note, learning_curves
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import Run, import_packages


@one_thread()
def compare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Print a table of agents with intervals over seeds. Write it as CSV, with a plot."""
    paths = _paths(parser, options.agents)
    _check_references(parser, options, paths)
    register()
    with argument_errors(parser):
        import_packages(options.gym_packages)
        sources = {name: [_Source(path) for path in found] for name, found in paths.items()}
        env_id = _check_same_tasks([source for found in sources.values() for source in found], options)
        groups = _groups(sources, options)
        curves = [group for group in groups.values() if len(group.timesteps)]
        first, last = common_steps(curves) if curves else (0, 0)
    cut = {name: group.between(first, last) if len(group.timesteps) else group for name, group in groups.items()}
    frame = table_of(cut, COLUMNS, options.lower, options.oracle)
    _print(frame, options)
    note = environment_note({name: [source.env_kwargs for source in found] for name, found in sources.items()})
    if note:
        print_text(note)
    if curves:
        print(f"Area: mean return on validation {options.unit} from step {first:.0f} to step {last:.0f}.")
    options.output.mkdir(parents=True, exist_ok=True)
    frame.to_csv(options.output / "comparison.csv", index_label="agent")
    plot_comparison(groups, options.output / "comparison.png", env_id, options.split)
    print(f"Wrote {options.output}/comparison.csv and .png")


class _Source:
    """A run or an exported agent."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.run = Run(path) if self.path.is_dir() else None
        agent = self.run or load_agent(path)
        if agent.env_id is None:
            raise ValueError(f"{path} does not name its environment: export it with `env_id`")
        self.env_id: str = agent.env_id
        self.env_kwargs = agent.env_kwargs


def _paths(parser: argparse.ArgumentParser, agents: Sequence[str]) -> dict[str, list[str]]:
    """Return folders of runs, or files of exported agents, by the name of the agent."""
    paths: dict[str, list[str]] = {}
    for agent in agents:
        name, separator, pattern = agent.partition("=")
        found = sorted(path for path in glob.glob(pattern) if Path(path).is_dir() or path.endswith(SUFFIX))
        if not separator or not found:
            parser.error(
                f"an agent must be given as NAME=PATHS, with at least one folder of a run or exported agent "
                f"({SUFFIX}), got {agent!r}"
            )
        if len({Path(path).is_dir() for path in found}) > 1:
            parser.error(f"the paths of an agent must be all runs or all exported agents, got both for {agent!r}")
        if name in paths:
            parser.error(f"each agent needs a different name, got {name!r} twice")
        paths[name] = found
    return paths


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


def _check_same_tasks(sources: Sequence[_Source], options: argparse.Namespace) -> str:
    """Return the environment of all agents, after checking that they have the same tasks. Set the numbers of tasks."""
    first = sources[0]
    tasks: list[Any] = []
    for source in sources:
        if source.env_id != first.env_id:
            raise ValueError(
                f"all agents need the same environment: {first.path} has {first.env_id}, {source.path} has "
                f"{source.env_id}"
            )
        kwargs = {**source.env_kwargs, **options.env_kwargs}
        if source is first:
            in_trials = episodes_per_trial(source.env_id, kwargs) is not None
            fill_in_counts(options, in_trials, 20, 3)
            options.unit = "tasks" if in_trials else "episodes"
        own_tasks = Trials(source.env_id, options.n_tasks, 1, options.split, options.seed, kwargs).tasks
        tasks = tasks or own_tasks
        if repr(own_tasks) != repr(tasks):  # tasks may be arrays, which cannot be compared with !=
            raise ValueError(
                f"all agents need the same tasks, those of {first.path} and {source.path} differ: compare their "
                "env_kwargs"
            )
    return first.env_id


def _groups(sources: Mapping[str, Sequence[_Source]], options: argparse.Namespace) -> dict[str, Group]:
    """Return learning curves and evaluations by the name of the agent."""
    groups = {}
    for name, own in sources.items():
        runs = [source.run for source in own if source.run is not None]
        groups[name] = learning_curves(runs) if runs else Group(np.zeros(0), np.zeros((len(own), 0)), {})
    pairs = [(name, source) for name, own in sources.items() for source in own]
    with progress("agents", len(pairs)) as after_agent:
        for done, (name, source) in enumerate(pairs, start=1):
            for which, result in _evaluations(source, options).items():
                groups[name].results.setdefault(which, []).append(result)
            after_agent(done)
    return groups


def _evaluations(source: _Source, options: argparse.Namespace) -> dict[str, AdaptationResult]:
    """Evaluate the selected model, and the last one of a finished run, with both kinds of actions."""
    results = {}
    for which in ("selected", "last") if source.run and source.run.last_model else ("selected",):
        agent = open_agent(source.path, env_kwargs=options.env_kwargs, last=which == "last")
        for suffix, deterministic in (("", True), (", sampled", False)):
            results[which + suffix] = evaluate_agent(agent, options, deterministic=deterministic)
    return results


def _print(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a column for each agent, so that three agents fit into 80 characters."""
    of_each = f"{options.split} tasks, {options.n_episodes} episodes of each"
    title = f"{options.n_tasks} {of_each if options.unit == 'tasks' else 'episodes'}: interquartile mean "
    title += "over seeds (95 % bootstrap interval over seeds)"
    rows = [["seeds", *(f"{seeds:.0f}" for seeds in frame["seeds"])]]
    for estimate in frame.columns[1:]:
        if not estimate.endswith((", low", ", high")):
            cells = [cell_text(estimate, row, "\n") for _, row in frame.iterrows()]
            rows.append([estimate.replace("sampled", "stochastic"), *cells])
    print_table(title, ["", *map(str, frame.index)], rows, left=[0])
    if options.lower is not None:
        print_text(
            f"Share of gap: (agent - {options.lower}) / ({options.oracle} - {options.lower}) in the last episode, from "
            "means over seeds and tasks. Its interval is that of the whole ratio, over seeds and tasks."
        )
