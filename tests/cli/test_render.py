"""``render``: videos of a trial."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from moviepy import VideoFileClip
from PIL import Image

from sb3_trmrl import MultiEpisodeTrial
from sb3_trmrl.__main__ import main
from sb3_trmrl.cli import render as render_module
from sb3_trmrl.cli.render import captioned, film
from sb3_trmrl.cli.rendering import check_render_mode
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.agents import SampledEnv, tiny_model
from tests.helpers.environments import ToyFamily
from tests.helpers.zoo import DEMO, ENV, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def registered(env_id: str, entry_point: Callable[..., gym.Env]) -> Iterator[None]:
    gym.register(env_id, entry_point)
    try:
        yield
    finally:
        del gym.registry[env_id]


@pytest.mark.parametrize("env", [ENV, "HalfCheetahVel-v0"])
def test_render(env: str, tmp_path: Path, run: Path) -> None:
    video = tmp_path / "trial.mp4"
    if env != ENV:
        run = train(tmp_path, "-n", "40", "--env-kwargs", "horizon:10", "--eval-freq", "40", env=env)
    assert main(["render", str(run), "--output", str(video), "--task", "3", "--n-episodes", "2"]) == 0
    assert video.stat().st_size > 1_000
    with VideoFileClip(str(video)) as clip:
        assert clip.get_frame(0).std() > 1.0
        assert round(clip.duration * clip.fps) == 22  # 2 x 10 steps, and the end of each episode


class Drawn(SampledEnv):
    """An environment with some render modes, whose pictures are ``picture``"""

    picture: Any = None

    def __init__(self, modes: tuple[str, ...] = ("rgb_array",), render_mode: str | None = None) -> None:
        super().__init__()
        self.metadata = {"render_modes": list(modes)}
        self.render_mode = render_mode

    def render(self) -> Any:
        return self.picture


def undrawn() -> SampledEnv:
    """An environment that takes no render mode"""
    return SampledEnv()


@pytest.mark.filterwarnings("ignore:.*(render_mode|render fps|RGB-array)")
def test_environments_that_cannot_be_rendered(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    video = ["--output", "trial.mp4"]
    for entry_point, env_kwargs, expected in (
        (undrawn, [], ("take the argument `render_mode`", "rgb_array")),
        (Drawn, ["modes:('human','ansi')"], ("render_modes", "'rgb_array'", "['human', 'ansi']")),
        (Drawn, [], ("(height, width, 3)", "None")),
    ):
        with registered("Drawn-v0", entry_point):
            env = gym.make("Drawn-v0")
            tiny_model(env).export("agent", env_id="Drawn-v0")
            options = ["--env-kwargs", *env_kwargs] if env_kwargs else []
            error = error_of(["render", "agent.safetensors", *video, *options], capsys)
            assert all(word in error for word in ("render", *expected)), error
    assert not (tmp_path / "trial.mp4").exists()


def test_windows_need_a_render_mode_and_a_screen(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with registered("Drawn-v0", undrawn):
        train(tmp_path, "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0", env="Drawn-v0")
        enjoy = ["enjoy", "--env", "Drawn-v0", "-f", tmp_path, "-n", "5"]
        error = error_of(enjoy, capsys)
        assert "Drawn-v0" in error and "`render_mode`" in error and "'human'" in error
        assert main([*map(str, enjoy), "--no-render"]) == 0
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"--no-render.*`trmrl render`.*MUJOCO_GL"):
        check_render_mode("InvertedPendulum-v5", {}, "human")
    check_render_mode("InvertedPendulum-v5", {}, "rgb_array")
    monkeypatch.setenv("DISPLAY", ":0")
    check_render_mode("InvertedPendulum-v5", {}, "human")


def test_render_without_trials(tmp_path: Path, capsys: Any) -> None:
    """Episodes without a task, with a reward of 1 at each step but the last, and the picture after the last step."""
    run = train(tmp_path, "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0", env="InvertedPendulum-v5")
    video = tmp_path / "episode.mp4"
    assert main(["render", str(run), "--output", str(video)]) == 0
    agent = open_agent(run)
    result = evaluate_adaptation(
        agent.model, agent.env_id, n_eval_tasks=5, n_eval_episodes=1, vec_normalize=agent.vec_normalize
    )
    lengths = result.lengths[:, 0].astype(int)
    frames = (lengths + 1).cumsum()  # the video ends with the first episode that makes it long enough
    total = next((count for count in frames if count >= 100), frames[-1])
    for episode in range(2):
        texts = [text for _, text in film(agent, episode, 1, 0, True, first=episode + 1)]
        steps = [*range(lengths[episode]), lengths[episode] - 1]
        expected = [f"episode {episode + 1}   return {step:.{1 if step >= 10 else 2}f}" for step in steps]
        assert texts == expected
    assert f": {total} frames" in capsys.readouterr().out
    assert main(["render", str(run), "--output", str(video), "--n-episodes", "1"]) == 0
    assert f": {lengths[0] + 1} frames" in capsys.readouterr().out


class Corridor(gym.Env):
    """Two steps to the goal, which pays; the picture shows the position."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Box(0, 2, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.position += 1
        at_goal = self.position == 2
        return np.full(1, self.position, np.float32), 0.94 if at_goal else -0.03, at_goal, False, {}

    def render(self) -> np.ndarray:
        return np.full((40, 40, 3), 100 * self.position, dtype=np.uint8)


class CorridorOfTasks(Corridor, ToyFamily):
    """The same with tasks"""


def corridor_trials(render_mode: str | None = None) -> gym.Env:
    """Two episodes on the same corridor"""
    return MultiEpisodeTrial(CorridorOfTasks(render_mode), 2)


@pytest.mark.parametrize(("entry_point", "n_episodes"), [(Corridor, 1), (corridor_trials, 2)])
def test_the_end_of_each_episode_is_shown(entry_point: Any, n_episodes: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Also where the trial resets the environment, and in a GIF, which skips frames."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(render_module, "_MAX_EPISODES", 1)
    with registered("Corridor-v0", entry_point):
        tiny_model(gym.make("Corridor-v0")).export("agent", env_id="Corridor-v0")
        frames = list(film(open_agent("agent.safetensors"), 0, n_episodes, 0, True))
        assert main(["render", "agent.safetensors", "--output", "end.gif"]) == 0
    shown = [(int(picture[0, 0, 0]), text.rpartition(" ")[2]) for picture, text in frames]
    assert shown == [(0, "0.00"), (100, "-0.03"), (200, "0.91")] * n_episodes
    with Image.open("end.gif") as gif:
        gif.seek(getattr(gif, "n_frames", 1) - 1)
        assert abs(int(np.asarray(gif.convert("RGB"))[-5, 5, 0]) - 200) < 20


def test_render_shows_a_trial_of_the_evaluation() -> None:
    kwargs = {"horizon": 10}
    agent = open_agent(DEMO, env_kwargs=kwargs)
    result = evaluate_adaptation(
        agent.model, agent.env_id, n_eval_episodes=2, env_kwargs=agent.env_kwargs, vec_normalize=agent.vec_normalize
    )
    for task in (3, 19):
        texts = [text for _, text in film(agent, task, 2, 0, True)]
        assert texts[0].startswith(f"task {result.tasks[task]:.2f} m/s\n")
        returns = np.hstack([np.zeros((2, 1)), result.rewards[task].cumsum(axis=1)]).ravel()
        assert [float(text.rpartition(" ")[2]) for text in texts] == pytest.approx(returns, abs=0.06)


def test_captions_stand_above_the_picture() -> None:
    frame = np.random.default_rng(0).integers(255, size=(321, 481, 3), dtype=np.uint8)
    shown = captioned(frame, "task 1.35 m/s\nepisode 1   return -3.2")
    assert shown.shape[0] % 2 == shown.shape[1] % 2 == 0
    band = shown[:-320]
    assert 0.7 < (band == 255).mean() < 1 and (band.min(axis=(1, 2)) < 100).any()  # white, with black text
    np.testing.assert_array_equal(captioned(frame, "")[-320:], shown[-320:])


def test_render_a_gif(run: Path, tmp_path: Path) -> None:
    """Frames are skipped, not played slower."""
    path = tmp_path / "trial.gif"
    assert main(["render", str(run), "--output", str(path), "--n-episodes", "2"]) == 0
    with Image.open(path) as picture:
        assert picture.width == 320 and picture.n_frames > 1
        seconds = picture.n_frames * picture.info["duration"] / 1000
    assert seconds == pytest.approx(22 / 4, abs=0.3)


def test_stochastic_actions_of_a_video_are_seeded(run: Path, tmp_path: Path) -> None:
    frames: list[list[np.ndarray]] = []
    for seed in (1, 1, 2):
        th.manual_seed(len(frames))
        path = tmp_path / f"{len(frames)}.webm"
        arguments = ["--sampled", "--seed", str(seed), "--n-episodes", "4", "--output", str(path)]
        assert main(["render", str(run), *arguments]) == 0
        with VideoFileClip(str(path)) as clip:
            frames.append([frame.copy() for frame in clip.iter_frames()])
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])
