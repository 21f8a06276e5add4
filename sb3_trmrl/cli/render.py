"""``render``: a video of one trial, task and episode written over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from sb3_trmrl.cli.agents import DEMO, LoadedAgent, agent_of, agent_parser, argument_errors, positive_int
from sb3_trmrl.cli.zoo_commands import render_without_display
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.evaluation.trials import Trials
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, evaluation_seed
from sb3_trmrl.trials.multi_episode_trial import trials_of

#: Pixels of a video's shorter side at least: the grids are small
_SHORT_SIDE = 320
#: Kinds of video, by what their names end with
_CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".webm": "libvpx"}


@one_thread()
def render(arguments: Sequence[str]) -> None:
    """
    Write a video of one trial.

    :param arguments: See ``--help``
    """
    parser = agent_parser("render", "A video of one trial on a test task.", f"{DEMO} --output trial.mp4")
    last_task = N_HELD_OUT_TASKS - 1
    parser.add_argument("--task", type=int, default=0, help=f"which test task, from 0 to {last_task} (default: 0)")
    parser.add_argument("--n-episodes", type=positive_int, default=2, help="episodes of the trial (default: 2)")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the likeliest ones")
    parser.add_argument("--output", type=Path, default=Path("trial.mp4"), help="file to write (default: trial.mp4)")
    options = parser.parse_args(arguments)
    if not 0 <= options.task <= last_task:
        parser.error(f"--task must be from 0 to {last_task}, got {options.task}")
    if options.output.suffix not in _CODECS:
        parser.error(f"--output must end with one of {', '.join(_CODECS)}, got {options.output}")
    render_without_display()
    with argument_errors(parser):
        agent = agent_of(options)
        env, seed = trial_on(agent, options.task, options.n_episodes, options.seed)
    try:
        with th.random.fork_rng():
            th.manual_seed(seed)  # of sampled actions
            steps = tqdm(trial(agent, env, seed, not options.sampled), "steps", _n_steps(env, options.n_episodes))
            frames = (overlaid(frame, text) for frame, text in steps)
            n_frames = _write(frames, options.output, env.metadata.get("render_fps", 30))
    finally:
        env.close()
    print(f"Wrote {options.output}: {n_frames} frames")


def trial_on(agent: LoadedAgent, task: int, n_episodes: int, seed: int) -> tuple[gym.Env, int]:
    """
    A trial of the evaluation with the default number of tasks.

    :param agent: Agent
    :param task: Index of the test task
    :param n_episodes: Episodes of the trial
    :param seed: Seed of the evaluation
    :return: Environment that draws its pictures, and the seed to reset it with
    """
    kwargs = {**agent.env_kwargs, "render_mode": "rgb_array"}
    plain = gym.make(agent.env_id, **kwargs)
    if trials_of(plain) is None:
        return plain, evaluation_seed(seed, "test")
    plain.close()
    trials = Trials(agent.env_id, N_HELD_OUT_TASKS, n_episodes, "test", seed, kwargs)
    env = trials.make()
    layer = trials_of(env)
    assert layer is not None
    layer.tasks = (trials.tasks[task],)
    return env, trials.seed_of_split + task


def _n_steps(env: gym.Env, n_episodes: int) -> int | None:
    """
    :param env: Environment
    :param n_episodes: Episodes of a trial
    :return: Steps of a trial without an early end, if that is known
    """
    if trials_of(env) is None:
        return env.spec.max_episode_steps if env.spec else None
    return n_episodes * env.get_wrapper_attr("horizon") if env.has_wrapper_attr("horizon") else None


def _write(frames: Iterator[np.ndarray], path: Path, fps: float) -> int:
    """
    :param frames: Pictures of one size
    :param path: Video to write
    :param fps: Pictures per second
    :return: Number of pictures
    """
    # Imported late, it takes a second
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(frames)
    height, width, _ = first.shape
    with FFMPEG_VideoWriter(str(path), (width, height), fps, codec=_CODECS[path.suffix]) as writer:
        writer.write_frame(first)
        n_frames = 1
        for frame in frames:
            writer.write_frame(frame)
            n_frames += 1
    return n_frames


def trial(agent: LoadedAgent, env: gym.Env, seed: int, deterministic: bool) -> Iterator[tuple[np.ndarray, str]]:
    """
    :param agent: Agent
    :param env: Environment with render mode ``"rgb_array"``
    :param seed: Seed of its initial states
    :param deterministic: Whether actions are the likeliest ones
    :return: For each step the picture before it, (height, width, 3), and what to write over it
    """
    observation, info = env.reset(seed=seed)
    heading = f"task {_short(info['task'])}\n" if "task" in info else ""
    episode, total = 0, 0.0
    state: Any = None
    done = False
    start = np.ones(1, dtype=bool)
    while not done:
        picture = env.render()
        assert isinstance(picture, np.ndarray)
        yield picture, f"{heading}episode {episode + 1}   return {total:.1f}"
        batch: Any = np.asarray(observation)[None] if not isinstance(observation, dict) else None
        if batch is None:
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
        if agent.vec_normalize is not None:
            batch = agent.vec_normalize.normalize_obs(batch)
        action, state = agent.model.predict(batch, state=state, episode_start=start, deterministic=deterministic)
        start = np.zeros(1, dtype=bool)
        observation, reward, terminated, truncated, info = env.step(action[0])
        done = terminated or truncated
        total = 0.0 if info.get("new_episode") else total + float(reward)
        episode = info.get("episode_index", 0)


def _short(task: Any) -> str:
    """
    :return: A task in few characters
    """
    if isinstance(task, float):
        return f"{task:.2f}"
    if isinstance(task, (tuple, list)):
        return f"({', '.join(map(_short, task))})"
    return str(task)


def overlaid(frame: np.ndarray, text: str) -> np.ndarray:
    """
    :param frame: RGB picture
    :param text: Lines to write in its upper left corner
    :return: A new picture, enlarged if it is small, with even sides as video codecs want them
    """
    picture = Image.fromarray(frame)
    scale = max(1, -(-_SHORT_SIDE // min(picture.size)))
    width, height = (scale * side // 2 * 2 for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.load_default(size=height / 24)
    box = draw.multiline_textbbox((8, 8), text, font=font)
    draw.rectangle((box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4), fill=(255, 255, 255, 190))
    draw.multiline_text((8, 8), text, fill=(0, 0, 0), font=font)
    return np.asarray(picture)
