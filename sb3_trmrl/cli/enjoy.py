"""``enjoy`` and ``record_video``: rl-zoo3's scripts for watching a trained agent."""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Sequence
from functools import partial

import gymnasium as gym
import rl_zoo3.enjoy

from sb3_trmrl.cli.options import argument_errors
from sb3_trmrl.cli.rendering import check_render_mode, render_without_display
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.zoo.defaults import ALGO, LOG_FOLDER
from sb3_trmrl.zoo.error_origin import raised_by_user_code
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import Run
from sb3_trmrl.zoo.scripts import check_saved_agent, run_script


def enjoy(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.enjoy``: watch a trained agent."""
    arguments = ["--num-threads", str(options.num_threads), *arguments]
    render_mode = None if options.no_render else "human"
    _play("enjoy", rl_zoo3.enjoy.enjoy, parser, options, arguments, render_mode)


@one_thread()
def record_video(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.record_video``: record a video of a trained agent, with EGL if there is no display."""
    render_without_display()
    # This script has no function to call
    script = partial(runpy.run_module, "rl_zoo3.record_video", run_name="__main__")
    _play("record_video", script, parser, options, arguments, "rgb_array")


def _play(
    command: str,
    script: Callable[[], object],
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    arguments: Sequence[str],
    render_mode: str | None,
) -> None:
    register()
    with argument_errors(parser):
        folder = check_saved_agent(options)
        if folder is not None and render_mode is not None:
            run = Run(folder)
            check_render_mode(run.env_id, run.env_kwargs, render_mode)
        try:
            # Our defaults come first, so that the arguments take precedence
            run_script(command, script, ["--algo", ALGO, "--folder", LOG_FOLDER, *arguments])
        except (gym.error.DependencyNotInstalled, ImportError) as error:
            if raised_by_user_code(error):
                raise
            parser.error(str(error))
