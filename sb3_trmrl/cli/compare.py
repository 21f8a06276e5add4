"""``compare``: several agents, several seeds of each, on the same test tasks."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sb3_trmrl.analysis.comparison import (
    COLUMNS,
    Group,
    common_steps,
    interquartile_mean,
    plot_comparison,
    share_of_gap,
)
from sb3_trmrl.cli.agents import StoreValues, argument_errors, open_agent, output_folder, positive_int, seed
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.trials.held_out import SPLITS
from sb3_trmrl.trials.multi_episode_trial import trials_of
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import Run

#: Heading of the share of the way from the lower reference to the oracle
_SHARE = "share of gap"


@one_thread()
def compare(arguments: Sequence[str]) -> None:
    """
    Print a table of agents with intervals over seeds; write it as CSV, with a picture.

    :param arguments: See ``--help``
    """
    parser = argparse.ArgumentParser(
        prog="trmrl compare",
        description="Agents on the same test tasks, with intervals over training seeds.",
        epilog="example:\n  python -m sb3_trmrl compare 'TrMRL=logs/trmrl/HalfCheetahVel-v0_*' "
        "'RL2=logs/ppo_lstm/HalfCheetahVel-v0_*' --output comparison",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("agents", nargs="+", metavar="NAME=FOLDERS", help="name of an agent and its run folders")
    parser.add_argument("--n-tasks", type=positive_int, default=20, help="number of tasks (default: 20)")
    parser.add_argument("--n-episodes", type=positive_int, default=3, help="episodes of each task (default: 3)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which tasks (default: test)")
    parser.add_argument(
        "--env-kwargs",
        nargs="+",
        action=StoreValues,
        default={},
        metavar="NAME:VALUE",
        help="environment arguments, on top of those of each run, for example 'velocity_range:(3, 4)'",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the evaluation (default: 0)")
    parser.add_argument("--lower", metavar="NAME", help="the agent that is the lower reference")
    parser.add_argument("--oracle", metavar="NAME", help="the agent that is told the task")
    parser.add_argument("--output", type=output_folder, default=Path("comparison"), help="folder (default: comparison)")
    options = parser.parse_args(arguments)
    folders = _folders(parser, options.agents)
    _check_references(parser, options, folders)
    register()
    with argument_errors(parser):
        env_id = _check_same_tasks(folders, options)
        groups = _groups(folders, options)
        first, last = common_steps(groups.values())
    frame = _frame({name: group.between(first, last) for name, group in groups.items()}, options.lower, options.oracle)
    _print(frame, options)
    print(f"Area: mean return on validation tasks from step {first:.0f} to step {last:.0f}.")
    options.output.mkdir(parents=True, exist_ok=True)
    frame.to_csv(options.output / "comparison.csv", index_label="agent")
    plot_comparison(groups, options.output / "comparison.png", env_id, options.split)
    print(f"Wrote {options.output}/comparison.csv and .png")


def _folders(parser: argparse.ArgumentParser, agents: Sequence[str]) -> dict[str, list[str]]:
    """
    :param parser: Parser, for errors
    :param agents: What the user gave
    :return: Run folders by the agent's name
    """
    folders: dict[str, list[str]] = {}
    for agent in agents:
        name, separator, pattern = agent.partition("=")
        found = sorted(path for path in glob.glob(pattern) if Path(path).is_dir())
        if not separator or not found:
            parser.error(f"an agent is given as NAME=FOLDERS, with a folder or more: got {agent!r}")
        if name in folders:
            parser.error(f"each agent needs a name of its own, got {name!r} twice")
        folders[name] = found
    return folders


def _check_references(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Mapping[str, object]
) -> None:
    """
    :param parser: Parser, for errors
    :param options: What was asked for
    :param names: The agents
    """
    for reference in (options.lower, options.oracle):
        if reference is not None and reference not in names:
            option = "--lower" if reference == options.lower else "--oracle"
            parser.error(f"{option} must be one of the agents {', '.join(names)}, got {reference!r}")
    if (options.lower is None) != (options.oracle is None):
        parser.error("--lower and --oracle are needed together")
    if options.lower is not None and options.lower == options.oracle:
        parser.error(f"--lower and --oracle must be two agents, got {options.lower!r} for both")


def _check_same_tasks(folders: Mapping[str, Sequence[str]], options: argparse.Namespace) -> str:
    """
    :param folders: Run folders by the agent's name
    :param options: What was asked for
    :return: Id of the environment of all runs
    :raises ValueError: if two runs would be evaluated on other tasks
    """
    all_folders = [folder for runs in folders.values() for folder in runs]
    first, env_id = all_folders[0], ""
    tasks: list[Any] = []
    for folder in all_folders:
        run = Run(folder)
        if env_id and run.env_id != env_id:
            raise ValueError(f"all runs need one environment: {first} has {env_id}, {folder} has {run.env_id}")
        env_id, kwargs = run.env_id, {**run.env_kwargs, **options.env_kwargs}
        its_tasks = Trials(env_id, options.n_tasks, 1, options.split, options.seed, kwargs).tasks
        tasks = tasks or its_tasks
        if its_tasks != tasks:
            raise ValueError(
                f"all runs need the same tasks, {first} and {folder} have others: look at their env_kwargs"
            )
    return env_id


def _groups(folders: Mapping[str, Sequence[str]], options: argparse.Namespace) -> dict[str, Group]:
    """
    :param folders: Run folders by the agent's name
    :param options: What was asked for
    :return: Learning curves and evaluations
    """
    groups = {name: _learning(runs) for name, runs in folders.items()}
    with tqdm(total=sum(map(len, folders.values())), desc="runs") as bar:
        for name, runs in folders.items():
            for run in runs:
                for which, result in _evaluations(run, options).items():
                    groups[name].results.setdefault(which, []).append(result)
                bar.update()
    return groups


def _evaluations(folder: str, options: argparse.Namespace) -> dict[str, AdaptationResult]:
    """
    :param folder: Folder of a run
    :param options: What was asked for
    :return: Evaluations of its selected and last model, if training came to an end, likeliest and sampled actions
    """
    results = {}
    for which in ("selected", "last") if Run(folder).last_model else ("selected",):
        agent = open_agent(folder, env_kwargs=options.env_kwargs, last=which == "last")
        for deterministic in (True, False):
            results[which if deterministic else f"{which}, sampled"] = evaluate_adaptation(
                agent.model,
                agent.env_id,
                n_eval_tasks=options.n_tasks,
                n_eval_episodes=options.n_episodes,
                deterministic=deterministic,
                seed=options.seed,
                env_kwargs=agent.env_kwargs,
                split=options.split,
                vec_normalize=agent.vec_normalize,
            )
    return results


def _learning(folders: Sequence[str]) -> Group:
    """
    :param folders: Folders of runs of one agent
    :return: Their learning curves where all of them have one; no evaluations yet
    :raises FileNotFoundError: if a run was not evaluated while it trained
    """
    runs = [_learning_of(folder) for folder in folders]
    try:
        steps = runs[0].between(*common_steps(runs)).timesteps
    except ValueError as error:
        raise ValueError(f"{', '.join(folders)}: {error}") from None
    runs = [run.at(steps) for run in runs]
    successes = [run.success_curves for run in runs if run.success_curves is not None]
    success_curves = np.concatenate(successes) if len(successes) == len(runs) else None
    return Group(steps, np.concatenate([run.curves for run in runs]), {}, success_curves)


def _learning_of(folder: str) -> Group:
    """
    :param folder: Folder of a run
    :return: Its learning curves
    :raises FileNotFoundError: if it was not evaluated while it trained
    """
    run = Run(folder)
    evaluations = run.evaluations()
    if evaluations is None:
        raise FileNotFoundError(f"{folder} has no evaluations.npz: train with evaluation on")
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
    """
    :param groups: Runs by the agent's name
    :param lower: Name of the lower reference
    :param oracle: Name of the oracle
    :return: For each agent its number of seeds, and for each figure the estimate and the ends of its interval; NaN
        where it is not known
    """
    rows = {}
    for name, group in groups.items():
        row: dict[str, float] = {"seeds": len(group.curves)}
        for heading in _known(groups.values()):
            of_runs = COLUMNS[heading](group)
            middle, ends = (np.nan, (np.nan, np.nan)) if of_runs is None else interquartile_mean(of_runs)
            row |= dict(zip(_headings(heading), map(float, (middle, *ends)), strict=True))
        if lower is not None and oracle is not None:
            agent, worst, best = (groups[each].returns()[:, :, -1] for each in (name, lower, oracle))
            share, interval = share_of_gap(agent, worst, best)
            if name in (lower, oracle):  # whatever the resample, 0 or 1
                interval = (np.nan, np.nan)
            row |= dict(zip(_headings(_SHARE), (share, *interval), strict=True))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _known(groups: Iterable[Group]) -> list[str]:
    """
    :param groups: Runs of all agents
    :return: Headings of the table: success only where the environment tells it
    """
    tells = any(group.success_rates(0) is not None for group in groups)
    return [heading for heading in COLUMNS if tells or not heading.startswith("success")]


def _headings(figure: str) -> tuple[str, str, str]:
    """
    :param figure: Name of a figure
    :return: Names of its estimate and of the ends of its interval
    """
    return figure, f"{figure}, low", f"{figure}, high"


def _print(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """
    Figures are rows and agents columns, so that three agents fit into 80 characters.

    :param frame: What :func:`_frame` returned
    :param options: What was asked for
    """
    table = Table(
        title=f"{options.n_tasks} {options.split} tasks, {options.n_episodes} episodes of each: interquartile mean "
        "over seeds (95 % bootstrap interval over seeds)"
    )
    table.add_column("")
    for name in frame.index:
        table.add_column(str(name), justify="right")
    table.add_row("seeds", *(f"{seeds:.0f}" for seeds in frame["seeds"]))
    for figure in frame.columns[1:]:
        if not figure.endswith((", low", ", high")):
            table.add_row(figure, *(_cell(figure, row) for _, row in frame.iterrows()))
    console = Console()
    console.print(table)
    if options.lower is not None:
        console.print(
            f"Share of gap: of the way from {options.lower} to {options.oracle} in the last episode, a ratio of means "
            "over seeds and tasks; its interval is that of the whole ratio, over seeds and tasks.",
            highlight=False,
        )


def _cell(figure: str, row: pd.Series) -> str:
    """
    :param figure: Name of a figure
    :param row: Figures of an agent
    :return: Estimate, and the interval below
    """
    factor, digits = (100, 0) if figure.startswith("success") else (1, 2 if figure == _SHARE else 1)
    middle, low, high = (f"{factor * row[name]:.{digits}f}" for name in _headings(figure))
    if middle == "nan":
        return "-"
    unit = " %" if factor == 100 else ""
    return f"{middle}{unit}" if low == "nan" else f"{middle}{unit}\n({low} to {high})"
