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
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.scripts import check_saved_agent, run_script, with_playing_defaults


def render_without_display() -> None:
    """Let MuJoCo render with EGL if there is no display."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def enjoy(arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.enjoy``: watch a trained agent."""
    _play("enjoy", rl_zoo3.enjoy.enjoy, arguments)


def record_video(arguments: Sequence[str]) -> None:
    """Run ``rl_zoo3.record_video``: record a video of a trained agent, with EGL if there is no display."""
    render_without_display()
    # This script has no function to call
    _play("record_video", partial(runpy.run_module, "rl_zoo3.record_video", run_name="__main__"), arguments)


def _play(command: str, script: Callable[[], object], arguments: Sequence[str]) -> None:
    register()
    arguments = with_playing_defaults(command, arguments)
    with argument_errors(argparse.ArgumentParser(prog=f"trmrl {command}", usage=argparse.SUPPRESS)):
        check_saved_agent(command, arguments)
    run_script(command, script, arguments)
