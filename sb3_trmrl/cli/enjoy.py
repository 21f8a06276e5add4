"""``enjoy`` and ``record_video``: rl-zoo3's scripts for watching a trained agent."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial

import rl_zoo3.enjoy

from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.zoo.defaults import ALGO, LOG_FOLDER
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.scripts import check_saved_agent, run_script


def render_without_display() -> None:
    """Let MuJoCo render with EGL if there is no display."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def enjoy(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.enjoy``: watch a trained agent."""
    arguments = ["--num-threads", str(options.num_threads), *arguments]
    _play("enjoy", rl_zoo3.enjoy.enjoy, parser, options, arguments)


@one_thread()
def record_video(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.record_video``: record a video of a trained agent, with EGL if there is no display."""
    render_without_display()
    # This script has no function to call
    script = partial(runpy.run_module, "rl_zoo3.record_video", run_name="__main__")
    _play("record_video", script, parser, options, arguments)


def _play(
    command: str,
    script: Callable[[], object],
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    arguments: Sequence[str],
) -> None:
    register()
    with argument_errors(parser):
        check_saved_agent(options)
        # Our defaults come first, so that the arguments take precedence
        run_script(command, script, ["--algo", ALGO, "--folder", LOG_FOLDER, *arguments])
