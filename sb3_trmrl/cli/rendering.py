"""Whether an environment can be drawn, and where."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

#: What an environment does in each mode
_MODES = {"human": "show a window", "rgb_array": "return RGB pictures"}


def has_screen() -> bool:
    """Return whether windows can be opened."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def render_without_display() -> None:
    """Let MuJoCo render with EGL if there is no display."""
    if not has_screen():
        os.environ.setdefault("MUJOCO_GL", "egl")


def check_render_mode(env_id: str, env_kwargs: dict[str, Any], mode: str) -> None:
    """Raise ``ValueError`` if an environment has no such render mode, or needs a screen that is missing."""
    entry_point = gym.spec(env_id.rpartition(":")[2]).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    assert creator is not None
    parameters = inspect.signature(creator).parameters
    if "render_mode" not in parameters and not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        raise ValueError(
            f"{env_id} cannot be rendered: it must take the argument `render_mode`, and {_MODES[mode]} for {mode!r}"
        )
    env = gym.make(env_id, **{**env_kwargs, "render_mode": None})
    modes = env.metadata.get("render_modes") or []
    is_simulated = hasattr(env.unwrapped, "mujoco_renderer")
    env.close()
    if mode not in modes:
        raise ValueError(
            f"{env_id} cannot be rendered: `metadata['render_modes']` must contain {mode!r}, got {list(modes)}"
        )
    if mode == "human" and is_simulated and not has_screen():
        raise ValueError(
            f"{env_id} opens a window, and there is no screen (DISPLAY is not set): pass --no-render, or record a "
            "video with `trmrl render` or `trmrl record_video`, which draw without a screen (MUJOCO_GL=egl)"
        )
