"""An interrupted and resumed run of another agent or a baseline is the uninterrupted one to the last bit."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from rl_zoo3 import ALGOS

from sb3_trmrl import TrainingCheckpoint
from sb3_trmrl.__main__ import main
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of
from tests.helpers.algorithms import tiny
from tests.helpers.resuming import (
    assert_same,
    assert_same_files,
    checkpoint_steps,
    everything_learned,
    make_env,
    normalised,
    record_logs,
    train_until,
)
from tests.helpers.zoo import train

pytestmark = pytest.mark.usefixtures("one_thread")


#: Environment, steps of the run and of the checkpoint
CASES: dict[str, tuple[Any, int, int]] = {
    # Trials have 60 steps in each environment, so the checkpoint is in the middle of one
    "VariBAD": (lambda: normalised("SparsePointRobot-v0"), 330, 192),
    "PEARL": (lambda: make_env("SparsePointRobot-v0"), 400, 240),
    "MAMLTRPO": (lambda: normalised("SparsePointRobot-v0"), 400, 240),
    "PPO": (lambda: normalised("SparsePointRobot-v0"), 330, 192),
    "RecurrentPPO": (lambda: normalised("SparsePointRobot-v0"), 330, 192),
}


def learn(model: Any, steps: int, folder: Path) -> tuple[dict[str, Any], Any]:
    logs = record_logs(model)
    model.learn(steps, TrainingCheckpoint(folder, save_freq=1, keep=99))
    return everything_learned(model), logs


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case: str, tmp_path: Path) -> None:
    make, steps, resumed_at = CASES[case]
    whole, logs = learn(tiny(case, make()), steps, tmp_path / "whole")
    (checkpoint,) = (path for path in checkpoints_in(tmp_path / "whole") if steps_of(path) == resumed_at)
    model = type(tiny(case, make())).resume(checkpoint, make())
    # As in another process
    random.seed(5), np.random.seed(6), th.manual_seed(7)
    resumed, its_logs = learn(model, steps, tmp_path / "resumed")
    assert_same(whole, resumed)
    assert 0 < len(its_logs.rows) < len(logs.rows)
    assert_same(logs.rows[-len(its_logs.rows) :], its_logs.rows)
    written = [checkpoint_steps(tmp_path / each) for each in ("whole", "resumed")]
    assert written[1] == [each for each in written[0] if each > resumed_at]


def test_states_of_recurrent_networks_do_not_depend_on_the_device() -> None:
    model = tiny("RecurrentPPO", normalised("SparsePointRobot-v0")).learn(64)
    state = model.memory_state()
    arrays = [each for pair in state["lstm_states"] for each in pair]
    assert len(arrays) == 4 and all(type(each) is np.ndarray for each in arrays)
    before = model._last_lstm_states
    model.load_memory_state(state)
    assert_same(before, model._last_lstm_states)
    assert type(model._last_lstm_states) is type(before)


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_change_nothing(case: str, tmp_path: Path) -> None:
    make, steps, _ = CASES[case]
    whole, _ = learn(tiny(case, make()), steps, tmp_path)
    assert_same(whole, everything_learned(tiny(case, make()).learn(steps)))


SETTINGS = {
    "varibad": ["n_envs:2", "n_steps:40", "batch_size:40", "n_epochs:1", "vae_batch_trials:2"],
    "pearl": [
        *("n_envs:2", "n_train_tasks:4", "initial_steps:20", "prior_steps:20", "posterior_steps:0"),
        *("tasks_per_iteration:2", "gradient_steps:1", "meta_batch_size:2", "batch_size:4", "context_batch_size:4"),
    ],
    "maml_trpo": ["n_envs:2", "n_tasks:2", "n_inner_episodes:1"],
    "ppo": ["n_envs:2", "n_steps:40", "batch_size:40", "n_epochs:1"],
    "ppo_lstm": ["n_envs:2", "n_steps:40", "batch_size:40", "n_epochs:1"],
}


@pytest.mark.parametrize("algo", SETTINGS)
def test_train_resume(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_id = "GridNavi-v0" if algo == "maml_trpo" else "SparsePointRobot-v0"  # each has an entry there
    options = ["--algo", algo, "-n", "240", "--eval-freq", "80", "--eval-episodes", "2", "--n-eval-envs", "2"]
    options += ["--checkpoint-freq", "80", "--verbose", "0"]
    whole = train(tmp_path / "whole", *options, params=SETTINGS[algo], env=env_id)
    algorithm: Any = ALGOS[algo]
    kwargs = {"params": SETTINGS[algo], "env": env_id}
    dead = train_until(160, tmp_path / "dead", monkeypatch, *options, algorithm=algorithm, **kwargs)
    assert main(["train", "--resume", str(dead)]) == 0
    models = [algorithm.load(run / f"{env_id}.zip") for run in (whole, dead)]
    assert models[0].num_timesteps == models[1].num_timesteps >= 240
    assert_same(*(dict(model.policy.state_dict()) for model in models))
    assert_same_files(whole, dead)
