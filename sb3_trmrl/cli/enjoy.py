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
from sb3_trmrl.zoo.error_origin import raised_by_user_code
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import Run
from sb3_trmrl.zoo.scripts import check_saved_agent, run_script, with_playing_defaults


def enjoy(arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.enjoy``: watch a trained agent."""
    _play("enjoy", rl_zoo3.enjoy.enjoy, arguments, None if "--no-render" in arguments else "human")


def record_video(arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.record_video``: record a video of a trained agent, with EGL if there is no display."""
    render_without_display()
    # This script has no function to call
    script = partial(runpy.run_module, "rl_zoo3.record_video", run_name="__main__")
    _play("record_video", script, arguments, "rgb_array")


def _play(command: str, script: Callable[[], object], arguments: Sequence[str], render_mode: str | None) -> None:
    register()
    arguments = with_playing_defaults(command, arguments)
    parser = argparse.ArgumentParser(prog=f"trmrl {command}", usage=argparse.SUPPRESS)
    with argument_errors(parser):
        folder = check_saved_agent(command, arguments)
        if folder is not None and render_mode is not None:
            run = Run(folder)
            check_render_mode(run.env_id, run.env_kwargs, render_mode)
    try:
        run_script(command, script, arguments)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        if raised_by_user_code(error):
            raise
        parser.error(str(error))
