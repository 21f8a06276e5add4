"""``analyze``: the paper's analyses of a trained agent, as tables and plots."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sb3_trmrl.analysis.attention import attention_map, plot_attention
from sb3_trmrl.analysis.consensus import consensus, plot_consensus
from sb3_trmrl.analysis.online import online_adaptation, plot_online_adaptation, plot_targets
from sb3_trmrl.analysis.refinement import plot_refinement, refinement
from sb3_trmrl.analysis.traces import TracedSteps, traced_steps
from sb3_trmrl.analysis.working_memories import plot_working_memories, working_memories
from sb3_trmrl.cli.options import (
    N_ENVS,
    argument_errors,
    evaluate_agent,
    fill_in_counts,
    load_agent_from,
    plays_trials,
)
from sb3_trmrl.cli.output import print_frame, progress
from sb3_trmrl.cli.parsers import ANALYSES
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.adaptation_result import has_tasks
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.memory.policy import MemoryPolicy
from sb3_trmrl.zoo.agents import LoadedAgent

#: Fewer steps than this for each feature of a regression are too few
_STEPS_PER_FEATURE = 10


@dataclass(frozen=True)
class _Job:
    """One analysis of one agent; ``stem`` is the path of its files without suffix."""

    agent: LoadedAgent
    options: argparse.Namespace
    stem: Path
    after_task: Callable[[int], None]
    unit: str  # "task", or "episode" without tasks

    @property
    def picture(self) -> Path:
        """File of the plot"""
        return self.stem.with_suffix(".png")

    def trials(self) -> Trials:
        """Return the trials to play."""
        options = self.options
        kwargs = self.agent.env_kwargs
        return Trials(self.agent.env_id, options.n_tasks, options.n_episodes, options.split, options.seed, kwargs)

    def steps(self, trials: Trials) -> Iterator[TracedSteps]:
        """Play trials, and return memories and actions at each step."""
        return traced_steps(
            self.agent.model,
            trials,
            deterministic=not self.options.sampled,
            vec_normalize=self.agent.vec_normalize,
            n_envs=N_ENVS,
            after_task=self.after_task,
        )


class _Found(NamedTuple):
    """Content of the CSV file, the part of it to print, the text below, and names of further files."""

    frame: pd.DataFrame
    table: pd.DataFrame
    text: str
    further: tuple[str, ...] = ()


def _online(job: _Job) -> _Found:
    result = evaluate_agent(
        job.agent,
        job.options,
        deterministic=not job.options.sampled,
        info_keys=_velocities(job.trials()),
        n_envs=N_ENVS,
        after_task=job.after_task,
    )
    found = online_adaptation(result, job.options.window)
    targets = None
    further = []
    if job.agent.env_id == "HalfCheetahVel-v0":
        targets = {"x_velocity": float(np.mean(result.tasks))}
        further.append("online_tasks.png")
        plot_targets(
            result,
            "x_velocity",
            job.stem.with_name(further[0]),
            f"{job.agent.env_id}: one trained agent, new target speeds (dotted)",
        )
    subject = "online adaptation" if job.unit == "task" else "reward by step"
    plot_online_adaptation(found, job.picture, f"{job.agent.env_id}: {subject}", targets)
    text = f"Reward per step: first level {found.first_level:.3f}, final level {found.final_level:.3f}. "
    if found.adapted_at is None:
        text += "The reward does not come within 5 % of the final level and stay there."
    else:
        text += f"Within 5 % of the final level from step {found.adapted_at} on, smoothed over {found.window} steps."
    lengths = result.lengths[:, 0]
    if lengths.min() < lengths.max():
        text += (
            f" The episodes have different lengths, {lengths.min():.0f} to {lengths.max():.0f} steps: each step"
            " averages over the episodes that are still running (column n), so the levels compare different episodes."
            " If episodes end early because they succeed, the last steps show the others. A single episode has no"
            " interval (nan)."
        )
    frame = found.to_frame()
    shown = np.unique(np.geomspace(1, len(found.smoothed), 12).astype(int))
    return _Found(frame, frame[frame["step"].isin(shown)], text, tuple(further))


def _velocities(trials: Trials) -> list[str]:
    """Return the names of the velocities that the environment reports at each step."""
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
    units = f"{job.unit}s"
    plot_refinement(found, job.picture, f"{job.agent.env_id}: refinement of the episodic memory", units)
    constant = found.constant_error.mean()
    text = f"Regression on the actions: {n_train_tasks} training {units}, {n_tasks - n_train_tasks} test {units}. "
    text += f"Always predicting the mean action of the training {units} has an error of {constant:.4g}."
    if found.n_train_steps < _STEPS_PER_FEATURE * found.n_features:
        text += (
            f" The regression was fitted on only {found.n_train_steps} steps for {found.n_features} features, so it"
            f" overfits, and its error on test {units} says little: play more {units} (--n-{units})."
        )
    return _Found(found.to_frame(), found.to_frame(), text)


def _memories(job: _Job) -> _Found:
    trials = job.trials()
    tasks = trials.tasks if has_tasks(trials.tasks) else [str(i + 1) for i in range(len(trials.tasks))]
    found = working_memories(job.steps(trials), tasks)
    title = f"{job.agent.env_id}: working memories"
    plot_working_memories(found, job.picture, title, task_unit=trials.task_unit, unit=f"{job.unit}s")
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.explained)
    text = f"The three components explain {shares} of the variance. {100 * found.share_between_tasks:.1f} % of the "
    text += f"variance that they explain together lies between the means of the {job.unit}s, which the table shows."
    frame = found.to_frame().rename(columns={"task": job.unit})
    return _Found(frame, frame.drop(columns="step").groupby(job.unit, sort=False).mean().reset_index(), text)


def _attention(job: _Job) -> _Found:
    found = attention_map(job.steps(job.trials()))
    plot_attention(found, job.picture, f"{job.agent.env_id}: how far back each head looks in one trial")
    found.save(job.stem.with_suffix(".npz"))
    ages = found.look_back
    layers = np.arange(1, len(ages) + 1)
    heads = {"mean_age": ages.mean(axis=1), "lowest_head": ages.min(axis=1), "highest_head": ages.max(axis=1)}
    text = "Mean age, in steps, of the memories that the heads of a layer attend to. With equal weights it would be "
    text += f"{found.uniform_look_back:.2f}. attention.npz holds all weights."
    return _Found(found.to_frame(), pd.DataFrame({"layer": layers, **heads}), text, ("attention.npz",))


def _consensus(job: _Job) -> _Found:
    found = consensus(job.steps(job.trials()))
    plot_consensus(found, job.picture, f"{job.agent.env_id}: Bayes risk (theorem 4.1)", f"{job.unit}s")
    text = "`holds` is the share of steps and heads where the Bayes risk of the attention output is at most that of "
    text += "the best candidate. This is guaranteed only for the cosine of unit memories."
    frame = found.to_frame()
    return _Found(frame, frame[[name for name in frame.columns if not name.endswith(("_low", "_high"))]], text)


#: Functions of the analyses
KINDS: dict[str, Callable[[_Job], _Found]] = {
    "online": _online,
    "refinement": _refinement,
    "memories": _memories,
    "attention": _attention,
    "consensus": _consensus,
}


@one_thread()
def analyze(kind: str, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Print the results of an analysis. Write them as CSV and PNG."""
    kinds = list(KINDS) if kind == "all" else [kind]
    with argument_errors(parser):
        agent = load_agent_from(options)
        in_trials = plays_trials(agent)
    if kind == "attention" and not in_trials and options.n_episodes not in (None, 1):
        parser.error(f"--n-episodes must be 1 for an environment without tasks, got {options.n_episodes}")
    if kind != "online" and not isinstance(agent.model.policy, MemoryPolicy):
        got = type(agent.model).__name__
        parser.error(f"{kind} needs a TransformerPPO or TransformerSAC, got a {got}; online takes any agent")
    folder: Path = options.output or agent.folder / "analysis"
    folder.mkdir(parents=True, exist_ok=True)
    for name in kinds:
        unit = "task" if in_trials else "episode"
        with argument_errors(parser):
            own = _with_counts(name, options, in_trials)
        with argument_errors(parser), progress(f"{name}: {unit}s", own.n_tasks) as after_task:
            found = KINDS[name](_Job(agent, own, folder / name, after_task, unit))
        found.frame.to_csv(folder / f"{name}.csv", index=False)
        subject = f"{own.n_tasks} {f'{options.split} ' if in_trials else ''}{unit}{'s' if own.n_tasks > 1 else ''}"
        print_frame(found.table, f"{agent.env_id}: {name}, {subject}", found.text, f"{unit}s")
        print("Wrote " + ", ".join(str(folder / file) for file in (f"{name}.csv", f"{name}.png", *found.further)))


def _with_counts(name: str, options: argparse.Namespace, in_trials: bool) -> argparse.Namespace:
    """Return the options of one analysis, with its numbers of tasks and episodes."""
    own = argparse.Namespace(**{"n_tasks": None, "n_episodes": None, **vars(options)})
    if name == "online":
        own.n_episodes = 1 if in_trials else None
    if name == "attention":  # of one trial, or of one episode
        own.n_tasks, own.n_episodes = (1, own.n_episodes) if in_trials else (1, None)
    fill_in_counts(own, in_trials, *ANALYSES[name][:2])
    return own
