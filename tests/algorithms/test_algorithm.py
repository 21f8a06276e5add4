"""What all algorithms have in common."""

import os
import signal
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback, ProgressBarCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_trmrl import MultiEpisodeTrial, PreviousTransitionObservation
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


def test_an_environment_that_is_refused_is_not_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(name, make_env()).learn(40)
    before = {key: vars(model)[key] for key in ("env", "_last_obs", "_vec_normalize_env")}

    def refuse() -> None:
        raise ValueError("`env` is not suitable")

    monkeypatch.setattr(model, "_check_vec_env", refuse)
    with pytest.raises(ValueError, match="not suitable"):
        model.set_env(VecNormalize(make_env(seed=1)))
    assert all(vars(model)[key] is value for key, value in before.items())


def test_ctrl_c_that_workers_get_too(name: str) -> None:
    """They may end first. The reason for the end of training is still the interruption."""
    env: Any = make_env(kind=lambda makers: SubprocVecEnv(makers, start_method="fork"))  # type: ignore[arg-type]

    def interrupt(callback: Hooks) -> None:
        for process in env.processes:
            os.kill(process.pid, signal.SIGINT)
            process.join()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(name, env).learn(100, Hooks(step=interrupt))


def test_function_callbacks_see_the_model(name: str) -> None:
    seen: list[Any] = []
    model = tiny(name, make_env())
    model.learn(40, lambda variables, _: seen.append(variables["self"]) is None and model.num_timesteps < 4)
    assert seen and all(each is model for each in seen)


class _Counter(gym.Env[Any, Any]):
    """Its task is a number, and its observation stands for the steps since its reset."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, space: spaces.Space[Any], observe: Any) -> None:
        self.observation_space, self._observe = space, observe
        self.task, self.n_steps = 0.0, 0

    def sample_tasks(self, n_tasks: int) -> list[float]:
        return [float(task) for task in self.np_random.random(n_tasks)]

    def set_task(self, task: float) -> None:
        self.task = task

    def get_task(self) -> float:
        return self.task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(self.n_steps), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        return self._observe(self.n_steps), self.task, self.n_steps == 5, False, {}


def _counters(space: spaces.Space[Any], observe: Any) -> VecEnv:
    return DummyVecEnv([lambda: PreviousTransitionObservation(MultiEpisodeTrial(_Counter(space, observe)))] * 2)


@pytest.mark.parametrize("n_steps", [3, 10])  # a trial has two episodes of five steps
def test_new_episodes_begin_after_a_callback_has_stopped_training(name: str, n_steps: int) -> None:
    """The environments are a step ahead of what has been stored, perhaps in another trial."""
    model = tiny(name, _counters(spaces.Box(0, 5, (1,), np.float32), lambda step: np.array([step], np.float32)))
    model.learn(100, lambda *_: model.num_timesteps < 2 * n_steps)
    assert model.num_timesteps == 2 * n_steps
    seen: list[Any] = []

    def look(callback: Hooks) -> None:
        memory = callback.locals.get("memory", getattr(model, "_next_memory", None))
        seen.append((model.get_env().get_attr("n_steps"), memory if memory is None else memory.lengths.tolist()))

    model.learn(4, Hooks(step=look), reset_num_timesteps=False)
    # The first action was chosen with the first observation only
    assert seen[0] == ([1, 1], [1, 1] if name.startswith("Transformer") else None)


@pytest.mark.parametrize("number", [int, np.int64])
def test_observations_that_are_plain_numbers(name: str, number: Any) -> None:
    """Gymnasium allows them in discrete spaces."""
    model = tiny(name, _counters(spaces.Discrete(6), number))
    assert model.learn(120).num_timesteps >= 120
    if name != "PEARL":  # which does without VecNormalize
        normalized = VecNormalize(_counters(spaces.Discrete(6), number), norm_obs_keys=["prev_reward"])
        assert tiny(name, normalized).learn(120).num_timesteps >= 120


def test_multi_discrete_observations_with_several_axes(name: str) -> None:
    space = spaces.MultiDiscrete([[6, 2], [2, 2]])
    with pytest.raises(ValueError, match=r"`env` has the observation space MultiDiscrete(.|\n)* with several axes"):
        tiny(name, _counters(space, lambda step: np.array([[step, 0], [0, 0]])))
