"""``analyze``: the paper's analyses of a trained agent, as tables and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sb3_trmrl.analysis.attention import attention_map, plot_attention
from sb3_trmrl.analysis.consensus import consensus, plot_consensus
from sb3_trmrl.analysis.online import online_adaptation, plot_online_adaptation, plot_targets
from sb3_trmrl.analysis.refinement import plot_refinement, refinement
from sb3_trmrl.analysis.traces import TracedSteps, traced_steps
from sb3_trmrl.analysis.working_memories import plot_working_memories, working_memories
from sb3_trmrl.cli.agents import (
    DEMO,
    N_ENVS,
    LoadedAgent,
    StoreValues,
    agent_of,
    agent_parser,
    argument_errors,
    output_folder,
    positive_int,
    seed,
)
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.transformer_ppo import TrMRLPolicy
from sb3_trmrl.trials.held_out import SPLITS
from sb3_trmrl.zoo.ablations import GRID, ablation_runs, plot_ablations, read_ablations, train_ablations


@dataclass(frozen=True)
class _Job:
    """
    One analysis of one agent.

    :param agent: The agent
    :param options: What the user asked for, ``n_tasks`` and ``n_episodes`` among it
    :param stem: Path of the files to write, without their suffix
    :param after_task: To be called with the number of finished tasks
    """

    agent: LoadedAgent
    options: argparse.Namespace
    stem: Path
    after_task: Callable[[int], None]

    @property
    def title(self) -> str:
        """What pictures are of"""
        return self.agent.env_id

    def trials(self) -> Trials:
        """
        :return: The trials that the agent is to play
        """
        options = self.options
        kwargs = self.agent.env_kwargs
        return Trials(self.agent.env_id, options.n_tasks, options.n_episodes, options.split, options.seed, kwargs)

    def steps(self, trials: Trials) -> Iterator[TracedSteps]:
        """
        :param trials: Trials
        :return: What the agent does and remembers in them
        """
        return traced_steps(
            self.agent.model,  # type: ignore[arg-type]
            trials,
            deterministic=not self.options.sampled,
            vec_normalize=self.agent.vec_normalize,
            n_envs=N_ENVS,
            after_task=self.after_task,
        )

    def picture(self) -> Path:
        """
        :return: File of the picture
        """
        return self.stem.with_suffix(".png")


class _Found(NamedTuple):
    """
    What an analysis found.

    :param frame: For the CSV file
    :param table: What of it is printed
    :param text: What is said below
    :param further: Names of the files written besides CSV and PNG
    """

    frame: pd.DataFrame
    table: pd.DataFrame
    text: str
    further: tuple[str, ...] = ()


def _online(job: _Job) -> _Found:
    options, agent = job.options, job.agent
    result = evaluate_adaptation(
        agent.model,
        agent.env_id,
        n_eval_tasks=options.n_tasks,
        n_eval_episodes=1,
        deterministic=not options.sampled,
        seed=options.seed,
        env_kwargs=agent.env_kwargs,
        split=options.split,
        vec_normalize=agent.vec_normalize,
        info_keys=_velocities(job.trials()),
        n_envs=N_ENVS,
        after_task=job.after_task,
    )
    found = online_adaptation(result, options.window)
    targets = None
    further = []
    if agent.env_id == "HalfCheetahVel-v0":
        targets = {"x_velocity": float(np.mean(result.tasks))}
        further.append("online_tasks.png")
        plot_targets(result, "x_velocity", job.stem.with_name(further[0]), f"{job.title}: frozen weights, new tasks")
    plot_online_adaptation(found, job.picture(), f"{job.title}: online adaptation", targets)
    text = f"Reward per step: first level {found.first_level:.3f}, final level {found.final_level:.3f}. "
    if found.adapted_at is None:
        text += "The agent does not come, and stay, within 5 % of the final level."
    else:
        text += f"Within 5 % of the final level from step {found.adapted_at} on, smoothed over {found.window} steps."
    frame = found.to_frame()
    shown = np.unique(np.geomspace(1, len(found.smoothed), 12).astype(int))
    return _Found(frame, frame[frame["step"].isin(shown)], text, tuple(further))


def _velocities(trials: Trials) -> list[str]:
    """
    :param trials: Trials
    :return: Names of velocities that the environment tells at each step
    """
    env = trials.make()
    env.reset(seed=0)
    env.action_space.seed(0)
    *_, info = env.step(env.action_space.sample())
    env.close()
    return [name for name in ("x_velocity", "y_velocity") if name in info]


def _refinement(job: _Job) -> _Found:
    n_tasks = job.options.n_tasks
    n_train_tasks = max(1, n_tasks * 2 // 3)
    found = refinement(job.steps(job.trials()), n_train_tasks)
    plot_refinement(found, job.picture(), f"{job.title}: refinement of the episodic memory")
    constant = found.constant_error.mean()
    text = f"Regression on the actions: {n_train_tasks} train tasks, {n_tasks - n_train_tasks} test tasks. "
    text += f"The mean action of the train tasks has the error {constant:.4g}."
    return _Found(found.to_frame(), found.to_frame(), text)


def _memories(job: _Job) -> _Found:
    trials = job.trials()
    found = working_memories(job.steps(trials), trials.tasks)
    plot_working_memories(found, job.picture(), f"{job.title}: working memories", task_unit=trials.task_unit)
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.explained)
    text = f"The three components hold {shares} of the variance; {100 * found.share_between_tasks:.1f} % of what they "
    text += "hold together lies between the means of the tasks, which are in the table."
    frame = found.to_frame()
    return _Found(frame, frame.drop(columns="step").groupby("task", sort=False).mean().reset_index(), text)


def _attention(job: _Job) -> _Found:
    found = attention_map(job.steps(job.trials()))
    plot_attention(found, job.picture(), f"{job.title}: attention during one trial")
    found.save(job.stem.with_suffix(".npz"))
    ages = found.look_back
    layers = np.arange(1, len(ages) + 1)
    of_heads = {"mean_age": ages.mean(axis=1), "lowest_head": ages.min(axis=1), "highest_head": ages.max(axis=1)}
    text = "Mean age, in steps, of the memories that a layer's heads attend to; with equal weights it would be "
    text += f"{found.uniform_look_back:.2f}. The whole map is in attention.npz."
    return _Found(found.to_frame(), pd.DataFrame({"layer": layers, **of_heads}), text, ("attention.npz",))


def _consensus(job: _Job) -> _Found:
    found = consensus(job.steps(job.trials()))
    plot_consensus(found, job.picture(), f"{job.title}: Bayes risk (theorem 4.1)")
    text = "`holds` is the share of steps and heads at which the attention output's Bayes risk is not above the best "
    text += "candidate's. It follows only for the cosine of unit memories."
    frame = found.to_frame()
    return _Found(frame, frame[[name for name in frame.columns if not name.endswith(("_low", "_high"))]], text)


#: The analyses, and how many tasks and episodes of each they look at by default, the paper's numbers where it has them
KINDS: dict[str, tuple[Callable[[_Job], _Found], int, int, str]] = {
    "online": (_online, 20, 1, "reward and velocity, step by step (figure 9); any agent"),
    "refinement": (_refinement, 30, 3, "memories from layer to layer (figure 7)"),
    "memories": (_memories, 8, 2, "working memories in three dimensions (figure 8)"),
    "attention": (_attention, 1, 2, "what each head attends to during one trial"),
    "consensus": (_consensus, 10, 2, "Bayes risk of the attention output (theorem 4.1)"),
}


@one_thread()
def analyze(arguments: Sequence[str]) -> None:
    """
    Print what an analysis finds; write it as CSV and PNG.

    :param arguments: See ``--help``
    """
    own = argparse.ArgumentParser(
        prog="trmrl analyze",
        description="The paper's analyses. `trmrl analyze KIND --help` for the options.",
        epilog="kinds:\n"
        + "".join(f"  {kind:<12}{text}\n" for kind, (*_, text) in KINDS.items())
        + "  all         all of these, for an agent with a TrMRL policy\n"
        "  ablations   train the grid of figures 10 to 13 and draw it\n\n"
        f"example:\n  python -m sb3_trmrl analyze all {DEMO} --output analysis",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("kind", choices=[*KINDS, "all", "ablations"], metavar="KIND", help="see below")
    own.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="model and options")
    parsed = own.parse_args(arguments)
    if parsed.kind == "ablations":
        _ablations(parsed.rest)
    else:
        _analyze(parsed.kind, parsed.rest)


def _analyze(kind: str, arguments: Sequence[str]) -> None:
    """
    :param kind: Name of the analysis, or ``"all"``
    :param arguments: What follows it
    """
    kinds = list(KINDS) if kind == "all" else [kind]
    description = "All analyses of an agent." if kind == "all" else f"{KINDS[kind][3]}."
    example = f"{DEMO}{'' if kind == 'attention' else ' --n-tasks 6'} --output analysis"
    parser = agent_parser(f"analyze {kind}", description[0].upper() + description[1:], example)
    counts = {name: dict(zip(("n_tasks", "n_episodes"), KINDS[name][1:3], strict=True)) for name in kinds}
    default = dict.fromkeys(counts[kinds[0]], "each analysis its own") if kind == "all" else counts[kind]
    if kind != "attention":
        parser.add_argument("--n-tasks", type=positive_int, help=f"number of tasks (default: {default['n_tasks']})")
    if "online" in kinds:
        parser.add_argument("--window", type=int, default=11, help="steps to smooth rewards over, odd (default: 11)")
    if kind != "online":
        episodes = f"episodes of each task (default: {default['n_episodes']})"
        parser.add_argument("--n-episodes", type=positive_int, help=episodes)
    parser.add_argument("--split", choices=SPLITS, default="test", help="which tasks (default: test)")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the likeliest ones")
    parser.add_argument(
        "--output", type=output_folder, help="folder for the files, by default `analysis` in that of the run"
    )
    options = parser.parse_args(arguments)
    if "refinement" in kinds and options.n_tasks == 1:
        parser.error("--n-tasks must be 2 or more for refinement, which tests on other tasks than it fits, got 1")
    if "online" in kinds and (options.window < 1 or options.window % 2 == 0):
        parser.error(f"--window must be odd and 1 or more, got {options.window}")
    with argument_errors(parser):
        agent = agent_of(options)
    if kind != "online" and not isinstance(agent.model.policy, TrMRLPolicy):
        parser.error(f"{kind} looks into a TransformerPPO, got a {type(agent.model).__name__}; online takes any agent")
    folder: Path = options.output or agent.folder / "analysis"
    folder.mkdir(parents=True, exist_ok=True)
    for name in kinds:
        asked = {key: value for key, value in vars(options).items() if value is not None}
        fixed = {"online": {"n_episodes": 1}, "attention": {"n_tasks": 1}}.get(name, {})
        of_kind = argparse.Namespace(**{**counts[name], **asked, **fixed})
        with argument_errors(parser), _progress(name, of_kind.n_tasks) as after_task:
            found = KINDS[name][0](_Job(agent, of_kind, folder / name, after_task))
        found.frame.to_csv(folder / f"{name}.csv", index=False)
        _print(found.table, f"{agent.env_id}: {name}, {options.split} tasks: {of_kind.n_tasks}", found.text)
        print("Wrote " + ", ".join(str(folder / file) for file in (f"{name}.csv", f"{name}.png", *found.further)))


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """
    :param name: What is going on
    :param total: Number of tasks or runs
    :return: To be called with the number of those that are done
    """
    with Progress() as progress:
        bar = progress.add_task(name, total=total)
        yield lambda done: progress.update(bar, completed=done)


def _print(frame: pd.DataFrame, title: str, text: str, units: str = "tasks") -> None:
    """
    :param frame: What an analysis found
    :param title: What it is
    :param text: What to say below
    :param units: What its intervals are over
    """
    caption = f"low and high: 95 % bootstrap interval over {units}" if "low" in frame.columns else None
    table = Table(title=title, caption=caption)
    for name in frame.columns:
        table.add_column(str(name), justify="left" if frame[name].dtype == object else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    console = Console()
    console.print(table)
    console.print(text, highlight=False)


def _ablations(arguments: Sequence[str]) -> None:
    """
    :param arguments: What follows ``ablations``
    """
    parser = argparse.ArgumentParser(
        prog="trmrl analyze ablations",
        description="Train agents with one setting of the transformer changed at a time and draw their learning curves "
        "(figures 10 to 13). Runs that are complete are not repeated: start the same command again after an "
        "interruption. The base are the recommended hyperparameters; options not listed here go to `trmrl train`.",
        epilog="example:\n  python -m sb3_trmrl analyze ablations --env HalfCheetahVel-v0 --n-timesteps 200000 "
        "--seeds 0 1 --grid 'n_layers:(1, 2, 4)'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--env", default="HalfCheetahVel-v0", help="environment id (default: HalfCheetahVel-v0)")
    parser.add_argument("--n-timesteps", type=positive_int, default=500_000, help="steps of each run (default: 500000)")
    parser.add_argument("--n-evaluations", type=positive_int, default=20, help="evaluations in each run (default: 20)")
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0, 1, 2], help="seeds of each run (default: 0 1 2)")
    parser.add_argument(
        "--grid", nargs="+", action=StoreValues, default=GRID, metavar="NAME:VALUES", help=f"settings (default: {GRID})"
    )
    parser.add_argument("--output", type=output_folder, default=Path("ablations"), help="folder (default: ablations)")
    options, rest = parser.parse_known_args(arguments)
    with argument_errors(parser):
        runs = ablation_runs(options.env, options.output / "runs", options.seeds, options.grid)
    with argument_errors(parser), _progress("runs", len(runs)) as after_run:
        training = train_ablations(runs, options.env, options.n_timesteps, options.n_evaluations, rest)
        for done, _ in enumerate(training, start=1):
            after_run(done)
    found = read_ablations(runs, options.env)
    frame = found.to_frame()
    frame.to_csv(options.output / "ablations.csv", index=False)
    plot_ablations(found, options.output / "ablations.png")
    last = frame[frame["timesteps"] == found.timesteps[-1]]
    _print(last, f"{options.env}: ablations, last evaluation", "Returns of a trial on validation tasks.", "seeds")
    print(f"Wrote {options.output}/ablations.csv and .png")
