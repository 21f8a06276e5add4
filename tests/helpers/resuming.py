"""Runs to be interrupted and resumed, and what is compared of them."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, steps_of
from tests.helpers.agents import TINY
from tests.helpers.zoo import train

ENV = "sb3_trmrl:SparsePointRobot-v0"


def make_env(env_id: str = ENV, n_envs: int = 2, kind: type[VecEnv] = DummyVecEnv, seed: int = 0) -> VecEnv:
    return make_vec_env(env_id, n_envs, seed=seed, vec_env_cls=kind)  # type: ignore[arg-type]


def new_model(env: VecEnv | None = None, **kwargs: Any) -> TransformerPPO:
    """A tiny model with rollouts of 64 steps in two environments."""
    settings: dict[str, Any] = dict(n_steps=32, batch_size=64, n_epochs=1, seed=0, policy_kwargs=TINY) | kwargs
    return TransformerPPO("TrMRLPolicy", make_env() if env is None else env, **settings)


def normalised(env_id: str = ENV, n_envs: int = 2, kind: type[VecEnv] = DummyVecEnv) -> VecEnv:
    return VecNormalize(make_env(env_id, n_envs, kind), gamma=0.9, norm_obs_keys=["observation"])


def kill_worker(env: VecEnv, index: int) -> None:
    os.kill(env.unwrapped.processes[index].pid, signal.SIGKILL)  # type: ignore[attr-defined]


def checkpoint_steps(folder: Path) -> list[int]:
    return [steps_of(path) for path in checkpoints_in(folder)]


class Hooks(BaseCallback):
    """Calls functions with itself: at each step, and where a rollout begins and ends. Counts rollouts."""

    def __init__(self, step: Any = lambda _: None, start: Any = lambda _: None, end: Any = lambda _: None) -> None:
        super().__init__()
        self.step, self.start, self.end = step, start, end
        self.rollouts = 0

    def _on_step(self) -> bool:
        self.step(self)
        return True

    def _on_rollout_start(self) -> None:
        self.rollouts += 1
        self.start(self)

    def _on_rollout_end(self) -> None:
        self.end(self)


def step_log(path: Path) -> Hooks:
    """Adds a line to a file at the end of each rollout: the number of steps."""

    def write(callback: Hooks) -> None:
        with path.open("a") as file:
            file.write(f"{callback.num_timesteps}\n")

    return Hooks(end=write)


def train_until(
    steps: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *options: str,
    algorithm: Any = TransformerPPO,
    **kwargs: Any,
) -> Path:
    """Train with these options of the command line. The run dies at the first update after some steps."""
    real = algorithm.train

    def dies(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.num_timesteps >= steps:
            raise MemoryError
        real(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(algorithm, "train", dies)
        train(folder, *options, **kwargs)
    (run,) = folder.glob("*/*_1")
    return run


def kills_worker(env: VecEnv, index: int) -> Hooks:
    """Return a callback that kills a worker at its third call."""
    return Hooks(step=lambda callback: kill_worker(env, index) if callback.n_calls == 3 else None)


class LogRecorder(KVWriter):
    """Keeps what is logged, by step."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        # Times are those of the clock, and iterations are counted by call of learn()
        kept = {key: value for key, value in key_values.items() if not key.startswith("time/")}
        self.rows.append((step, kept))

    def close(self) -> None:
        """Nothing is open"""


def record_logs(model: BaseAlgorithm) -> LogRecorder:
    recorder = LogRecorder()
    model.set_logger(Logger(None, [recorder]))
    return recorder


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Compare numbers, arrays, tensors and containers of those to the last bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), (where, first.keys() ^ second.keys())
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), (where, len(first), len(second))
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    elif isinstance(first, th.Tensor):
        assert th.equal(first, second), where
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second, err_msg=where)
    else:
        # NaN is what SB3 logs without a value
        assert first == second or (first != first and second != second), (where, first, second)


def everything_learned(model: Any) -> dict[str, Any]:
    """Return what training has changed: parameters, optimizers, buffers, counters, statistics and generators."""
    normalizer = model.get_vec_normalize_env()
    infos = [{key: value for key, value in info.items() if key != "t"} for info in model.ep_info_buffer or []]
    parts, tensors = model._get_torch_save_params()
    buffer = getattr(model, "replay_buffer", None)
    return {
        "parameters": {name: value.clone() for name, value in model.policy.state_dict().items()},
        "parts": {name: recursive_getattr(model, name).state_dict() for name in parts},
        "tensors": {name: recursive_getattr(model, name).detach().clone() for name in tensors},
        "buffer": {name: value for name, value in vars(buffer).items() if _is_data(value)} if buffer else None,
        "trials": model.trial_buffer._trials if hasattr(model, "trial_buffer") else None,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "episodes": infos,
        "last_obs": model._last_obs,
        "lstm_states": getattr(model, "_last_lstm_states", None),
        "returns": None if normalizer is None else normalizer.returns,
        "reward_variance": None if normalizer is None else normalizer.ret_rms.var,
        "generators": [th.get_rng_state(), np.random.get_state()[1]],
        "action_generator": model.action_space.np_random.bit_generator.state,
    }


def _is_data(value: Any) -> bool:
    """Whether an attribute of a buffer is an array or contains arrays, unlike its sizes, places and spaces."""
    return isinstance(value, (np.ndarray, dict, list))


def assert_same_files(first: Path, second: Path) -> None:
    """Compare what evaluations and monitors of two runs wrote, except times."""
    for name in ("evaluations.npz", "adaptation.npz"):
        with np.load(first / name) as expected, np.load(second / name) as found:
            assert_same(
                *({key: data[key] for key in data if not key.endswith("seconds")} for data in (expected, found)), name
            )
    for file in sorted(first.glob("*.monitor.csv")):
        # Return and length of each trial; the third column is the time
        rows = [
            [line.split(",")[:2] for line in (run / file.name).read_text().splitlines()[1:]] for run in (first, second)
        ]
        assert rows[0] == rows[1]
