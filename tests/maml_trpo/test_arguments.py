"""Wrong arguments of MAMLTRPO and its policy, and environments that it cannot learn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecFrameStack

import sb3_trmrl.maml_trpo.maml_trpo as module
from sb3_trmrl import MAMLTRPO, MAMLPolicy, MultiEpisodeTrial, PreviousTransitionObservation, TrMRLPolicy
from tests.helpers.agents import TRANSITION
from tests.helpers.environments import EarlyEnd, early_end
from tests.helpers.maml import TINY, around, copies, tiny_maml
from tests.helpers.wrong_use import (
    INF,
    NAN,
    Table,
    Wrong,
    assert_all_covered,
    each_row,
    rows,
    wrong_bool,
    wrong_integer,
    wrong_keywords,
    wrong_number,
    wrong_option,
)

ACTIONS = gym.spaces.Discrete(2)
MODEL = Table(
    MAMLTRPO,
    {**TINY, "policy": "MlpPolicy", "env": early_end()},
    [
        *wrong_option("policy", "MlpPolicy")[:2],
        Wrong("policy", TrMRLPolicy, ValueError, "'MlpPolicy'", quoted="TrMRLPolicy"),
        *rows("policy", (5, None), TypeError, "'MlpPolicy'"),
        *rows("env", (5, gym.make, gym.Env, None), TypeError, "a Gymnasium environment"),
        *wrong_number("inner_learning_rate", (0, -1.0, NAN, INF), "positive"),
        *wrong_integer("n_tasks"),
        *wrong_integer("n_inner_episodes"),
        *wrong_integer("n_inner_steps"),
        *wrong_number("gamma", (-0.1, 1.1, NAN), "[0, 1]"),
        *wrong_number("gae_lambda", (-0.1, 1.1, NAN), "[0, 1]"),
        *wrong_number("target_kl", (0, -1.0, NAN, INF), "positive"),
        *wrong_integer("cg_max_steps"),
        *wrong_number("cg_damping", (-0.1, NAN, INF), "not negative"),
        *wrong_integer("line_search_max_iter"),
        *wrong_number("line_search_shrinking_factor", (-0.1, 1.1, NAN), "[0, 1]"),
        *rows("line_search_shrinking_factor", (0, 1), ValueError, "both excluded"),
        *wrong_bool("normalize_advantage"),
        *wrong_integer("n_adaptation_episodes", or_none=True),
        *wrong_integer("stats_window_size"),
        Wrong("tensorboard_log", 5, TypeError, "a folder or None"),
        *wrong_keywords("policy_kwargs"),
        Wrong("policy_kwargs", dict(wide=5), TypeError, "net_arch", quoted="'wide'"),
        *wrong_integer("seed", low=0, or_none=True),
        Wrong("device", "gpu", ValueError, "a PyTorch device"),
    ],
    {"verbose": "SB3's"},
)
POLICY = Table(
    MAMLPolicy,
    dict(observation_space=TRANSITION, action_space=ACTIONS),
    [
        *rows("observation_space", (5,), TypeError, "space"),
        *rows("action_space", (5,), TypeError, "space"),
        *rows("net_arch", (5, "wide"), TypeError, "a list of layer sizes"),
        Wrong("net_arch", [8, 0], ValueError, "at least 1", quoted="0"),
        Wrong("activation_fn", "relu", TypeError, "nn.Module"),
        *wrong_bool("ortho_init"),
        *wrong_number("log_std_init", (NAN, INF), "finite"),
    ],
)
TABLES = (MODEL, POLICY)


@each_row(TABLES)
def test_wrong_arguments(function: Callable[..., Any], right: dict[str, Any], row: Wrong) -> None:
    row.check(function, right)


def test_every_argument_has_a_row() -> None:
    assert_all_covered(TABLES)


class Masked(EarlyEnd):
    def action_masks(self) -> np.ndarray:
        return np.ones(2, dtype=bool)


def zeroed() -> gym.Env:
    return PreviousTransitionObservation(MultiEpisodeTrial(EarlyEnd()), across_episodes="zero")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MultiEpisodeTrial(EarlyEnd()), TypeError, "sb3_trmrl.PreviousTransitionObservation"),
        (lambda: PreviousTransitionObservation(EarlyEnd()), ValueError, "sb3_trmrl.MultiEpisodeTrial"),
        (lambda: early_end(tasks=[0.1, 0.2]), ValueError, "`env` must sample its tasks: make it with split='train'"),
        (lambda: VecFrameStack(copies(1), 2), ValueError, r"one prev_reward .*\(2,\). MAMLTRPO cannot read stacked"),
        (lambda: around(Masked()), ValueError, "`env` must have no method action_masks"),
        (zeroed, ValueError, "`env` must have across_episodes='keep', got 'zero'"),
    ],
)
def test_unsuitable_environments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_maml(make())


def test_loaded_models_are_checked(tmp_path: Path) -> None:
    tiny_maml().save(tmp_path / "model")
    with pytest.raises(ValueError, match="must sample its tasks"):
        MAMLTRPO.load(tmp_path / "model", copies(3, tasks=[0.1]))
    with pytest.raises(ValueError, match="must sample its tasks"):
        MAMLTRPO.load(tmp_path / "model").set_env(copies(3, tasks=[0.1]))
    with pytest.raises(ValueError, match="`n_tasks` must be at least 1, got 0"):
        MAMLTRPO.load(tmp_path / "model", n_tasks=0)
    with pytest.raises(TypeError, match="n_epochs"):
        MAMLTRPO.load(tmp_path / "model", n_epochs=9)
    PPO("MultiInputPolicy", early_end(), n_steps=2, batch_size=2).save(tmp_path / "ppo")
    with pytest.raises(ValueError, match="`policy` must be 'MlpPolicy' or a subclass of MAMLPolicy, got"):
        MAMLTRPO.load(tmp_path / "ppo")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"`path` must be a zip that MAMLTRPO\.save wrote"):
        MAMLTRPO.load(tmp_path / "broken.zip")


@pytest.mark.parametrize(("value", "problem"), [(NAN, "non-finite"), (1e30, "too large a number in")])
@pytest.mark.parametrize("poisoned", [0, 1], ids=["observation", "reward"])
def test_numbers_that_a_network_cannot_read(
    poisoned: int, value: float, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = EarlyEnd.step

    def with_value(self: EarlyEnd, action: Any) -> Any:
        found = list(step(self, action))
        found[poisoned] = np.full_like(found[poisoned], value)
        return tuple(found)

    monkeypatch.setattr(EarlyEnd, "step", with_value)
    with pytest.raises(ValueError, match=rf"{problem} observation.* from environment 0"):
        tiny_maml().learn(1)


def test_a_first_observation_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = EarlyEnd.reset

    def poisoned(self: EarlyEnd, **kwargs: Any) -> Any:
        observation, info = reset(self, **kwargs)
        return observation * NAN, info

    monkeypatch.setattr(EarlyEnd, "reset", poisoned)
    with pytest.raises(ValueError, match=r"non-finite observation.* from environment 0"):
        tiny_maml().learn(1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(dict(total_timesteps=2.5), TypeError), (dict(total_timesteps=-1), ValueError), (dict(callback=5), TypeError)],
)
def test_wrong_arguments_of_learn(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        tiny_maml().learn(**{"total_timesteps": 1, **arguments})


def test_without_sb3_contrib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"sb3-contrib.*pip install 'sb3_trmrl\[zoo\]'"):
        tiny_maml()
