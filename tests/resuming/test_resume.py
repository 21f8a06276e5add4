"""A run that was interrupted and resumed is, to the last bit, the one that was not."""

from __future__ import annotations

import doctest
import os
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_trmrl import TrainingCheckpoint, TransformerPPO
from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback, InnerEpisodeCallback
from sb3_trmrl.resuming import training_checkpoint
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in
from tests.helpers.resuming import assert_same, everything_learned, record_logs

pytestmark = pytest.mark.usefixtures("one_thread")

TINY: dict[str, Any] = dict(d_model=8, n_layers=2, n_heads=2, dim_feedforward=8)
Run = tuple[TransformerPPO, Any, list[BaseCallback]]


def make_env(env_id: str, n_envs: int = 2, normalise: bool = True, **env_kwargs: Any) -> VecEnv:
    env = make_vec_env(env_id, n_envs, seed=0, env_kwargs=env_kwargs)
    return VecNormalize(env, gamma=0.9, norm_obs_keys=["observation"]) if normalise else env


def callbacks(folder: Path, env_id: str) -> list[BaseCallback]:
    return [
        TrainingCheckpoint(folder / "checkpoints", save_freq=1, keep=99),
        AdaptationEvalCallback(env_id, n_eval_episodes=3, eval_freq=70, log_path=str(folder), verbose=0),
        InnerEpisodeCallback(),
    ]


def learn(folder: Path, env: VecEnv, env_id: str, resume: Path | None = None, steps: int = 700, **kwargs: Any) -> Run:
    """A run from its beginning, or from a checkpoint on."""
    log_interval = kwargs.pop("log_interval", 1)
    if resume is None:
        model = TransformerPPO("TrMRLPolicy", env, seed=1, n_epochs=2, **kwargs)
    else:
        model = TransformerPPO.resume(resume, env)
        # What another process would have of these
        random.seed(5), np.random.seed(6), th.manual_seed(7)
    logs = record_logs(model)
    made = callbacks(folder, env_id)
    model.learn(steps, callback=made, log_interval=log_interval)
    return model, logs, made


CASES: dict[str, tuple[Callable[[], VecEnv], str, dict[str, Any]]] = {
    "window": (
        lambda: make_env("SparsePointRobot-v0"),
        "SparsePointRobot-v0",
        dict(n_steps=50, batch_size=50, policy_kwargs=dict(context_length=5, **TINY)),
    ),
    "full memory, longer than a rollout": (
        lambda: make_env("GridNavi-v0"),
        "GridNavi-v0",
        dict(n_steps=25, batch_size=25, policy_kwargs=dict(memory="full", reset_memory_on="trial", **TINY)),
    ),
    "full memory with a short band": (
        lambda: make_env("GridNavi-v0"),
        "GridNavi-v0",
        dict(
            n_steps=50,
            batch_size=50,
            policy_kwargs=dict(memory="full", context_length=7, reset_memory_on="trial", **TINY),
        ),
    ),
    "gSDE": (
        lambda: make_env("SparsePointRobot-v0", n_envs=3),
        "SparsePointRobot-v0",
        dict(n_steps=50, batch_size=50, use_sde=True, sde_sample_freq=7, policy_kwargs=dict(context_length=3, **TINY)),
    ),
    "schedules": (
        lambda: make_env("BernoulliBandit-v0", normalise=False),
        "BernoulliBandit-v0",
        dict(
            n_steps=50,
            batch_size=50,
            learning_rate=lambda left: 1e-3 * left,
            vf_learning_rate=lambda left: 2e-3 * left,
            clip_range=lambda left: 0.1 + 0.1 * left,
            policy_kwargs=dict(context_length=4, **TINY),
        ),
    ),
    "logs every third rollout": (
        lambda: make_env("BernoulliBandit-v0", normalise=False),
        "BernoulliBandit-v0",
        dict(n_steps=25, batch_size=50, log_interval=3, policy_kwargs=dict(context_length=4, **TINY)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(case: str, tmp_path: Path) -> None:
    make, env_id, kwargs = CASES[case]
    model, logs, made = learn(tmp_path / "whole", make(), env_id, **kwargs)
    learned = everything_learned(model)
    checkpoints = checkpoints_in(tmp_path / "whole" / "checkpoints")
    assert len(checkpoints) >= 3
    middle = checkpoints[len(checkpoints) // 2]
    resumed, its_logs, its_callbacks = learn(tmp_path / "resumed", make(), env_id, resume=middle, **kwargs)
    assert_same(learned, everything_learned(resumed))
    # Evaluations log before the rollout's end: the last rows of the whole run are those of the resumed one
    assert 0 < len(its_logs.rows) < len(logs.rows)
    assert_same(logs.rows[-len(its_logs.rows) :], its_logs.rows)
    for name in ("evaluations.npz", "adaptation.npz"):
        first, second = (dict(np.load(tmp_path / each / name)) for each in ("whole", "resumed"))
        assert_same(first, second)
    evaluations = made[1], its_callbacks[1]
    assert evaluations[0].best_mean_reward == evaluations[1].best_mean_reward  # type: ignore[attr-defined]
    # The next checkpoints are the same too, but for times
    names = [checkpoints_in(tmp_path / each / "checkpoints")[-1].name for each in ("whole", "resumed")]
    assert names[0] == names[1]


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    make, env_id, kwargs = CASES["window"]
    with_checkpoints, *_ = learn(tmp_path, make(), env_id, **kwargs)
    model = TransformerPPO("TrMRLPolicy", make(), seed=1, n_epochs=2, **kwargs)
    model.learn(700, callback=callbacks(tmp_path / "other", env_id)[1:])
    assert_same(everything_learned(with_checkpoints), everything_learned(model))


def test_a_second_learn_and_a_second_interruption(tmp_path: Path) -> None:
    """learn() that counts on from an earlier one, interrupted twice."""
    make, _, kwargs = CASES["window"]

    def begin() -> TransformerPPO:
        model = TransformerPPO("TrMRLPolicy", make(), seed=1, n_epochs=2, **kwargs)
        return model.learn(200)

    whole = begin().learn(600, reset_num_timesteps=False)
    interrupted = begin()
    interrupted.learn(300, reset_num_timesteps=False, callback=TrainingCheckpoint(tmp_path, save_freq=1))
    # The schedule's end is not part of a checkpoint: constant here
    once = TransformerPPO.resume(tmp_path, make())
    once.learn(500, reset_num_timesteps=False, callback=TrainingCheckpoint(tmp_path, save_freq=1))
    twice = TransformerPPO.resume(tmp_path, make())
    assert twice.num_timesteps < once.num_timesteps
    twice.learn(600, reset_num_timesteps=False)
    assert_same(everything_learned(whole), everything_learned(twice))
    assert not twice.XX


def test_workers_in_processes_of_their_own(tmp_path: Path) -> None:
    _, _, kwargs = CASES["window"]

    def make(kind: type[VecEnv]) -> VecEnv:
        return make_vec_env("sb3_trmrl:SparsePointRobot-v0", 2, seed=0, vec_env_cls=kind)  # type: ignore[arg-type]

    env = make(SubprocVecEnv)
    whole = TransformerPPO("TrMRLPolicy", env, seed=1, **kwargs)
    whole.learn(300, callback=TrainingCheckpoint(tmp_path, save_freq=100, keep=9))
    learned = everything_learned(whole)
    first, second = checkpoints_in(tmp_path)[1:]
    assert_same(learned, everything_learned(TransformerPPO.resume(first, make(DummyVecEnv)).learn(300)))
    assert_same(learned, everything_learned(TransformerPPO.resume(second, env).learn(300)))
    env.close()


def test_an_environment_without_state_begins_new_episodes(tmp_path: Path) -> None:
    def make() -> VecEnv:
        return make_vec_env("CartPole-v1", 2, seed=0)

    model = TransformerPPO("TrMRLPolicy", make(), n_steps=32, batch_size=64, policy_kwargs=TINY, seed=0)
    model.learn(192, callback=TrainingCheckpoint(tmp_path, save_freq=64))
    model = TransformerPPO.resume(tmp_path, make())
    starts = []

    class Look(BaseCallback):
        def _on_rollout_start(self) -> None:
            starts.append(self.model._last_episode_starts.copy())  # type: ignore[attr-defined]

        def _on_step(self) -> bool:
            return True

    with pytest.warns(UserWarning, match=r"could not give its state .* new episodes begin"):
        model.learn(192, callback=Look())
    assert starts[0].all() and model.num_timesteps == 192


def test_a_checkpoint_is_a_model(tmp_path: Path) -> None:
    make, env_id, kwargs = CASES["window"]
    learn(tmp_path, make(), env_id, **kwargs)
    checkpoint = checkpoints_in(tmp_path / "checkpoints")[1]
    assert TransformerPPO.load(checkpoint).num_timesteps == 100 and not TransformerPPO.load(checkpoint).XX


def test_what_is_resumed_with_is_checked(tmp_path: Path) -> None:
    make, env_id, kwargs = CASES["window"]
    learn(tmp_path, make(), env_id, steps=200, **kwargs)
    folder = tmp_path / "checkpoints"
    with pytest.raises(ValueError, match=r"`env` must have 2 environments, as when it was saved; it has 3"):
        TransformerPPO.resume(folder, make_env("SparsePointRobot-v0", n_envs=3))
    with pytest.raises(ValueError, match=r"`env` must be VecNormalize around DummyVecEnv.*it is DummyVecEnv"):
        TransformerPPO.resume(folder, make_env("SparsePointRobot-v0", normalise=False))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        TransformerPPO.resume(folder, make_env("GridNavi-v0"))
    with pytest.raises(FileNotFoundError, match=r"`path` .*nowhere.* is neither a checkpoint nor a folder"):
        TransformerPPO.resume(tmp_path / "nowhere", make())
    with pytest.raises(FileNotFoundError, match="holds no intact checkpoint"):
        TransformerPPO.resume(tmp_path, make())


def test_callbacks_that_differ_are_named(tmp_path: Path) -> None:
    make, env_id, kwargs = CASES["window"]
    learn(tmp_path, make(), env_id, steps=200, **kwargs)
    model = TransformerPPO.resume(tmp_path / "checkpoints", make())
    with pytest.warns(UserWarning, match="had the callbacks AdaptationEvalCallback 0, InnerEpisodeCallback 0"):
        model.learn(200)


class Collector(BaseCallback):
    """A user's callback: an argument, a count, and a tool that cannot be pickled."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.count = 0
        self.seen: dict[str, list[int]] = {"steps": []}
        self.tool = open(os.devnull)  # noqa: SIM115

    def _on_step(self) -> bool:
        self.count += 1
        self.seen["steps"].append(self.num_timesteps)
        return True

    def _on_training_end(self) -> None:
        self.tool.close()


def test_a_users_callback_goes_on_with_its_new_arguments(tmp_path: Path) -> None:
    make, _, kwargs = CASES["window"]
    whole = Collector("first")
    model = TransformerPPO("TrMRLPolicy", make(), seed=1, **kwargs)
    # Inside another callback, with a progress bar of SB3's around them all
    outer = EvalCallback(make_env("SparsePointRobot-v0"), callback_after_eval=whole, eval_freq=20, verbose=0)
    model.learn(400, callback=[TrainingCheckpoint(tmp_path, save_freq=200), outer], progress_bar=True)
    again = Collector("second")
    outer_again = EvalCallback(make_env("SparsePointRobot-v0"), callback_after_eval=again, eval_freq=20, verbose=0)
    TransformerPPO.resume(tmp_path, make()).learn(400, callback=outer_again)
    assert (again.count, again.seen, again.name) == (whole.count, whole.seen, "second")
    assert outer.n_calls == outer_again.n_calls and outer.last_mean_reward == outer_again.last_mean_reward


def test_logs_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    make, _, kwargs = CASES["window"]

    class Log(BaseCallback):
        def _on_rollout_end(self) -> None:
            with open(tmp_path / "log.txt", "a") as file:
                file.write(f"{self.num_timesteps}\n")

        def _on_step(self) -> bool:
            return True

    checkpoint = TrainingCheckpoint(tmp_path / "c", save_freq=200, log_files=[str(tmp_path / "*.txt")])
    TransformerPPO("TrMRLPolicy", make(), **kwargs).learn(300, callback=[checkpoint, Log()])
    assert (tmp_path / "log.txt").read_text().split() == ["100", "200", "300"]
    TransformerPPO.resume(tmp_path / "c", make()).learn(400, callback=Log())
    assert (tmp_path / "log.txt").read_text().split() == ["100", "200", "300", "400"]


def test_another_platform_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, env_id, kwargs = CASES["window"]
    learn(tmp_path, make(), env_id, steps=200, **kwargs)
    model = TransformerPPO.resume(tmp_path / "checkpoints", make())
    monkeypatch.setattr(th, "get_num_threads", lambda: 7)
    with pytest.warns(
        UserWarning, match="had threads 1 instead of 7: the resumed one goes on, but not to the last bit"
    ):
        model.learn(300, callback=callbacks(tmp_path, env_id))


def test_misuse_of_the_callback_is_refused(tmp_path: Path) -> None:
    for name in ("save_freq", "keep"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
            TrainingCheckpoint(tmp_path, **{name: 0})
    with pytest.raises(TypeError, match=r"`log_files` must be a list of patterns, got 'a.csv' of type str"):
        TrainingCheckpoint(tmp_path, log_files="a.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`folder` .*file/inside.* cannot be written to"):
        TrainingCheckpoint(tmp_path / "file" / "inside")
    with pytest.raises(TypeError, match="TrainingCheckpoint is for TransformerPPO, got PPO"):
        PPO("MlpPolicy", "CartPole-v1", n_steps=64).learn(64, callback=TrainingCheckpoint(tmp_path))
    make, _, kwargs = CASES["window"]
    TransformerPPO("TrMRLPolicy", make(), **kwargs).learn(300, callback=TrainingCheckpoint(tmp_path, save_freq=100))
    with pytest.raises(ValueError, match=r"`folder` already holds .*checkpoint_200_steps.zip of another run"):
        TransformerPPO("TrMRLPolicy", make(), **kwargs).learn(100, callback=TrainingCheckpoint(tmp_path))


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = doctest.testmod(training_checkpoint)
    assert outcome.attempted > 0 and outcome.failed == 0


def test_a_killed_worker_is_named_and_the_checkpoint_intact(tmp_path: Path) -> None:
    _, _, kwargs = CASES["window"]
    env = make_vec_env("sb3_trmrl:SparsePointRobot-v0", 2, seed=0, vec_env_cls=SubprocVecEnv)

    class Kill(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 230:
                os.kill(env.processes[1].pid, signal.SIGKILL)  # type: ignore[attr-defined]
            return True

    model = TransformerPPO("TrMRLPolicy", env, seed=1, **kwargs)
    with pytest.raises(RuntimeError, match=r"worker process .* environment 1 \(exit code -9\)"):
        model.learn(400, callback=[TrainingCheckpoint(tmp_path, save_freq=100), Kill()])
    env.processes[0].terminate()  # type: ignore[attr-defined]
    again = make_vec_env("SparsePointRobot-v0", 2, seed=0, vec_env_cls=DummyVecEnv)
    resumed = TransformerPPO.resume(tmp_path, again)
    assert resumed.num_timesteps == 200
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the interrupted run had the callbacks Kill 0")
        assert resumed.learn(300).num_timesteps == 300


def test_a_gradient_that_is_not_finite_leaves_weights_and_checkpoint(tmp_path: Path) -> None:
    make, _, kwargs = CASES["window"]

    class Overflow(BaseCallback):
        def _on_rollout_end(self) -> None:
            if self.num_timesteps == 300:
                self.model.rollout_buffer.returns[7] = np.inf  # type: ignore[attr-defined]
                self.before = {name: value.clone() for name, value in self.model.policy.state_dict().items()}

        def _on_step(self) -> bool:
            return True

    model, overflow = TransformerPPO("TrMRLPolicy", make(), seed=1, **kwargs), Overflow()
    with pytest.raises(FloatingPointError, match=r"non-finite gradient .* the weights were left as they are"):
        model.learn(400, callback=[TrainingCheckpoint(tmp_path, save_freq=100), overflow])
    assert_same(overflow.before, dict(model.policy.state_dict()))
    assert TransformerPPO.resume(tmp_path, make()).num_timesteps == 200


def test_a_reward_that_is_not_finite_leaves_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, _, kwargs = CASES["window"]
    env = make()
    inner = env.unwrapped.envs[1].unwrapped  # type: ignore[attr-defined]
    step, calls = inner.step, []

    def broken(action: Any) -> Any:
        observation, reward, *rest = step(action)
        calls.append(reward)
        return observation, float("nan") if len(calls) == 130 else reward, *rest

    monkeypatch.setattr(inner, "step", broken)
    model = TransformerPPO("TrMRLPolicy", env, seed=1, **kwargs)
    with pytest.raises(ValueError, match=r"non-finite .* from environment 1"):
        model.learn(400, callback=TrainingCheckpoint(tmp_path, save_freq=100))
    assert TransformerPPO.resume(tmp_path, make()).num_timesteps == 200


def test_sb3s_own_checkpoints_are_told_apart(tmp_path: Path) -> None:
    make, _, kwargs = CASES["window"]
    saver = CheckpointCallback(50, str(tmp_path), name_prefix="checkpoint")
    TransformerPPO("TrMRLPolicy", make(), **kwargs).learn(100, callback=saver)
    (file,) = tmp_path.glob("*.zip")
    with pytest.raises(ValueError, match=r"has no training_state.pkl: it was cut off, or is a model"):
        TransformerPPO.resume(file, make())
