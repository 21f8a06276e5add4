"""``evaluate``: how an agent does in each episode of a trial on new tasks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sb3_trmrl.analysis.adaptation import plot_adaptation
from sb3_trmrl.cli.agents import (
    DEMO,
    N_ENVS,
    LoadedAgent,
    agent_of,
    agent_parser,
    argument_errors,
    output_folder,
    positive_int,
)
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.evaluation.metaworld_protocol import ProtocolResult, metaworld_protocol
from sb3_trmrl.sharing.agent import SUFFIX
from sb3_trmrl.trials.held_out import SPLITS
from sb3_trmrl.zoo.runs import BEST_MODEL

#: Episodes that count in MetaWorld's protocol, the last ones of each task
_N_EVALUATED = 3


@one_thread()
def evaluate(arguments: Sequence[str]) -> None:
    """
    Print returns by episode with intervals over tasks; write them as CSV, NPZ and PNG.

    :param arguments: See ``--help``
    """
    parser = agent_parser("evaluate", "Adaptation to new tasks, episode by episode.", f"{DEMO} --n-episodes 3")
    parser.add_argument(
        "--protocol",
        choices=["metaworld"],
        help=f"metaworld: success by class, in the last {_N_EVALUATED} episodes of some tasks of each class",
    )
    parser.add_argument(
        "--n-tasks", type=positive_int, help="number of tasks (default: 20; with --protocol, 10 of each class)"
    )
    parser.add_argument(
        "--n-episodes", type=positive_int, help="episodes of each task (default: 6; with --protocol, 13)"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="which tasks (default: test)")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the likeliest ones")
    parser.add_argument("--output", type=output_folder, help="folder for the files, by default that of the agent")
    options = parser.parse_args(arguments)
    in_protocol = options.protocol is not None
    options.n_tasks = options.n_tasks or (10 if in_protocol else 20)
    options.n_episodes = options.n_episodes or (10 + _N_EVALUATED if in_protocol else 6)
    if in_protocol and options.n_episodes <= _N_EVALUATED:
        parser.error(f"--n-episodes must be above {_N_EVALUATED} with --protocol, got {options.n_episodes}")
    with argument_errors(parser):
        agent = agent_of(options)
        result = (_protocol if in_protocol else _adaptation)(agent, options)
    folder = options.output or agent.folder
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(result, ProtocolResult):
        frame = print_protocol(result)
        path = folder / f"{_stem('metaworld_protocol', agent, options)}.csv"
        frame.to_csv(path, index=False)
        print(f"Wrote {path}")
        return
    print_adaptation(result)
    stem = folder / _stem("adaptation", agent, options)
    result.save(f"{stem}.npz")
    result.to_frame().to_csv(f"{stem}.csv", index=False)
    plot_adaptation({agent.env_id: result}, f"{stem}.png")
    print(f"Wrote {stem}.npz, .csv and .png")


def _stem(name: str, agent: LoadedAgent, options: argparse.Namespace) -> str:
    """
    :param name: What was evaluated
    :param agent: Agent
    :param options: What was asked for
    :return: Name of the files, which tells what is not by default, so that no evaluation replaces another kind's
    """
    path = Path(options.model)
    parts = [
        (path.stem, path.suffix in (".zip", SUFFIX) and path.name != BEST_MODEL),
        ("last", options.last),
        ("sampled", options.sampled),
        (f"seed={options.seed}", options.seed != 0),
        (agent.env_id, options.env is not None),
        *((f"{key}={value}", True) for key, value in options.env_kwargs.items()),
    ]
    text = "_".join([name, options.split, *(part for part, is_other in parts if is_other)])
    return re.sub(r"[^\w.,=()\[\]-]", "", text)


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """
    :param total: Number of tasks
    :return: To be called with the number of those that are done
    """
    with tqdm(total=total, desc="tasks") as bar:
        yield lambda done: bar.update(done - bar.n)


def _adaptation(agent: LoadedAgent, options: argparse.Namespace) -> AdaptationResult:
    """
    :param agent: Agent
    :param options: What was asked for
    :return: Every reward
    """
    with _bar(options.n_tasks) as after_task:
        return evaluate_adaptation(
            agent.model,
            agent.env_id,
            n_eval_tasks=options.n_tasks,
            n_eval_episodes=options.n_episodes,
            deterministic=not options.sampled,
            seed=options.seed,
            env_kwargs=agent.env_kwargs,
            split=options.split,
            vec_normalize=agent.vec_normalize,
            n_envs=N_ENVS,
            after_task=after_task,
        )


def _protocol(agent: LoadedAgent, options: argparse.Namespace) -> ProtocolResult:
    """
    :param agent: Agent
    :param options: What was asked for
    :return: Success and return by class
    """
    with _bar(None) as after_task:
        return metaworld_protocol(
            agent.model,
            agent.env_id,
            n_goals=options.n_tasks,
            n_adaptation_episodes=options.n_episodes - _N_EVALUATED,
            n_evaluation_episodes=_N_EVALUATED,
            vec_normalize=agent.vec_normalize,
            deterministic=not options.sampled,
            seed=options.seed,
            env_kwargs=agent.env_kwargs,
            split=options.split,
            n_envs=N_ENVS,
            after_task=after_task,
        )


def print_protocol(result: ProtocolResult) -> pd.DataFrame:
    """
    :param result: What to print as a table, one row for each class
    :return: The table, with the mean of all classes in its last row
    """
    of_class = {"success": result.success_per_class, "return": result.return_per_class}
    frame = pd.DataFrame(of_class).rename_axis("class").reset_index()
    frame.loc[len(frame)] = ["mean of classes", result.mean_success, result.mean_return]
    adaptation = result.adaptation
    table = Table(
        title=f"{adaptation.env_id}: {len(adaptation.tasks)} tasks ({adaptation.split}), "
        f"last {result.n_evaluated} of {adaptation.returns.shape[1]} episodes",
        caption="Success at any step; return up to the first success.",
    )
    table.add_column("class")
    table.add_column("success", justify="right")
    table.add_column("return", justify="right")
    for row in frame.itertuples(index=False):
        table.add_row(str(row[0]), f"{100 * row[1]:.1f} %", f"{row[2]:.1f}")
    Console().print(table)
    return frame


def print_adaptation(result: AdaptationResult) -> None:
    """
    :param result: What to print as a table, one row for each episode
    """
    kind = "likeliest" if result.deterministic else "sampled"
    table = Table(title=f"{result.env_id}: {len(result.tasks)} tasks ({result.split}), {kind} actions")
    for name in ("episode", "mean return", "95 % interval over tasks", "mean length"):
        table.add_column(name, justify="right")
    if result.success_rates is not None:
        table.add_column("success", justify="right")
    interval = result.interval()
    for index, mean in enumerate(result.mean_returns):
        low, high = interval[index]
        row = [f"{index + 1}", f"{mean:.2f}", f"{low:.2f} to {high:.2f}", f"{np.mean(result.lengths[:, index]):.0f}"]
        if result.success_rates is not None:
            row.append(f"{100 * result.success_rates[index]:.0f} %")
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(result.tasks_seen_in_training())
