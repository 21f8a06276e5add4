"""``train``: rl-zoo3's train, with a report and resumed runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import rl_zoo3.train

from sb3_trmrl.cli.options import argument_errors, non_negative_int
from sb3_trmrl.zoo.experiment import BadExperiment
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.scripts import check_options, resumed_run, run_script, script_options, with_training_defaults


def _parser() -> argparse.ArgumentParser:
    """Return the parser of our own options; all others are rl-zoo3's."""
    parser = argparse.ArgumentParser(prog="trmrl train", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group("options of sb3_trmrl")
    group.add_argument(
        "--report",
        action="store_true",
        help="after training, compare the models before and after it on held-out tasks and draw the learning curve",
    )
    group.add_argument(
        "--checkpoint-freq",
        type=non_negative_int,
        default=50_000,
        metavar="STEPS",
        help="environment steps between two checkpoints for --resume, 0 for none (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="continue the interrupted run in this folder with its saved arguments; no others are needed",
    )
    return parser


def train(arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.train``. Environments with held-out tasks are evaluated once on each validation task."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    checkpoint = None
    if options.resume is not None:
        with argument_errors(parser, "argument --resume: "):
            checkpoint, arguments = resumed_run(options.resume, rest)
        options, rest = parser.parse_known_args(arguments)
    if {"-h", "--help"} & set(rest):
        parser.print_help()
        print()

    register(
        report=options.report,
        checkpoint_freq=options.checkpoint_freq,
        resume=checkpoint,
        command_line=list(arguments),
    )
    rest = with_training_defaults(rest)
    with argument_errors(parser):
        check_options(script_options("train", rest))
    try:
        run_script("train", rl_zoo3.train.train, rest)
    except BadExperiment as error:
        parser.error(str(error))
