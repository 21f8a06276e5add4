"""``evaluate``: the return of an agent in each episode of a trial on new tasks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sb3_trmrl.analysis.adaptation import plot_adaptation
from sb3_trmrl.cli.options import (
    N_ENVS,
    argument_errors,
    evaluate_agent,
    evaluation_arguments,
    fill_in_counts,
    load_agent_from,
    plays_trials,
)
from sb3_trmrl.cli.output import print_table, print_text, progress
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.metaworld_protocol import ProtocolResult, metaworld_protocol
from sb3_trmrl.sharing.agent import SUFFIX
from sb3_trmrl.zoo.agents import LoadedAgent
from sb3_trmrl.zoo.runs import BEST_MODEL

#: Number of episodes that MetaWorld's protocol evaluates, the last ones of each task
_N_EVALUATED = 3


@one_thread()
def evaluate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Print the return in each episode with intervals over tasks. Write it as CSV, NPZ and PNG."""
    in_protocol = options.protocol is not None
    counts = (10, 10 + _N_EVALUATED) if in_protocol else (20, 6)
    with argument_errors(parser):
        agent = load_agent_from(options)
        other_counts = fill_in_counts(options, plays_trials(agent), *counts)
        if in_protocol and options.n_episodes <= _N_EVALUATED:
            parser.error(f"--n-episodes must be above {_N_EVALUATED} with --protocol, got {options.n_episodes}")
        result = (_play_protocol if in_protocol else _play_trials)(agent, options)
    folder = options.output or agent.folder
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(result, ProtocolResult):
        path = folder / f"{_stem('metaworld_protocol', agent, options, other_counts)}.csv"
        _print_protocol(result).to_csv(path, index=False)
        print(f"Wrote {path}")
        return
    _print_adaptation(result)
    stem = folder / _stem("adaptation", agent, options, other_counts)
    result.save(f"{stem}.npz")
    result.to_frame().to_csv(f"{stem}.csv", index=False)
    if result.unit == "tasks":  # a single mean is not worth a plot
        plot_adaptation({agent.env_id: result}, f"{stem}.png")
    print(f"Wrote {stem}.npz{', .csv and .png' if result.unit == 'tasks' else ' and .csv'}")


def _stem(name: str, agent: LoadedAgent, options: argparse.Namespace, other_counts: Mapping[str, int]) -> str:
    """Return the name of the files. It includes all settings other than the default, so that each has its own files."""
    path = Path(options.model)
    parts = [
        (path.stem, path.suffix in (".zip", SUFFIX) and path.name != BEST_MODEL),
        ("last", options.last),
        ("sampled", options.sampled),
        (f"seed={options.seed}", options.seed != 0),
        *((f"{key}={number}", True) for key, number in other_counts.items()),
        (agent.env_id, options.env is not None),
        *((f"{key}={value}", True) for key, value in options.env_kwargs.items()),
    ]
    text = "_".join([name, options.split, *(part for part, is_other in parts if is_other)])
    return re.sub(r"[^\w.,=()\[\]-]", "", text)


def _play_trials(agent: LoadedAgent, options: argparse.Namespace) -> AdaptationResult:
    with progress("tasks" if plays_trials(agent) else "episodes", options.n_tasks) as after_task:
        return evaluate_agent(agent, options, deterministic=not options.sampled, n_envs=N_ENVS, after_task=after_task)


def _play_protocol(agent: LoadedAgent, options: argparse.Namespace) -> ProtocolResult:
    with progress("tasks", None) as after_task:
        return metaworld_protocol(
            env_id=agent.env_id,
            n_goals=options.n_tasks,
            n_adaptation_episodes=options.n_episodes - _N_EVALUATED,
            n_evaluation_episodes=_N_EVALUATED,
            deterministic=not options.sampled,
            n_envs=N_ENVS,
            after_task=after_task,
            **evaluation_arguments(agent, options),
        )


def _print_protocol(result: ProtocolResult) -> pd.DataFrame:
    """Print a row for each class, and return the table with the mean of all classes in its last row."""
    columns = {"success": result.success_per_class, "return": result.return_per_class}
    frame = pd.DataFrame(columns).rename_axis("class").reset_index()
    frame.loc[len(frame)] = ["mean of classes", result.mean_success, result.mean_return]
    adaptation = result.adaptation
    title = f"{adaptation.env_id}: {len(adaptation.tasks)} tasks ({adaptation.split}), "
    title += f"last {result.n_evaluated} of {adaptation.returns.shape[1]} episodes"
    rows = [[str(row[0]), f"{100 * row[1]:.1f} %", f"{row[2]:.1f}"] for row in frame.itertuples(index=False)]
    caption = "Success at any step; return until the first success."
    print_table(title, list(frame.columns), rows, left=[0], caption=caption)
    return frame


def _print_adaptation(result: AdaptationResult) -> None:
    """Print a row for each episode of a trial, or one row for all episodes of an environment without tasks."""
    kind = "deterministic" if result.deterministic else "stochastic"
    in_trials = result.unit == "tasks"
    header = ["episode" if in_trials else "", "mean return", f"95 % interval over {result.unit}", "mean length"]
    means, lengths = result.mean_returns, result.lengths.mean(axis=0)
    rows = [
        [
            f"{index + 1}" if in_trials else "per episode",
            f"{means[index]:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{lengths[index]:.0f}",
        ]
        for index, (low, high) in enumerate(result.interval())
    ]
    if result.success_rates is not None:
        header.append("success")
        rows = [[*row, f"{100 * rate:.0f} %"] for row, rate in zip(rows, result.success_rates, strict=True)]
    subject = f"{len(result.tasks)} {result.unit}{f' ({result.split})' if in_trials else ''}"
    print_table(f"{result.env_id}: {subject}, {kind} actions", header, rows)
    print_text(result.tasks_seen_in_training())
