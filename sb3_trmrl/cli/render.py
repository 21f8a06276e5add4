"""``render``: a video of one trial, task and episode written over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from sb3_trmrl.cli.agents import LoadedAgent, agent_of, agent_parser
from sb3_trmrl.common.held_out import evaluation_seed, has_splits
from sb3_trmrl.common.wrappers import trials_of
from sb3_trmrl.zoo.launchers import render_without_display

#: Pixels of a video's shorter side at least: the grids are small
_SHORT_SIDE = 320


def render(arguments: Sequence[str]) -> None:
    """
    Write a video of one trial.

    :param arguments: See ``--help``
    """
    parser = agent_parser(
        "render", "A video of one trial on a test task.", "logs/trmrl/HalfCheetahVel-v0_1 --output trial.mp4"
    )
    parser.add_argument("--task", type=int, default=0, help="which of the test tasks, from 0 (default: 0)")
    parser.add_argument("--n-episodes", type=int, default=2, help="episodes of the trial (default: 2)")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the likeliest ones")
    parser.add_argument("--output", type=Path, default=Path("trial.mp4"), help="file to write (default: trial.mp4)")
    options = parser.parse_args(arguments)
    if options.task < 0 or options.n_episodes < 1:
        parser.error(f"--task must be 0 or more and --n-episodes 1 or more, got {options.task}, {options.n_episodes}")
    render_without_display()
    agent = agent_of(options)
    env = _make_env(agent, options.task, options.n_episodes)
    try:
        steps = trial(agent, env, options.seed, not options.sampled)
        frames = [overlaid(frame, text) for frame, text in tqdm(steps, desc="steps")]
        fps = env.metadata.get("render_fps", 30)
    finally:
        env.close()
    # Imported late, it takes a second
    from moviepy import ImageSequenceClip

    options.output.parent.mkdir(parents=True, exist_ok=True)
    ImageSequenceClip(frames, fps=fps).write_videofile(str(options.output), logger=None)
    print(f"Wrote {options.output}: {len(frames)} frames")


def _make_env(agent: LoadedAgent, task: int, n_episodes: int) -> gym.Env:
    """
    :param agent: Agent
    :param task: Index of the test task
    :param n_episodes: Episodes of the trial
    :return: Environment that draws its pictures
    """
    split = {"split": "test"} if has_splits(agent.env_id) else {}
    env = gym.make(agent.env_id, render_mode="rgb_array", **{**agent.env_kwargs, **split})
    trials = trials_of(env)
    if trials is not None:
        trials.episodes_per_trial = n_episodes
        if split:
            trials.tasks = (env.get_wrapper_attr("held_out_tasks")("test", task + 1)[task],)
    return env


def trial(agent: LoadedAgent, env: gym.Env, seed: int, deterministic: bool) -> Iterator[tuple[np.ndarray, str]]:
    """
    :param agent: Agent
    :param env: Environment with render mode ``"rgb_array"``
    :param seed: Seed of the trial
    :param deterministic: Whether actions are the likeliest ones
    :return: For each step the picture before it, (height, width, 3), and what to write over it
    """
    observation, info = env.reset(seed=evaluation_seed(seed, "test"))
    task, episode, total = info.get("task"), 0, 0.0
    state: Any = None
    done = False
    start = np.ones(1, dtype=bool)
    while not done:
        picture = env.render()
        assert isinstance(picture, np.ndarray)
        yield picture, f"task {_short(task)}\nepisode {episode + 1}   return {total:.1f}"
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
