"""``evaluate``: how an agent does in each episode of a trial on new tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sb3_trmrl.analysis.adaptation import plot_adaptation
from sb3_trmrl.cli.agents import agent_of, agent_parser
from sb3_trmrl.common.adaptation_result import AdaptationResult
from sb3_trmrl.common.evaluation import evaluate_adaptation
from sb3_trmrl.common.trials import SPLITS


def evaluate(arguments: Sequence[str]) -> None:
    """
    Print returns by episode with intervals over tasks; write them as CSV, NPZ and PNG.

    :param arguments: See ``--help``
    """
    parser = agent_parser(
        "evaluate", "Adaptation to new tasks, episode by episode.", "logs/trmrl/HalfCheetahVel-v0_1 --n-episodes 3"
    )
    parser.add_argument("--n-tasks", type=int, default=20, help="number of tasks (default: 20)")
    parser.add_argument("--n-episodes", type=int, default=6, help="episodes of each task (default: 6)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which tasks (default: test)")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the likeliest ones")
    parser.add_argument("--output", type=Path, help="folder for the files, by default that of the run")
    options = parser.parse_args(arguments)
    agent = agent_of(options)
    with tqdm(total=options.n_tasks, desc="tasks") as bar:
        result = evaluate_adaptation(
            agent.model,
            agent.env_id,
            n_eval_tasks=options.n_tasks,
            n_eval_episodes=options.n_episodes,
            deterministic=not options.sampled,
            seed=options.seed,
            env_kwargs=agent.env_kwargs,
            split=options.split,
            vec_normalize=agent.vec_normalize,
            after_task=lambda done: bar.update(done - bar.n),
        )
    print_adaptation(result)
    folder = options.output or agent.folder
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"adaptation_{result.split}{'_sampled' if options.sampled else ''}"
    result.save(stem.with_suffix(".npz"))
    result.to_frame().to_csv(stem.with_suffix(".csv"), index=False)
    plot_adaptation({agent.env_id: result}, stem.with_suffix(".png"))
    print(f"Wrote {stem}.npz, .csv and .png")


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
