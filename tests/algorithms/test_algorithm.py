"""What all algorithms have in common."""

import os
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import EvalCallback, ProgressBarCallback
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_trmrl.common import threads
from tests.helpers.algorithms import ALGORITHMS, tiny
from tests.helpers.resuming import ENV, Hooks, kills_worker, make_env

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.parametrize("name", ALGORITHMS)]


def parameters(model: Any) -> dict[str, th.Tensor]:
    return dict(model.policy.state_dict())


def test_numpy_seeds(name: str) -> None:
    """They are those of Python's integers."""
    plain, numpy = (parameters(tiny(name, make_env(), seed=seed).learn(50)) for seed in (3, np.int64(3)))
    assert all(th.equal(plain[key], numpy[key]) for key in plain)
    other = parameters(tiny(name, make_env(), seed=4))
    assert any(not th.equal(plain[key], other[key]) for key in plain)


def test_a_killed_worker_ends_training(name: str) -> None:
    """With "fork", the other workers hold the pipe of the dead one open, and SB3 would wait for ever."""
    env: Any = make_env(kind=lambda makers: SubprocVecEnv(makers, start_method="fork"))  # type: ignore[arg-type]
    kill = kills_worker(env, 1)
    with pytest.raises(RuntimeError, match=r"worker process .* environment 1 \(exit code -9\)"):
        tiny(name, env).learn(1_000, callback=kill)
    assert kill.n_calls == 3
    env.close()


def test_a_killed_worker_of_an_evaluation_ends_training(name: str) -> None:
    env, eval_env = make_env(), make_env(n_envs=3, kind=lambda makers: SubprocVecEnv(makers, start_method="fork"))  # type: ignore[arg-type]
    kill = kills_worker(eval_env, 2)
    evaluation = EvalCallback(eval_env, n_eval_episodes=3, eval_freq=5, warn=False)
    with (
        pytest.warns(UserWarning, match="not of the same type"),
        pytest.raises(RuntimeError, match=r"environment 2 \(exit code -9\)"),
    ):
        tiny(name, env).learn(1_000, callback=[kill, evaluation])
    eval_env.close()


def test_one_thread_beside_workers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While workers step, PyTorch computes with one thread, in updates with all of them."""
    env = make_env(kind=SubprocVecEnv)
    model = tiny(name, env)
    found: list[int] = []
    monkeypatch.setattr(threads.th, "set_num_threads", found.append)
    monkeypatch.setattr(threads.th, "get_num_threads", lambda: 7)
    while_acting: list[int] = []
    model.learn(20, callback=Hooks(step=lambda _: while_acting.append(found[-1])))
    assert set(while_acting) == {1} and found[-1] == 7
    env.close()


def test_progress_bar(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the steps of all environments."""
    counts: list[int] = []
    end = ProgressBarCallback._on_training_end
    monkeypatch.setattr(
        ProgressBarCallback, "_on_training_end", lambda self: (counts.append(self.pbar.n), end(self))[1]
    )
    model = tiny(name, make_env()).learn(100, progress_bar=True)
    assert counts == [model.num_timesteps] and counts[0] >= 100


def test_the_run_has_the_name_of_the_class(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = tiny(name, make_env(), tensorboard_log=str(tmp_path)).learn(40)
    model.learn(40, tb_log_name="again")
    assert sorted(os.listdir(tmp_path)) == sorted([f"{name}_1", "again_1"])


def test_any_mapping_of_policy_kwargs(name: str) -> None:
    given = {key: value for key, value in tiny(name, make_env()).policy_kwargs.items() if key != "use_sde"}
    for kind in (OrderedDict, MappingProxyType):
        model = tiny(name, make_env(), policy_kwargs=kind(given))
        assert parameters(model).keys() == parameters(tiny(name, make_env())).keys()


def test_another_environment(name: str) -> None:
    model = tiny(name, make_env())
    with pytest.raises(TypeError, match="`env`"):
        model.set_env(5)
    model.set_env(make_env(seed=1))
    assert model.learn(40).num_timesteps >= 40
    with pytest.raises((TypeError, ValueError), match="`env`"):
        tiny(name, None)
    assert tiny(name, ENV).n_envs == 1
