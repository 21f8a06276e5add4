"""``report``: the report of a finished or interrupted run."""

from __future__ import annotations

import argparse

from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.report import write_report


@one_thread()
def report(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Write the report of ``train --report`` for an existing run."""
    register()
    with argument_errors(parser):
        write_report(options.folder)
