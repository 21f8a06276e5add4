"""``render``: a video of one trial, with task, episode and return written above the picture."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from PIL import Image, ImageDraw, ImageFont
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trmrl.analysis.figures import task_label
from sb3_trmrl.cli.enjoy import render_without_display
from sb3_trmrl.cli.options import argument_errors, load_agent_from
from sb3_trmrl.cli.output import progress
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.trials import Trials, play_trials
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, evaluation_seed
from sb3_trmrl.trials.multi_episode_trial import trials_of
from sb3_trmrl.zoo.agents import LoadedAgent

#: Smallest side of a video in pixels; images of grids are small
_SHORT_SIDE = 320
#: Codecs by the suffix of the video
_CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".webm": "libvpx", ".gif": "gif"}
#: Highest number of frames per second and width of a GIF, whose frames are hardly compressed
_GIF_FPS, _GIF_WIDTH = 10, 320


@one_thread()
def render(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Write a video of one trial."""
    last_task = N_HELD_OUT_TASKS - 1
    if not 0 <= options.task <= last_task:
        parser.error(f"--task must be from 0 to {last_task}, got {options.task}")
    if options.output.suffix not in _CODECS:
        parser.error(f"--output must end with one of {', '.join(_CODECS)}, got {options.output}")
    render_without_display()
    with argument_errors(parser):
        agent = load_agent_from(options)
        env, seed = make_trial(agent, options.task, options.n_episodes, options.seed)
    try:
        with th.random.fork_rng(), progress("steps", _n_steps(env, options.n_episodes)) as after_step:
            th.manual_seed(seed)  # for stochastic actions
            frames = (captioned(frame, text) for frame, text in film(agent, env, seed, not options.sampled))
            n_frames = _write(frames, options.output, env.metadata.get("render_fps", 30), after_step)
    finally:
        env.close()
    print(f"Wrote {options.output}: {n_frames} frames")


def make_trial(agent: LoadedAgent, task: int, n_episodes: int, seed: int) -> tuple[gym.Env, int]:
    """Return an environment for one trial of the default evaluation, and the seed of its first reset."""
    kwargs = {**agent.env_kwargs, "render_mode": "rgb_array"}
    plain = gym.make(agent.env_id, **kwargs)
    if trials_of(plain) is None:
        return plain, evaluation_seed(seed, "test")
    plain.close()
    trials = Trials(agent.env_id, N_HELD_OUT_TASKS, n_episodes, "test", seed, kwargs)
    return trials.make(task), trials.seed_of_split + task


def _n_steps(env: gym.Env, n_episodes: int) -> int | None:
    """Return the number of steps in a trial that does not end early, None if unknown."""
    if trials_of(env) is None:
        return env.spec.max_episode_steps if env.spec else None
    return n_episodes * env.get_wrapper_attr("horizon") if env.has_wrapper_attr("horizon") else None


def _write(frames: Iterator[np.ndarray], path: Path, fps: float, after_frame: Callable[[int], None]) -> int:
    """Write frames of the same size to a video, and return their number."""
    # Imported here because it takes a second
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(frames)
    height, width, _ = first.shape
    n_frames = 1
    codec, filters = _CODECS[path.suffix], None
    if codec == "gif":  # with a palette of its own; the default one has few of its colours
        scale = f"fps={min(fps, _GIF_FPS)},scale=min({_GIF_WIDTH}\\,iw):-1"
        palette = "split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
        filters = ["-vf", f"{scale},{palette}"]
    with FFMPEG_VideoWriter(str(path), (width, height), fps, codec=codec, ffmpeg_params=filters) as writer:
        writer.write_frame(first)
        for n_frames, frame in enumerate(frames, start=2):
            writer.write_frame(frame)
            after_frame(n_frames)
    return n_frames


class _Camera(gym.Wrapper):
    """Renders a frame before each step."""

    picture: np.ndarray

    def step(self, action: Any) -> Any:
        picture = self.env.render()
        assert isinstance(picture, np.ndarray)
        self.picture = picture
        return self.env.step(action)


def film(agent: LoadedAgent, env: gym.Env, seed: int, deterministic: bool) -> Iterator[tuple[np.ndarray, str]]:
    """Play one trial; yield the picture before each step, (height, width, 3), and the text to write above it."""
    camera = _Camera(env)
    venv = DummyVecEnv([lambda: camera])
    venv.seed(seed)
    unit = env.get_wrapper_attr("task_unit") if env.has_wrapper_attr("task_unit") else ""
    total = 0.0
    for step in play_trials(agent.model, venv, np.zeros(1, dtype=int), deterministic, agent.vec_normalize):
        task = venv.reset_infos[0].get("task")
        heading = f"task {task_label(task, unit)}\n" if task is not None else ""
        yield camera.picture, f"{heading}episode {step.episodes[0] + 1}   return {total:.1f}"
        total = 0.0 if step.infos[0].get("new_episode") else total + float(step.rewards[0])


def captioned(frame: np.ndarray, text: str) -> np.ndarray:
    """Return an RGB picture below a band with text, enlarged if it is small."""
    # All sides are even, as video codecs require
    picture = Image.fromarray(frame)
    scale = max(1, -(-_SHORT_SIDE // min(picture.size)))
    width, height = (scale * side // 2 * 2 for side in picture.size)
    size = width / 24
    band = int(1.3 * size * (text.count("\n") + 1) + 0.6 * size) // 2 * 2
    canvas = Image.new("RGB", (width, band + height), "white")
    canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (0, band))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(canvas).multiline_text((size / 2, size / 4), text, fill="black", font=font, spacing=size / 4)
    return np.asarray(canvas)
