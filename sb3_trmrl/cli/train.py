"""``train``: rl-zoo3's train, with a report and resumed runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout

import rl_zoo3.train
import torch as th

from sb3_trmrl.cli import parsers
from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.distributed.collectives import is_main
from sb3_trmrl.zoo.experiment import BadExperiment
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.scripts import resumed_run, run_script, training_arguments


def train(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.train``. Environments with held-out tasks are evaluated once on each validation task."""
    checkpoint = None
    if options.resume is not None:
        with argument_errors(parser, "argument --resume: "):
            checkpoint, arguments = resumed_run(options.resume, parsers.without_resume(arguments))
        parser, options, arguments = parsers.train(arguments)
    register(
        report=options.report,
        checkpoint_freq=options.checkpoint_freq,
        resume=checkpoint,
        # A resumed run computes the same only with the same number of threads
        command_line=["--num-threads", str(options.num_threads), *arguments],
    )
    with argument_errors(parser):
        script_arguments = training_arguments(options, parsers.without_train_options(arguments))
    if options.verbose > 0 and is_main():
        n_threads = options.num_threads if options.num_threads > 0 else th.get_num_threads()
        print(f"Threads of PyTorch: {n_threads} (--num-threads)")
    # Worker processes have a core each: their own threads would only compete for it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not is_main():
        os.environ["WANDB_MODE"] = "disabled"  # only rank 0 logs to Weights & Biases (--track)
    try:
        with nullcontext() if is_main() else redirect_stdout(None):
            run_script("train", rl_zoo3.train.train, script_arguments)
    except BadExperiment as error:
        parser.error(str(error))
