"""Runs that fail name the cause and leave their last checkpoint intact."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from tests.helpers.resuming import Hooks, assert_same, kill_worker, make_env, new_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_killed_worker_is_named_and_the_checkpoint_intact(tmp_path: Path) -> None:
    env = make_env(kind=SubprocVecEnv)
    kill = Hooks(step=lambda callback: kill_worker(env, 1) if callback.num_timesteps == 150 else None)
    with pytest.raises(RuntimeError, match=r"worker process .* environment 1 \(exit code -9\)"):
        new_model(env).learn(256, callback=[TrainingCheckpoint(tmp_path, save_freq=64), kill])
    resumed = TransformerPPO.resume(tmp_path, make_env())
    assert resumed.num_timesteps == 128
    assert resumed.learn(192, callback=Hooks()).num_timesteps == 192


def test_a_gradient_that_is_not_finite_leaves_weights_and_checkpoint(tmp_path: Path) -> None:
    model, before = new_model(), {}

    def overflow(callback: Hooks) -> None:
        if callback.num_timesteps == 192:
            model.rollout_buffer.returns[7] = np.inf
            before.update({name: value.clone() for name, value in model.policy.state_dict().items()})

    with pytest.raises(FloatingPointError, match=r"non-finite gradient .* the weights were not changed"):
        model.learn(256, callback=[TrainingCheckpoint(tmp_path, save_freq=64), Hooks(end=overflow)])
    assert_same(before, dict(model.policy.state_dict()))
    assert TransformerPPO.resume(tmp_path, make_env()).num_timesteps == 128


def test_a_reward_that_is_not_finite_leaves_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env()
    inner = env.unwrapped.envs[1].unwrapped  # type: ignore[attr-defined]
    step, calls = inner.step, []

    def broken(action: Any) -> Any:
        observation, reward, *rest = step(action)
        calls.append(reward)
        return observation, float("nan") if len(calls) == 80 else reward, *rest

    monkeypatch.setattr(inner, "step", broken)
    with pytest.raises(ValueError, match=r"non-finite .* from environment 1"):
        new_model(env).learn(256, callback=TrainingCheckpoint(tmp_path, save_freq=64))
    assert TransformerPPO.resume(tmp_path, make_env()).num_timesteps == 128


def test_a_state_that_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    env = make_env()
    env.unwrapped.envs[0].unwrapped.state_dict = lambda: {"function": lambda: None}  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"state_dict\(\) of the environment must return a picklable object"):
        new_model(env).learn(64, callback=TrainingCheckpoint(tmp_path))
