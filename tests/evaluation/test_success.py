"""Environments that write ``is_success`` only in some episodes: the others are failures."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_trmrl import AdaptationEvalCallback, MultiEpisodeTrial
from tests.helpers.agents import tiny_model
from tests.helpers.environments import ToyFamily
from tests.helpers.resuming import record_logs

pytestmark = pytest.mark.usefixtures("one_thread")


class SaysOnlySuccess(ToyFamily):
    """Episodes of two steps. Each copy has a list of which of its episodes succeed, and is silent in the others."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, succeeds: list[bool]) -> None:
        self.succeeds = list(succeeds)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        ended = self.steps == 2
        is_success = ended and self.succeeds.pop(0)
        return np.zeros(1, np.float32), 0.0, False, ended, {"is_success": True} if is_success else {}


#: Whether each episode of three evaluations succeeds, (evaluation, trial of a copy, copy, episode)
NONE = [[[False, False]] * 2] * 2
SUCCEEDS = np.array([NONE, [[[False, False], [False, True]], [[False, False], [True, False]]], NONE])


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
@pytest.mark.parametrize("best_by", ["mean_reward", "success_rate"])
def test_trials_without_success_are_failures(order: list[int], best_by: str, tmp_path: Path) -> None:
    succeeds = SUCCEEDS[order]  # evaluations in another order
    copies = [succeeds[:, :, copy].ravel().tolist() for copy in range(2)]
    eval_env = make_vec_env(
        lambda: MultiEpisodeTrial(SaysOnlySuccess(copies.pop(0)), episodes_per_trial=2),
        n_envs=2,
    )
    callback = AdaptationEvalCallback(
        eval_env, n_eval_episodes=4, eval_freq=32, log_path=str(tmp_path), best_by=best_by, verbose=0
    )
    model = tiny_model(
        make_vec_env(lambda: MultiEpisodeTrial(SaysOnlySuccess([False] * 999), episodes_per_trial=2), n_envs=1)
    )
    logs = record_logs(model)
    model.learn(96, callback=callback)
    of_trials = succeeds.reshape(3, 4, 2)
    history, evaluations = (np.load(tmp_path / f"{name}.npz") for name in ("adaptation", "evaluations"))
    np.testing.assert_array_equal(history["successes"], of_trials)
    np.testing.assert_array_equal(evaluations["successes"], of_trials[:, :, -1])
    # From the evaluation on in which the first trial succeeds
    first = of_trials.any(axis=(1, 2)).argmax()
    rows = [row for _, row in logs.rows if "eval/success_rate" in row]
    rates = [[row[f"eval/{name}success_rate"] for name in ("", "episode_1_", "episode_2_")] for row in rows]
    np.testing.assert_array_equal(rates, of_trials.mean(axis=1)[first:, [1, 0, 1]])


def test_nothing_is_recorded_if_no_trial_says_success(tmp_path: Path) -> None:
    def make() -> gym.Env:
        return MultiEpisodeTrial(SaysOnlySuccess([False] * 999), episodes_per_trial=2)

    callback = AdaptationEvalCallback(
        make_vec_env(make, n_envs=2), n_eval_episodes=4, eval_freq=32, log_path=str(tmp_path), verbose=0
    )
    tiny_model(make_vec_env(make, n_envs=1)).learn(64, callback=callback)
    assert "successes" not in np.load(tmp_path / "adaptation.npz")
    assert "successes" not in np.load(tmp_path / "evaluations.npz")
