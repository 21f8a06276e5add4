"""``render``: videos of a trial."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import TransformReward
from moviepy import VideoFileClip

from sb3_trmrl.__main__ import main
from sb3_trmrl.cli.render import film, make_trial
from sb3_trmrl.cli.rendering import check_render_mode
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.agents import SampledEnv, tiny_model
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
        assert round(clip.duration * clip.fps) == 20


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
    """One episode without a task, with a reward of 1 at each step."""
    run = train(tmp_path, "-n", "40", "--eval-freq", "-1", "--checkpoint-freq", "0", env="InvertedPendulum-v5")
    video = tmp_path / "episode.mp4"
    assert main(["render", str(run), "--output", str(video)]) == 0
    agent = open_agent(run)
    env, seed = make_trial(agent, 0, 1, 0)
    texts = [text for _, text in film(agent, env, seed, True)]
    env.close()
    assert texts == [f"episode 1   return {step:.1f}" for step in range(len(texts))]
    assert f"{len(texts)} frames" in capsys.readouterr().out


def test_render_shows_a_trial_of_the_evaluation() -> None:
    kwargs = {"horizon": 10}
    agent = open_agent(DEMO, env_kwargs=kwargs)
    result = evaluate_adaptation(
        agent.model, agent.env_id, n_eval_episodes=2, env_kwargs=agent.env_kwargs, vec_normalize=agent.vec_normalize
    )
    for task in (3, 19):
        env, seed = make_trial(agent, task, 2, 0)
        rewards: list[float] = []
        recorder = TransformReward(env, lambda reward, rewards=rewards: rewards.append(float(reward)) or reward)
        texts = [text for _, text in film(agent, recorder, seed, True)]
        env.close()
        assert texts[0].startswith(f"task {result.tasks[task]:.2f}\n")
        assert rewards == pytest.approx(result.rewards[task].ravel(), rel=1e-3)


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
