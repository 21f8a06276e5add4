"""``render``: a video of a trial, with task, episode and return written above the picture."""

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
from sb3_trmrl.cli.options import argument_errors, load_agent_from, plays_trials
from sb3_trmrl.cli.output import progress
from sb3_trmrl.cli.rendering import check_render_mode, render_without_display
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.trials import Trials, play_trials
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS
from sb3_trmrl.trials.multi_episode_trial import trials_of
from sb3_trmrl.zoo.agents import LoadedAgent

#: Smallest side of a video in pixels; images of grids are small
_SHORT_SIDE = 320
#: Codecs by the suffix of the video
_CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".webm": "libvpx", ".gif": "gif"}
#: Highest number of frames per second and width of a GIF, whose frames are hardly compressed
_GIF_FPS, _GIF_WIDTH = 10, 320
#: Without tasks, a video has as many episodes as it takes for this number of frames, but at most this many
_ENOUGH_FRAMES, _MAX_EPISODES = 100, 5


@one_thread()
def render(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Write a video of one trial, or of several episodes of an environment without tasks."""
    last_task = N_HELD_OUT_TASKS - 1
    if not 0 <= options.task <= last_task:
        parser.error(f"--task must be from 0 to {last_task}, got {options.task}")
    if options.output.suffix not in _CODECS:
        parser.error(f"--output must end with one of {', '.join(_CODECS)}, got {options.output}")
    render_without_display()
    with argument_errors(parser):
        agent = load_agent_from(options)
        check_render_mode(agent.env_id, agent.env_kwargs, "rgb_array")
        with th.random.fork_rng(), progress("frames", None) as after_frame:
            frames = (captioned(frame, text) for frame, text in _play(agent, options))
            n_frames = _write(frames, options.output, _fps(agent), after_frame)
    print(f"Wrote {options.output}: {n_frames} frame{'s' if n_frames > 1 else ''}")


def _fps(agent: LoadedAgent) -> float:
    """Return the number of frames per second of the environment."""
    env = gym.make(agent.env_id, **agent.env_kwargs)
    fps: float = env.metadata.get("render_fps", 30)
    env.close()
    return fps


def _play(agent: LoadedAgent, options: argparse.Namespace) -> Iterator[tuple[np.ndarray, str]]:
    """Yield the pictures of the trial, or of the episodes of an environment without tasks, and their texts."""
    if plays_trials(agent):
        yield from film(agent, options.task, options.n_episodes or 2, options.seed, not options.sampled)
        return
    n_frames = 0
    for episode in range(options.n_episodes or _MAX_EPISODES):
        for each in film(agent, options.task + episode, 1, options.seed, not options.sampled, first=episode + 1):
            n_frames += 1
            yield each
        if options.n_episodes is None and n_frames >= _ENOUGH_FRAMES:
            break


def make_trial(agent: LoadedAgent, task: int, n_episodes: int, seed: int) -> tuple[gym.Env, int]:
    """Return an environment for one trial of the default evaluation, and the seed of its first reset."""
    kwargs = {**agent.env_kwargs, "render_mode": "rgb_array"}
    trials = Trials(agent.env_id, max(N_HELD_OUT_TASKS, task + 1), n_episodes, "test", seed, kwargs)
    return trials.make(task), trials.seed_of_split + task


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
        # Frames are skipped: the padding shows the last one in any case
        skip = f"tpad=stop_mode=clone:stop_duration={1 / _GIF_FPS},fps={_GIF_FPS}," if fps > _GIF_FPS else ""
        scale = f"{skip}scale=min({_GIF_WIDTH}\\,iw):-1"
        palette = "split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
        filters = ["-vf", f"{scale},{palette}"]
    with FFMPEG_VideoWriter(str(path), (width, height), fps, codec=codec, ffmpeg_params=filters) as writer:
        writer.write_frame(first)
        for n_frames, frame in enumerate(frames, start=2):
            writer.write_frame(frame)
            after_frame(n_frames)
    if codec == "gif":  # some frames are skipped
        with Image.open(path) as written:
            return int(getattr(written, "n_frames", 1))
    return n_frames


class _Camera(gym.Wrapper):
    """Takes a picture before each step, and one after the last step of an episode, before the environment is reset."""

    def __init__(self, env: gym.Env, render: Callable[[], Any]) -> None:
        super().__init__(env)
        self._render = render
        self.pictures: list[np.ndarray] = []

    def step(self, action: Any) -> Any:
        self.pictures = [self._picture()]
        step = self.env.step(action)
        if step[2] or step[3]:
            self.pictures.append(self._picture())
        return step

    def _picture(self) -> np.ndarray:
        picture = self._render()
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
            shape = f"an array of shape {picture.shape}" if isinstance(picture, np.ndarray) else repr(picture)
            raise ValueError(f"`render` of the environment must return a picture, (height, width, 3), got {shape}")
        return picture


def film(
    agent: LoadedAgent, task: int, n_episodes: int, seed: int, deterministic: bool, first: int = 1
) -> Iterator[tuple[np.ndarray, str]]:
    """
    Play one trial; yield pictures, (height, width, 3), and the texts to write above them: before each step, and after
    the last step of each episode. ``first`` is the number of the first episode.
    """
    env, own_seed = make_trial(agent, task, n_episodes, seed)
    trial = trials_of(env)
    if trial is None:
        env = camera = _Camera(env, env.render)
    else:  # inside, because the trial resets the environment at the end of an episode
        trial.env = camera = _Camera(trial.env, env.render)
    venv = DummyVecEnv([lambda: env])
    venv.seed(own_seed)
    th.manual_seed(own_seed)  # for stochastic actions
    unit = env.get_wrapper_attr("task_unit") if env.has_wrapper_attr("task_unit") else ""
    total = 0.0
    try:
        for step in play_trials(agent.model, venv, np.zeros(1, dtype=int), deterministic, agent.vec_normalize):
            name = venv.reset_infos[0].get("task")
            heading = f"task {task_label(name, unit)}\n" if name is not None else ""
            before, *after = camera.pictures
            yield before, f"{heading}episode {first + step.episodes[0]}   return {_number(total)}"
            total += float(step.rewards[0])
            for last in after:
                yield last, f"{heading}episode {first + step.episodes[0]}   return {_number(total)}"
                total = 0.0
    finally:
        venv.close()


def _number(value: float) -> str:
    """Return a number with one decimal, with two if it is small; never "-0.00"."""
    decimals = 1 if abs(value) >= 10 else 2
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


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
