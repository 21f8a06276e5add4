"""The report of a run."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl import TransformerPPO, evaluate_adaptation
from sb3_trmrl.__main__ import main
from sb3_trmrl.envs.tasks import TaskEnv, in_trials
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, evaluation_seed
from tests.helpers.environments import ToyFamily, early_end
from tests.helpers.zoo import TINY, train

pytestmark = pytest.mark.usefixtures("one_thread")


def _returns_by_hand(model: TransformerPPO, n_episodes: int, **env_kwargs: Any) -> list[float]:
    """Return the mean return of an episode on each test task, played one step at a time."""
    env = gym.make("HalfCheetahVel-v0", split="test", episodes_per_trial=n_episodes, **env_kwargs)
    returns = []
    for _ in range(N_HELD_OUT_TASKS):
        observation, _ = env.reset()
        state, start, total, done = None, np.array([True]), 0.0, False
        while not done:
            action, state = model.predict(observation, state, start, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done, start = total + float(reward), terminated or truncated, np.array([False])
        returns.append(total / n_episodes)
    env.close()
    return returns


def test_report_compares_before_and_after_on_the_test_tasks(tmp_path: Path, capsys: Any) -> None:
    arguments = ["-n", "80", "--eval-freq", "40", "--report", "--env-kwargs", "horizon:10"]
    run = train(tmp_path, *arguments, env="HalfCheetahVel-v0")
    printed = capsys.readouterr().out
    figures = json.loads((run / "report.json").read_text())
    returns = figures["returns"]
    names = ("before training", "best on validation", "at the end of training")
    assert tuple(returns) == names
    for name, path in zip(names, ("initial_model.zip", "best_model.zip", "HalfCheetahVel-v0.zip"), strict=True):
        model = TransformerPPO.load(run / path)
        for row, n_episodes in (("first episode", 1), ("mean of all 2 episodes of a trial", 2)):
            by_hand = _returns_by_hand(model, n_episodes, horizon=10)
            entry = returns[name][row]
            # Tasks and models are the same; other initial states make little difference in ten steps
            assert entry["mean"] == pytest.approx(np.mean(by_hand), abs=1.0)
            assert entry["mean"] == pytest.approx(np.mean(entry["each"]))
            assert entry["standard_error"] == pytest.approx(np.std(entry["each"], ddof=1) / np.sqrt(20))
            digits = 1 if abs(entry["mean"]) >= 10 or entry["standard_error"] >= 10 else 3
            assert f"{entry['mean']:.{digits}f} +- {entry['standard_error']:.{digits}f}" in printed
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    initial = TransformerPPO.load(run / "initial_model.zip")
    assert initial.num_timesteps == 0
    assert np.load(run / "evaluations.npz")["results"].shape == (2, N_HELD_OUT_TASKS)
    # Whole trials: two episodes of ten steps
    assert set(load_results(str(run))["l"]) == {20}


def test_report_on_a_plain_environment_with_normalisation(tmp_path: Path) -> None:
    params = [*TINY, "normalize:True"]
    run = train(tmp_path, "-n", "80", "--eval-freq", "40", "--report", params=params, env="CartPoleNoVel-v1")
    returns = json.loads((run / "report.json").read_text())["returns"]
    assert set(returns) == {"before training", "best on validation", "at the end of training"}
    assert all(set(rows) == {"episode"} and len(rows["episode"]["each"]) == 20 for rows in returns.values())
    # Not normalised: the reward of CartPole is 1 at each step
    assert all(value == int(value) >= 1 for rows in returns.values() for value in rows["episode"]["each"])
    assert (run / "learning_curve.png").is_file()


def test_the_best_model_keeps_the_statistics_it_was_chosen_with(tmp_path: Path, monkeypatch: Any) -> None:
    env_id = "CartPoleNoVel-v1"
    run = train(tmp_path, "-n", "120", "--eval-freq", "40", params=[*TINY, "normalize:True"], env=env_id)
    for folder, model in ((run, run / "best_model.zip"), (run / env_id, run / f"{env_id}.zip")):
        statistics = VecNormalize.load(str(folder / "vecnormalize.pkl"), make_vec_env(env_id))
        # Every step of the two environments counts, and their first observation
        assert statistics.obs_rms.count == pytest.approx(TransformerPPO.load(model).num_timesteps + 2, abs=0.01)

    loaded, load = [], VecNormalize.load
    monkeypatch.setattr(VecNormalize, "load", lambda path, env: loaded.append(Path(path).parent) or load(path, env))
    assert main(["report", str(run)]) == 0
    assert loaded == [run, run / env_id]  # without --report, there is no model from before training
    (run / "best_model.zip").unlink()
    assert main(["report", str(run)]) == 0
    assert loaded[2:] == [run / env_id]


def test_report_on_a_family_without_splits(tmp_path: Path, capsys: Any) -> None:
    """Its trials have several episodes; their tasks are those of ``evaluate``, whatever the seed of the run."""
    gym.register("EarlyEnd-v0", early_end)
    try:
        arguments = ["-n", "80", "--eval-freq", "40", "--eval-episodes", "2", "--report"]
        run = train(tmp_path, *arguments, params=[*TINY, "normalize:False"], env="EarlyEnd-v0")
        figures = json.loads((run / "report.json").read_text())
        model, seed = TransformerPPO.load(run / "EarlyEnd-v0.zip"), evaluation_seed(3, "test")
        tasks = evaluate_adaptation(model, "EarlyEnd-v0", n_eval_episodes=1).tasks
        returns = []
        for index in range(20):
            env = gym.make("EarlyEnd-v0")
            observation, _ = env.reset(seed=seed + index, options={"task": tasks[index]})
            state, start, done = None, np.array([True]), False
            while not done:
                action, state = model.predict(observation, state, start, deterministic=True)
                observation, _, terminated, truncated, info = env.step(action)
                done, start = terminated or truncated, np.array([False])
            returns.append(info["episode_returns"])
    finally:
        gym.registry.pop("EarlyEnd-v0")
    found = figures["returns"]["at the end of training"]
    for row, by_hand in (
        ("first episode", [first for first, _ in returns]),
        ("mean of all 2 episodes of a trial", [(first + second) / 2 for first, second in returns]),
    ):
        assert sorted(found[row]["each"]) == pytest.approx(sorted(by_hand))
    evaluations = np.load(run / "evaluations.npz")
    best = [40, 80][int(evaluations["results"].mean(axis=1).argmax())]
    assert figures["validation"] == {"evaluations": 2, "first": 40, "last": 80, "best": best}
    printed = capsys.readouterr().out
    assert "Returns on 20 test tasks" in printed
    assert f"Validation: 2 evaluation(s), first at step 40, last at step 80, best at step {best}" in printed


class KnownSuccess(ToyFamily, TaskEnv):
    """Episodes of three steps with success at the second one for tasks below 7"""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[int]:
        return list(range(n))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._time += 1
        success = self.task < 7 and self._time == 2
        return np.zeros(1, np.float32), 1.0, False, self._time == 3, {"is_success": success}


def known_success(split: str = "train", episodes_per_trial: int = 2) -> gym.Env:
    return in_trials(KnownSuccess, episodes_per_trial, split)


def test_report_with_success(tmp_path: Path, capsys: Any) -> None:
    gym.register("KnownSuccess-v0", known_success)
    try:
        run = train(tmp_path, "-n", "80", "--eval-freq", "40", "--report", env="KnownSuccess-v0")
    finally:
        gym.registry.pop("KnownSuccess-v0")
    rows = json.loads((run / "report.json").read_text())["returns"]["best on validation"]
    assert rows["first episode"]["success_rates"] == [7 / 20]
    assert rows["mean of all 2 episodes of a trial"]["success_rates"] == [7 / 20, 7 / 20]
    assert "3.000 +- 0.000, success 35%" in capsys.readouterr().out
    successes = np.load(run / "adaptation.npz")["successes"]
    assert (successes.mean(axis=1) == 7 / 20).all() and successes.shape == (2, 20, 2)
