"""``render``: videos of a trial."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import TransformReward
from moviepy import VideoFileClip
from PIL import Image

from sb3_trmrl.__main__ import main
from sb3_trmrl.cli.render import captioned, film, make_trial
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.zoo.agents import open_agent
from tests.helpers.zoo import DEMO, ENV, train

pytestmark = pytest.mark.usefixtures("one_thread")


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
        assert texts[0].startswith(f"task {result.tasks[task]:.2f} m/s\n")
        assert rewards == pytest.approx(result.rewards[task].ravel(), rel=1e-3)


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
    assert seconds == pytest.approx(20 / 4, abs=0.3)


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
