"""``report``: the report of a finished or interrupted run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.zoo.registration import ALGO, register
from sb3_trmrl.zoo.report import write_report
from sb3_trmrl.zoo.scripts import LOG_FOLDER


def report(arguments: Sequence[str]) -> None:
    """Write the report of ``train --report`` for an existing run."""
    parser = argparse.ArgumentParser(
        prog="trmrl report", description="Compare the models of a run before and after training on held-out tasks."
    )
    parser.add_argument("folder", help=f"folder of the run, for example {LOG_FOLDER}/{ALGO}/HalfCheetahVel-v0_1")
    options = parser.parse_args(arguments)
    register()
    with argument_errors(parser):
        write_report(options.folder)
