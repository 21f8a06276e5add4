"""What a resumed run has to find again besides parameters: callbacks, logs, folders; and what it says if it cannot."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_trmrl import MultiEpisodeTrial, TrainingCheckpoint, TransformerPPO
from sb3_trmrl.__main__ import main
from sb3_trmrl.envs.tasks import TaskEnv
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in, read_training_state
from sb3_trmrl.resuming.vec_env_state import environment_states
from tests.helpers.agents import SampledEnv
from tests.helpers.resuming import assert_same, everything_learned
from tests.helpers.zoo import train

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = dict(context_length=3, d_model=8, n_layers=1, n_heads=2, dim_feedforward=8)
ENV = "sb3_trmrl:SparsePointRobot-v0"


def make(kind: type[VecEnv] = DummyVecEnv, n_envs: int = 2) -> VecEnv:
    return make_vec_env(ENV, n_envs, seed=0, vec_env_cls=kind)  # type: ignore[arg-type]


def new_model(env: VecEnv | None = None, **kwargs: Any) -> TransformerPPO:
    settings = dict(n_steps=32, batch_size=64, n_epochs=1, seed=0, policy_kwargs=SMALL) | kwargs
    return TransformerPPO("TrMRLPolicy", make() if env is None else env, **settings)


class Images(SampledEnv):
    """Images in SB3's order, which it turns round, that give their state."""

    def state_dict(self) -> dict[str, Any]:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, (int, float))}
        return {"space": self.observation_space, "attributes": numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.observation_space = state["space"]
        vars(self).update(state["attributes"])


def test_images_with_a_full_memory(tmp_path: Path) -> None:
    """Turned round by SB3, images lie in memory otherwise than pickled ones, and convolutions round otherwise."""

    coloured = spaces.Box(0, 255, (36, 36, 3), np.uint8)

    def images() -> VecEnv:
        return DummyVecEnv([lambda: Images(coloured) for _ in range(2)])

    policy = dict(memory="full", **{key: value for key, value in SMALL.items() if key != "context_length"})
    whole = new_model(images(), policy_kwargs=policy, n_steps=8, batch_size=16)
    whole.learn(64, callback=TrainingCheckpoint(tmp_path, save_freq=16, keep=9))
    resumed = TransformerPPO.resume(checkpoints_in(tmp_path)[2], images()).learn(64)
    assert_same(everything_learned(whole)["parameters"], everything_learned(resumed)["parameters"])


class Simulated(TaskEnv):
    """A family around a simulator, without methods of its own for its state."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.simulator = gym.make("Pendulum-v1")

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[float]:
        return [0.0] * n

    def set_task(self, task: Any) -> None:
        self.task = task

    def get_task(self) -> float:
        return self.task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.simulator.reset(seed=seed)


def test_a_family_around_a_simulator_has_no_state_without_its_own_methods() -> None:
    env = Simulated()
    env.set_task(0.0)
    assert env.state_dict() is None
    trials = MultiEpisodeTrial(env)
    assert trials.state_dict() is not None  # before it begins there is nothing to keep
    trials.reset(seed=0)
    assert trials.state_dict() is None


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_a_wrapper_outside_that_may_hold_a_state_is_not_passed_over(kind: type[VecEnv]) -> None:
    def stacked() -> gym.Env:
        env = gym.make(ENV, previous_transition=False)
        return FrameStackObservation(env, 2)

    env = kind([stacked])  # type: ignore[call-arg]
    env.reset()
    assert environment_states(env) is None
    env.close()
    inside = MultiEpisodeTrial(FrameStackObservation(gym.make(ENV).unwrapped, 2))  # its frames are among the state
    inside.reset(seed=0)
    state = inside.state_dict()
    assert state is not None and "obs_queue" in state["env"]["attributes"]


def test_what_a_callback_knew_before_a_second_learn(tmp_path: Path) -> None:
    evaluation = EvalCallback(make(), eval_freq=32, n_eval_episodes=2, verbose=0)
    model = new_model().learn(64, callback=evaluation)
    evaluation.best_mean_reward = 1e6
    checkpoint = TrainingCheckpoint(tmp_path, save_freq=64)
    model.learn(128, callback=[evaluation, checkpoint], reset_num_timesteps=False)
    again = EvalCallback(make(), eval_freq=32, n_eval_episodes=3, verbose=0)
    TransformerPPO.resume(tmp_path, make()).learn(128, callback=again, reset_num_timesteps=False)
    assert again.best_mean_reward == 1e6
    # A changed argument is taken from the new one
    assert again.n_eval_episodes == 3


class Starts(BaseCallback):
    """Counts rollouts, before and after TrainingCheckpoint in the list."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def _on_rollout_start(self) -> None:
        self.count += 1

    def _on_step(self) -> bool:
        return True


def test_the_order_of_callbacks_does_not_matter(tmp_path: Path) -> None:
    whole = Starts(), TrainingCheckpoint(tmp_path, save_freq=64), Starts()
    new_model().learn(256, callback=list(whole))
    again = Starts(), Starts()
    TransformerPPO.resume(tmp_path, make()).learn(256, callback=list(again))
    assert [each.count for each in again] == [whole[0].count, whole[2].count] == [4, 4]


def test_inside_another_callback(tmp_path: Path) -> None:
    new_model().learn(128, callback=EveryNTimesteps(1000, TrainingCheckpoint(tmp_path, save_freq=64)))
    assert len(checkpoints_in(tmp_path)) == 2


def test_many_short_learns_write_checkpoints_too(tmp_path: Path) -> None:
    checkpoint, model = TrainingCheckpoint(tmp_path, save_freq=100, keep=9), new_model()
    for index in range(5):
        model.learn(64, callback=checkpoint, reset_num_timesteps=index == 0)
    assert [path.name for path in checkpoints_in(tmp_path)] == [f"checkpoint_{n}_steps.zip" for n in (0, 128, 256)]


def test_tensorboard_goes_on_in_the_folder_of_the_run(tmp_path: Path) -> None:
    log = str(tmp_path / "tensorboard")
    new_model(tensorboard_log=log).learn(128, callback=TrainingCheckpoint(tmp_path / "c", save_freq=64))
    new_model(tensorboard_log=log).learn(64)  # another run, in the meantime
    resumed = TransformerPPO.resume(tmp_path / "c", make())
    files = {folder: len(list((tmp_path / "tensorboard" / folder).iterdir())) for folder in os.listdir(log)}
    assert sorted(files) == ["TransformerPPO_1", "TransformerPPO_2"]
    resumed.learn(128)
    after = {folder: len(list((tmp_path / "tensorboard" / folder).iterdir())) for folder in os.listdir(log)}
    assert after == {**files, "TransformerPPO_1": files["TransformerPPO_1"] + 1}
    resumed.learn(64)  # a learn of its own has a folder of its own
    assert sorted(os.listdir(log)) == ["TransformerPPO_1", "TransformerPPO_2", "TransformerPPO_3"]


def test_logs_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Log(BaseCallback):
        def _on_rollout_end(self) -> None:
            with open(tmp_path / "run" / "log.txt", "a") as file:
                file.write(f"{self.num_timesteps}\n")

        def _on_step(self) -> bool:
            return True

    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoint = TrainingCheckpoint("run/checkpoints", save_freq=128, log_files=["run/*.txt"])
    new_model().learn(192, callback=[checkpoint, Log()])
    monkeypatch.chdir(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformerPPO.resume("checkpoints", make()).learn(256, callback=Log())
    assert (tmp_path / "run" / "log.txt").read_text().split() == ["64", "128", "192", "256"]


def test_the_threads_that_are_noted_are_those_of_the_update(tmp_path: Path) -> None:
    th.set_num_threads(2)  # put back by the fixture
    env = make(SubprocVecEnv)
    new_model(env).learn(64, callback=TrainingCheckpoint(tmp_path))
    env.close()
    platform = read_training_state(checkpoints_in(tmp_path)[-1]).platform
    assert platform["threads"] == 2 and platform["device"] == "cpu" and "mujoco" in platform


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_model().learn(64, callback=TrainingCheckpoint(tmp_path))
    monkeypatch.setattr("sb3_trmrl.resuming.checkpoint_files._FORMAT", 2)
    with pytest.raises(ValueError, match=r"`path` must be a checkpoint of format 2, .* has format 1"):
        TransformerPPO.resume(tmp_path, make())


def test_a_tool_that_refuses_to_be_pickled(tmp_path: Path) -> None:
    class Queueing(Starts):
        def __init__(self) -> None:
            super().__init__()
            self.queue: Any = multiprocessing.Queue()

    new_model().learn(64, callback=[Queueing(), TrainingCheckpoint(tmp_path)])
    assert checkpoints_in(tmp_path)


def test_a_state_that_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    env = make()
    env.unwrapped.envs[0].unwrapped.state_dict = lambda: {"function": lambda: None}  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"state_dict\(\) of the environment must return what can be pickled"):
        new_model(env).learn(64, callback=TrainingCheckpoint(tmp_path))


def test_a_killed_worker_of_an_evaluation_is_named() -> None:
    env = make(SubprocVecEnv)
    evaluation = EvalCallback(env, eval_freq=16, verbose=0)
    os.kill(env.processes[1].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"worker process .* environment 1 \(exit code -9\)"):
        new_model().learn(64, callback=evaluation)
    env.processes[0].terminate()  # type: ignore[attr-defined]


def test_a_command_that_died_before_its_first_update_is_resumed(tmp_path: Path, monkeypatch: Any) -> None:
    def dies(self: TransformerPPO) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(TransformerPPO, "train", dies)
        train(tmp_path, "-n", "80", "--eval-freq", "-1", "--verbose", "0")
    (run,) = (tmp_path / "trmrl").iterdir()
    assert main(["train", "--resume", str(run), "-n", "120"]) == 0
    # What was given with --resume is known from then on
    assert main(["train", "--resume", str(run)]) == 0
    assert TransformerPPO.load(run / "BernoulliBandit-v0.zip").num_timesteps == 120


def test_resuming_leaves_the_settings_of_the_run_alone(tmp_path: Path, capsys: Any) -> None:
    run = train(tmp_path, "-n", "40", "--eval-freq", "-1", "--verbose", "0")
    config = run / "BernoulliBandit-v0" / "config.yml"
    before = config.read_bytes(), config.stat().st_mtime_ns
    assert main(["train", "--resume", str(run), "-n", "80"]) == 0
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before
    (run / "BernoulliBandit-v0" / "args.yml").write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", str(run)])
    assert "args.yml" in capsys.readouterr().err
