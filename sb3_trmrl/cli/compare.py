"""``compare``: several agents, several seeds of each, on the same test tasks."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sb3_trmrl.analysis.comparison import COLUMNS, Group, interquartile_mean, plot_comparison, share_of_gap
from sb3_trmrl.cli.agents import load_agent
from sb3_trmrl.common.adaptation_result import AdaptationResult
from sb3_trmrl.common.evaluation import evaluate_adaptation
from sb3_trmrl.common.wrappers import trials_of
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import Run


def compare(arguments: Sequence[str]) -> None:
    """
    Print a table of agents with intervals over seeds; write it as CSV, with a picture of three panels.

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
    parser.add_argument("--n-tasks", type=int, default=20, help="number of test tasks (default: 20)")
    parser.add_argument("--n-episodes", type=int, default=3, help="episodes of each task (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the evaluation (default: 0)")
    parser.add_argument("--lower", metavar="NAME", help="the agent that is the lower reference")
    parser.add_argument("--oracle", metavar="NAME", help="the agent that is told the task")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="folder (default: comparison)")
    options = parser.parse_args(arguments)
    folders = _folders(parser, options.agents)
    for reference in (options.lower, options.oracle):
        if reference is not None and reference not in folders:
            parser.error(f"{reference!r} is not among the agents {', '.join(folders)}")
    if (options.lower is None) != (options.oracle is None):
        parser.error("--lower and --oracle are needed together")
    register()
    groups: dict[str, Group] = {}
    with tqdm(total=sum(map(len, folders.values())), desc="runs") as bar:
        for name, runs in folders.items():
            results: dict[str, list[AdaptationResult]] = {}
            for run in runs:
                for which, result in _evaluations(run, options).items():
                    results.setdefault(which, []).append(result)
                bar.update()
            groups[name] = Group(*_curves(runs), results)
    frame = _frame(groups, options.lower, options.oracle)
    _print(frame, options)
    options.output.mkdir(parents=True, exist_ok=True)
    frame.to_csv(options.output / "comparison.csv")
    plot_comparison(groups, options.output / "comparison.png", Run(next(iter(folders.values()))[0]).env_id)
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
        folders[name] = found
    return folders


def _evaluations(folder: str, options: argparse.Namespace) -> dict[str, AdaptationResult]:
    """
    :param folder: Folder of a run
    :param options: What was asked for
    :return: Evaluations of its selected and last model, likeliest and sampled actions
    """
    results = {}
    for which in ("selected", "last"):
        agent = load_agent(folder, last=which == "last")
        for deterministic in (True, False):
            results[which if deterministic else f"{which}, sampled"] = evaluate_adaptation(
                agent.model,
                agent.env_id,
                n_eval_tasks=options.n_tasks,
                n_eval_episodes=options.n_episodes,
                deterministic=deterministic,
                seed=options.seed,
                env_kwargs=agent.env_kwargs,
                vec_normalize=agent.vec_normalize,
            )
    return results


def _curves(folders: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """
    :param folders: Folders of runs
    :return: Steps, (K,), and mean return per episode on validation tasks, (runs, K), as far as all of them got
    :raises FileNotFoundError: if a run was not evaluated while it trained
    """
    found = []
    for folder in folders:
        run = Run(folder)
        evaluations = run.evaluations()
        if evaluations is None:
            raise FileNotFoundError(f"{folder} has no evaluations.npz: train with evaluation on")
        env = gym.make(run.env_id, **run.env_kwargs)
        trials = trials_of(env)
        env.close()
        timesteps, returns = evaluations
        found.append((timesteps, returns.mean(axis=1) / (trials.episodes_per_trial if trials else 1)))
    steps = found[0][0]
    steps = steps[steps <= min(timesteps[-1] for timesteps, _ in found)]
    return steps, np.stack([np.interp(steps, timesteps, curve) for timesteps, curve in found])


def _frame(groups: dict[str, Group], lower: str | None, oracle: str | None) -> pd.DataFrame:
    """
    :param groups: Runs by the agent's name
    :param lower: Name of the lower reference
    :param oracle: Name of the oracle
    :return: For each agent its number of seeds, and for each figure the estimate and the ends of its interval
    """
    rows = {}
    for name, group in groups.items():
        row: dict[str, float] = {"seeds": len(group.curves)}
        for heading, numbers in COLUMNS.items():
            middle, (low, high) = interquartile_mean(numbers(group))
            row |= {heading: float(middle), f"{heading}, low": float(low), f"{heading}, high": float(high)}
        if lower is not None and oracle is not None:
            agent, worst, best = (groups[each].returns()[:, :, -1] for each in (name, lower, oracle))
            share, (low, high) = share_of_gap(agent, worst, best)
            row |= {"share of gap": share, "share of gap, low": low, "share of gap, high": high}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _print(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """
    :param frame: What :func:`_frame` returned
    :param options: What was asked for
    """
    headings = [column for column in frame.columns if not column.endswith((", low", ", high"))]
    table = Table(
        title=f"{options.n_tasks} test tasks, {options.n_episodes} episodes of each: interquartile mean over seeds "
        "(95 % bootstrap interval over seeds)"
    )
    table.add_column("agent")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, row in frame.iterrows():
        cells = [f"{row['seeds']:.0f}"]
        for heading in headings[1:]:
            digits = 2 if heading == "share of gap" else 1
            low, high = row[f"{heading}, low"], row[f"{heading}, high"]
            interval = "" if np.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})"
            cells.append(f"{row[heading]:.{digits}f}{interval}")
        table.add_row(str(name), *cells)
    console = Console()
    console.print(table)
    if options.lower is not None:
        console.print(
            f"Share of gap: of the way from {options.lower} to {options.oracle} in the last episode; its interval is "
            "that of the whole ratio, over seeds and tasks."
        )
