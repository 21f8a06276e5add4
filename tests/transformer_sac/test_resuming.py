"""A run of TransformerSAC that was interrupted and resumed is bit for bit the same as an uninterrupted one."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_trmrl import TrainingCheckpoint, TransformerSAC
from sb3_trmrl.__main__ import main
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of
from tests.helpers.resuming import (
    ENV,
    Hooks,
    assert_same,
    assert_same_files,
    checkpoint_steps,
    everything_learned,
    make_env,
    normalised,
    record_logs,
    train_until,
)
from tests.helpers.sac import tiny_sac
from tests.helpers.zoo import train

pytestmark = pytest.mark.usefixtures("one_thread")
#: The trials of both environments end after 160 and 320 steps in all
STEPS, SAVE_FREQ, RESUMED = 330, 40, 200


def checkpoint_of(folder: Path) -> Path:
    """Return a checkpoint in the middle of the run."""
    (path,) = (path for path in checkpoints_in(folder) if steps_of(path) == RESUMED)
    return path


def learn(model: TransformerSAC, folder: Path) -> tuple[dict[str, Any], Any]:
    logs = record_logs(model)
    model.learn(STEPS, TrainingCheckpoint(folder, save_freq=SAVE_FREQ, keep=99), log_interval=1)
    return everything_learned(model), logs


CASES: dict[str, dict[str, Any]] = {
    "uniform actions before learning starts": dict(learning_starts=270),
    "the ring is full": dict(buffer_size=120),
    "gSDE": dict(use_sde=True, sde_sample_freq=7, train_freq=5),
    "whole rollouts, shared transformer": dict(
        train_freq=10, gradient_steps=3, policy_kwargs=dict(share_features_extractor=True, reset_memory_on="trial")
    ),
    "schedule and fixed entropy": dict(learning_rate=lambda left: 1e-3 * left, ent_coef=0.1),
    "action noise": dict(action_noise=OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2)), train_freq=5),
    "full memory": dict(
        policy_kwargs=dict(memory="full", context_length=30), replay_buffer_kwargs=dict(sequence_length=4)
    ),
    "memory-mapped": dict(replay_buffer_kwargs=dict(folder="")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case: str, tmp_path: Path) -> None:
    settings = dict(CASES[case])
    if case == "memory-mapped":
        settings["replay_buffer_kwargs"] = dict(folder=str(tmp_path))
    whole, logs = learn(tiny_sac(normalised(), **settings), tmp_path / "whole")
    model = TransformerSAC.resume(checkpoint_of(tmp_path / "whole"), normalised())
    # As in another process
    random.seed(5), np.random.seed(6), th.manual_seed(7)
    resumed, its_logs = learn(model, tmp_path / "resumed")
    assert_same(whole, resumed)
    assert 0 < len(its_logs.rows) < len(logs.rows)
    assert_same(logs.rows[-len(its_logs.rows) :], its_logs.rows)
    # The next checkpoints are written at the same steps
    steps = [checkpoint_steps(tmp_path / each) for each in ("whole", "resumed")]
    assert steps[1] == [each for each in steps[0] if each > RESUMED]
    if case == "memory-mapped":
        assert isinstance(model.replay_buffer.actions, np.memmap)


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    with_checkpoints, _ = learn(tiny_sac(normalised()), tmp_path)
    model = tiny_sac(normalised())
    model.learn(STEPS, log_interval=1)
    assert_same(with_checkpoints, everything_learned(model))


def test_workers_in_processes_of_their_own(tmp_path: Path) -> None:
    whole, _ = learn(tiny_sac(normalised()), tmp_path / "whole")
    env = normalised(kind=SubprocVecEnv)
    model = TransformerSAC.resume(checkpoint_of(tmp_path / "whole"), env)
    assert_same(whole, learn(model, tmp_path / "resumed")[0])
    env.close()


def test_without_the_state_of_the_environment_new_episodes_begin(tmp_path: Path) -> None:
    """The windows of the new episodes do not reach back to the interrupted ones."""
    before = tiny_sac(make_env("Pendulum-v1", 2))
    before.learn(64, TrainingCheckpoint(tmp_path, save_freq=60))
    model = TransformerSAC.resume(tmp_path, make_env("Pendulum-v1", 2))
    with pytest.warns(UserWarning, match=r"could not provide its state .* new episodes begin"):
        model.learn(70)
    buffer = model.replay_buffer
    last = checkpoint_steps(tmp_path)[-1] // 2  # steps of each environment, which are the first tokens
    # An interrupted episode has its last observation as a token, and the next token begins the new episode
    np.testing.assert_array_equal(buffer.lengths[:, last - 1 : last + 4], [[3, 3, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(buffer.is_transition[:, last - 1 : last + 4], [[True, False, True, True, True]] * 2)


def test_train_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--algo", "trmrl_sac", "-n", "200", "--eval-freq", "40", "--eval-episodes", "2", "--n-eval-envs", "2"]
    options += ["--checkpoint-freq", "60", "--verbose", "0"]
    settings = ["n_envs:2", "learning_starts:10", "gradient_steps:1", "batch_size:4", "buffer_size:500"]
    env_id = ENV.removeprefix("sb3_trmrl:")
    whole = train(tmp_path / "whole", *options, params=settings, env=env_id)
    kwargs = {"params": settings, "env": env_id}
    dead = train_until(150, tmp_path / "dead", monkeypatch, *options, algorithm=TransformerSAC, **kwargs)
    assert checkpoint_steps(dead / "checkpoints")[-1] == 120
    assert main(["train", "--resume", str(dead)]) == 0
    models = [TransformerSAC.load(run / f"{env_id}.zip") for run in (whole, dead)]
    assert_same(*(dict(model.policy.state_dict()) for model in models))
    assert_same_files(whole, dead)


def test_an_update_that_fails_leaves_the_checkpoint(tmp_path: Path) -> None:
    model = tiny_sac(normalised())

    def overflow(callback: Hooks) -> None:
        if callback.num_timesteps == 150:
            model.replay_buffer.actions[:] = np.nan

    with pytest.raises(FloatingPointError):
        model.learn(300, [TrainingCheckpoint(tmp_path, save_freq=40), Hooks(step=overflow)])
    resumed = TransformerSAC.resume(tmp_path, normalised())
    assert resumed.num_timesteps == 120 and resumed.learn(160, Hooks()).num_timesteps == 160
