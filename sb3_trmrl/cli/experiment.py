"""``experiment``: train the agents of an experiment, and write tables and pictures of it."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from fnmatch import fnmatch

import joblib

from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.cli.output import progress
from sb3_trmrl.zoo.experiment_file import Experiment, Training, read_experiment
from sb3_trmrl.zoo.experiment_report import write_report
from sb3_trmrl.zoo.experiment_runs import Outcome, State, command_of, run_trainings, state_of
from sb3_trmrl.zoo.interruption import TERMINATED, Terminated


def experiment(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Run an experiment, or write its report."""
    with argument_errors(parser):
        found = read_experiment(options.file, options.folder)
    options.jobs = options.jobs or joblib.cpu_count(only_physical_cores=True)
    if options.action == "report":
        _report(parser, options, found)
    else:
        _run(parser, options, found)


def _report(parser: argparse.ArgumentParser, options: argparse.Namespace, found: Experiment) -> None:
    folder = options.output or options.file.with_suffix("")
    with argument_errors(parser):
        text = write_report(found, folder, options.jobs, progress)
    print(text)
    print(f"Wrote report.md, tables, curves and pictures to {folder}")


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, found: Experiment) -> None:
    with argument_errors(parser):
        trainings = _selected(found.trainings, options.only)
        states = [state_of(training) for training in trainings]
    if options.dry_run:
        for training, state in zip(trainings, states, strict=True):
            command = command_of(training, state, options.num_threads, options.checkpoint_freq)
            print(f"{training.name}: {state.value}\n  python {shlex.join(command)}")
        return
    n_finished = states.count(State.FINISHED)
    failed: list[Outcome] = []
    outcomes = run_trainings(trainings, options.jobs, options.num_threads, options.checkpoint_freq)
    with argument_errors(parser), progress("runs", len(trainings)) as after_run, closing(outcomes):
        after_run(n_finished)
        try:
            for outcome in outcomes:
                failed += [outcome] if outcome.problem else []
                n_finished += not outcome.problem
                after_run(n_finished + len(failed))
        except KeyboardInterrupt as error:
            print("\nInterrupted. The same command continues.", file=sys.stderr)
            raise SystemExit(TERMINATED if isinstance(error, Terminated) else 130) from None
    print(f"{n_finished} of {len(trainings)} runs are finished. Results: trmrl experiment report {options.file}")
    n_elsewhere = [state_of(training) for training in trainings].count(State.ELSEWHERE)
    if n_elsewhere:
        print(f"{n_elsewhere} runs are trained by other processes. Run the command again when they have ended.")
    for outcome in failed:
        print(f"\nfailed: {outcome.training.name}, {outcome.problem}", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def _selected(trainings: Sequence[Training], patterns: Sequence[str] | None) -> list[Training]:
    """Return the trainings whose name, with or without the environment, matches one of the patterns."""
    if patterns is None:
        return list(trainings)
    chosen = []
    for pattern in patterns:
        found = [
            each
            for each in trainings
            if fnmatch(each.name, pattern) or fnmatch(each.name.removeprefix(f"{each.environment}/"), pattern)
        ]
        if not found:
            names = ", ".join(each.name for each in trainings[:3])
            raise ValueError(f"--only must match runs such as {names}, got {pattern!r}")
        chosen += found
    return [each for each in trainings if each in chosen]
