"""A run that was interrupted and resumed is bit for bit the same as an uninterrupted one."""

import doctest
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback, InnerEpisodeCallback
from sb3_trmrl.resuming import training_checkpoint
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, read_training_state, steps_of
from tests.helpers.agents import SampledEnv, with_format
from tests.helpers.resuming import (
    Hooks,
    assert_same,
    assert_same_files,
    checkpoint_steps,
    everything_learned,
    make_env,
    new_model,
    normalised,
    record_logs,
)

pytestmark = pytest.mark.usefixtures("one_thread")

Run = tuple[TransformerPPO, Any, list[BaseCallback]]


def callbacks(folder: Path, env_id: str) -> list[BaseCallback]:
    return [
        TrainingCheckpoint(folder / "checkpoints", save_freq=1, keep=99),
        AdaptationEvalCallback(env_id, n_eval_episodes=3, eval_freq=70, log_path=str(folder), verbose=0),
        InnerEpisodeCallback(),
    ]


def begin(env: VecEnv, **kwargs: Any) -> TransformerPPO:
    return TransformerPPO("TrMRLPolicy", env, seed=1, n_epochs=2, **{"n_steps": 50, "batch_size": 50, **kwargs})


def learn(folder: Path, env: VecEnv, env_id: str, resume: Path | None = None, **kwargs: Any) -> Run:
    """A run of 500 steps from its beginning, or from a checkpoint on."""
    log_interval = kwargs.pop("log_interval", 1)
    if resume is None:
        model = begin(env, **kwargs)
    else:
        model = TransformerPPO.resume(resume, env)
        # As in another process
        random.seed(5), np.random.seed(6), th.manual_seed(7)
    logs = record_logs(model)
    made = callbacks(folder, env_id)
    model.learn(500, callback=made, log_interval=log_interval)
    return model, logs, made


def policy(**kwargs: Any) -> dict[str, Any]:
    return {"policy_kwargs": dict(d_model=8, n_layers=2, n_heads=2, dim_feedforward=8, **kwargs)}


WINDOW, SHORT = policy(context_length=5), policy(context_length=4)
FULL, BAND = ({"memory": "full", "reset_memory_on": "trial", **each} for each in ({}, {"context_length": 7}))
GSDE = dict(use_sde=True, sde_sample_freq=7, **policy(context_length=3))
SCHEDULES: dict[str, Any] = {
    "learning_rate": lambda left: 1e-3 * left,
    "vf_learning_rate": lambda left: 2e-3 * left,
    "clip_range": lambda left: 0.1 + 0.1 * left,
}
CASES: dict[str, tuple[str, Callable[[str], VecEnv], dict[str, Any]]] = {
    "window": ("SparsePointRobot-v0", normalised, WINDOW),
    "full memory, longer than a rollout": (
        "GridNavi-v0",
        normalised,
        dict(n_steps=25, batch_size=25, **policy(**FULL)),
    ),
    "full memory with a short band": ("GridNavi-v0", normalised, policy(**BAND)),
    "gSDE": ("SparsePointRobot-v0", partial(normalised, n_envs=3), GSDE),
    "schedules": ("BernoulliBandit-v0", make_env, SCHEDULES | SHORT),
    "logs every third rollout": ("BernoulliBandit-v0", make_env, dict(n_steps=25, log_interval=3, **SHORT)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case: str, tmp_path: Path) -> None:
    env_id, make, kwargs = CASES[case]
    model, logs, made = learn(tmp_path / "whole", make(env_id), env_id, **kwargs)
    learned = everything_learned(model)
    checkpoints = checkpoints_in(tmp_path / "whole" / "checkpoints")
    assert len(checkpoints) >= 3
    middle = checkpoints[len(checkpoints) // 2]
    resumed, its_logs, its_callbacks = learn(tmp_path / "resumed", make(env_id), env_id, resume=middle, **kwargs)
    assert_same(learned, everything_learned(resumed))
    # Evaluations log before the rollout's end: the last rows of the whole run are those of the resumed one
    assert 0 < len(its_logs.rows) < len(logs.rows)
    assert_same(logs.rows[-len(its_logs.rows) :], its_logs.rows)
    assert_same_files(tmp_path / "whole", tmp_path / "resumed")
    evaluations = made[1], its_callbacks[1]
    assert evaluations[0].best_mean_reward == evaluations[1].best_mean_reward  # type: ignore[attr-defined]
    # The next checkpoints are written at the same steps
    newest = [checkpoint_steps(tmp_path / each / "checkpoints")[-1] for each in ("whole", "resumed")]
    assert newest[0] == newest[1]


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    env_id, make, kwargs = CASES["window"]
    with_checkpoints, *_ = learn(tmp_path, make(env_id), env_id, **kwargs)
    model = begin(make(env_id), **kwargs)
    model.learn(500, callback=callbacks(tmp_path / "other", env_id)[1:])
    assert_same(everything_learned(with_checkpoints), everything_learned(model))


def test_a_second_learn_and_a_second_interruption(tmp_path: Path) -> None:
    """learn() that counts on from an earlier one, interrupted twice."""
    env_id, make, kwargs = CASES["window"]
    whole = begin(make(env_id), **kwargs).learn(200).learn(600, reset_num_timesteps=False)
    interrupted = begin(make(env_id), **kwargs).learn(200)
    interrupted.learn(300, reset_num_timesteps=False, callback=TrainingCheckpoint(tmp_path, save_freq=1))
    # The schedule's end is not part of a checkpoint: constant here
    once = TransformerPPO.resume(tmp_path, make(env_id))
    once.learn(500, reset_num_timesteps=False, callback=TrainingCheckpoint(tmp_path, save_freq=1))
    twice = TransformerPPO.resume(tmp_path, make(env_id))
    assert twice.num_timesteps < once.num_timesteps and twice.start_from is not None
    twice.learn(600, reset_num_timesteps=False)
    assert_same(everything_learned(whole), everything_learned(twice))
    assert twice.start_from is None


def test_workers_in_processes_of_their_own(tmp_path: Path) -> None:
    env = make_env(kind=SubprocVecEnv)
    whole = begin(env, **WINDOW)
    whole.learn(300, callback=TrainingCheckpoint(tmp_path, save_freq=100, keep=9))
    learned = everything_learned(whole)
    first, second = checkpoints_in(tmp_path)[1:]
    assert_same(learned, everything_learned(TransformerPPO.resume(first, make_env()).learn(300)))
    assert_same(learned, everything_learned(TransformerPPO.resume(second, env).learn(300)))
    env.close()


class Images(SampledEnv):
    """Images with the channels last, which SB3 transposes, from an environment that gives its state."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(0, 255, (36, 36, 3), np.uint8))

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, (int, float))}
        return {"space": self.observation_space, "attributes": numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.observation_space = state["space"]
        vars(self).update(state["attributes"])


def test_images_with_a_full_memory(tmp_path: Path) -> None:
    """Transposed images are not contiguous, unlike unpickled ones, which changes the rounding of convolutions."""
    whole = new_model(DummyVecEnv([Images, Images]), n_steps=8, batch_size=16, **policy(memory="full"))
    whole.learn(64, callback=TrainingCheckpoint(tmp_path, save_freq=16, keep=9))
    resumed = TransformerPPO.resume(checkpoints_in(tmp_path)[2], DummyVecEnv([Images, Images])).learn(64)
    assert_same(everything_learned(whole)["parameters"], everything_learned(resumed)["parameters"])


def test_a_checkpoint_of_an_older_version_keeps_its_window(tmp_path: Path) -> None:
    """A window of 16 was the default when it was written."""
    sizes: dict[str, Any] = dict(d_model=8, n_heads=2)
    whole = new_model(policy_kwargs=dict(memory="window", **sizes))
    whole.learn(192, callback=TrainingCheckpoint(tmp_path, save_freq=64, keep=9))
    checkpoint = checkpoints_in(tmp_path)[1]
    with_format(checkpoint, 2, **sizes).replace(checkpoint)
    resumed = TransformerPPO.resume(checkpoint, make_env()).learn(192)
    assert resumed.num_timesteps == 192 and 0 < steps_of(checkpoint) < 192
    assert_same(everything_learned(resumed), everything_learned(whole))


def test_an_environment_without_state_begins_new_episodes(tmp_path: Path) -> None:
    new_model(make_env("CartPole-v1")).learn(192, callback=TrainingCheckpoint(tmp_path, save_freq=64))
    model, starts = TransformerPPO.resume(tmp_path, make_env("CartPole-v1")), []
    look = Hooks(start=lambda callback: starts.append(callback.model._last_episode_starts.copy()))
    with pytest.warns(UserWarning, match=r"could not provide its state .* new episodes begin"):
        model.learn(192, callback=look)
    assert starts[0].all() and model.num_timesteps == 192


def test_another_platform_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_model().learn(64, callback=TrainingCheckpoint(tmp_path))
    model = TransformerPPO.resume(tmp_path, make_env())
    monkeypatch.setattr(th, "get_num_threads", lambda: 7)
    with pytest.warns(UserWarning, match="had threads 1 instead of 7: the resumed run will not be bit-identical"):
        model.learn(64)


def test_saved_threads_are_those_of_the_update(tmp_path: Path) -> None:
    th.set_num_threads(2)  # restored by the fixture
    env = make_env(kind=SubprocVecEnv)
    new_model(env).learn(64, callback=TrainingCheckpoint(tmp_path))
    env.close()
    platform = read_training_state(checkpoints_in(tmp_path)[-1]).platform
    assert platform["threads"] == 2 and platform["device"] == "cpu" and "mujoco" in platform


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = doctest.testmod(training_checkpoint)
    assert outcome.attempted > 0 and outcome.failed == 0
