"""Wrong arguments of PEARL and its policy, and environments that it cannot learn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_trmrl import PEARL, MultiEpisodeTrial, PEARLPolicy, PreviousTransitionObservation
from tests.helpers.environments import NoisyReach, early_end, noisy_reach
from tests.helpers.pearl import TINY, copies, tiny_pearl
from tests.helpers.wrong_use import (
    INF,
    NAN,
    Table,
    Wrong,
    assert_all_covered,
    each_row,
    rows,
    wrong_integer,
    wrong_keywords,
    wrong_number,
    wrong_option,
)

SPACE = noisy_reach().observation_space
ACTIONS = noisy_reach().action_space


def wrong_sizes(argument: str) -> list[Wrong]:
    return [
        *rows(argument, (5, "wide"), TypeError, "a list of layer sizes"),
        Wrong(argument, [8, 0], ValueError, "at least 1", quoted="0"),
        Wrong(argument, [8, 2.5], TypeError, "an integer", quoted="2.5"),
    ]


MODEL = Table(
    PEARL,
    {**TINY, "policy": "PEARLPolicy", "env": noisy_reach()},
    [
        *wrong_option("policy", "PEARLPolicy")[:2],
        Wrong("policy", "MlpPolicy", ValueError, "'PEARLPolicy'"),
        *rows("policy", (5, None), TypeError, "'PEARLPolicy'"),
        *rows("env", (5, gym.make, gym.Env), TypeError, "a Gymnasium environment"),
        Wrong("env", None, TypeError, "a Gymnasium environment"),
        *wrong_number("learning_rate", (-1.0, NAN, INF), "not negative"),
        *wrong_integer("buffer_size", low=0)[:3],
        Wrong("buffer_size", 90, ValueError, "at least 96"),
        *wrong_integer("batch_size"),
        *wrong_number("tau", (-0.1, 1.1, NAN), "[0, 1]"),
        *wrong_number("gamma", (-0.1, 1.1, NAN), "[0, 1]"),
        *wrong_integer("gradient_steps", low=-1)[:-2],
        *rows("gradient_steps", (0, -2), ValueError, "at least"),
        *rows("ent_coef", ("automatic", "auto_", "auto_0", "auto_x", "auto_nan", "0.1"), ValueError, "'auto'"),
        *rows("ent_coef", (-1.0, NAN), ValueError, "not negative"),
        *wrong_integer("target_update_interval"),
        *rows("target_entropy", ("high", None), TypeError, "a number"),
        *wrong_integer("n_train_tasks"),
        *wrong_integer("initial_steps"),
        *wrong_integer("tasks_per_iteration"),
        *wrong_integer("prior_steps"),
        *wrong_integer("posterior_steps", low=0),
        *wrong_integer("meta_batch_size"),
        Wrong("meta_batch_size", 5, ValueError, "at most `n_train_tasks` 4"),
        *wrong_integer("context_batch_size"),
        *wrong_number("kl_weight", (-0.1, NAN, INF), "not negative"),
        *wrong_number("reward_scale", (0, -1.0, NAN, INF), "positive"),
        *wrong_integer("stats_window_size"),
        Wrong("tensorboard_log", 5, TypeError, "a folder or None"),
        *wrong_keywords("policy_kwargs"),
        Wrong("policy_kwargs", dict(wide=5), TypeError, "latent_dim", quoted="'wide'"),
        Wrong("policy_kwargs", dict(use_sde=True), TypeError, "latent_dim", quoted="'use_sde'"),
        *wrong_integer("seed", low=0, or_none=True),
        Wrong("device", "gpu", ValueError, "a PyTorch device"),
    ],
    {"verbose": "SB3's"},
)
POLICY = Table(
    PEARLPolicy,
    dict(observation_space=SPACE, action_space=ACTIONS, lr_schedule=lambda _: 1e-3),
    [
        Wrong("lr_schedule", 0.1, TypeError, "a schedule"),
        *wrong_sizes("net_arch"),
        Wrong("net_arch", dict(pi=[8], vf=[8]), ValueError, "'pi' and 'qf'", quoted="'vf'"),
        Wrong("net_arch", dict(pi=[8], qf=[0]), ValueError, "at least 1", quoted="0"),
        Wrong("activation_fn", "relu", TypeError, "nn.Module"),
        *wrong_integer("latent_dim"),
        *wrong_sizes("encoder_net_arch"),
        *wrong_integer("n_critics"),
        Wrong("optimizer_class", 5, TypeError, "Optimizer"),
        *wrong_keywords("optimizer_kwargs"),
    ],
    dict.fromkeys(("observation_space", "action_space"), "see the environments below"),
)
TABLES = (MODEL, POLICY)


@each_row(TABLES)
def test_wrong_arguments(function: Callable[..., Any], right: dict[str, Any], row: Wrong) -> None:
    row.check(function, right)


def test_every_argument_has_a_row() -> None:
    assert_all_covered(TABLES)


class Unbounded(NoisyReach):
    action_space = spaces.Box(-np.inf, np.inf, (2,))


def around(env: gym.Env) -> gym.Env:
    return PreviousTransitionObservation(MultiEpisodeTrial(env))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (early_end, TypeError, r"`env` must have a Box action space.*SAC, got Discrete\(2\)"),
        (lambda: around(Unbounded()), ValueError, "`env` must have an action space with finite bounds"),
        (lambda: MultiEpisodeTrial(NoisyReach()), TypeError, "sb3_trmrl.PreviousTransitionObservation"),
        (lambda: PreviousTransitionObservation(NoisyReach()), ValueError, "sb3_trmrl.MultiEpisodeTrial"),
        (lambda: noisy_reach(tasks=[0.1, 0.2]), ValueError, "`env` must sample its tasks: make it with split='train'"),
        (lambda: VecNormalize(copies(1)), ValueError, "`env` must not contain a VecNormalize: "),
        (lambda: copies(5), ValueError, "`env` must have at most `n_train_tasks` 4 copies"),
        (lambda: gym.make("GridNavi-v0"), TypeError, "Box action space"),
    ],
)
def test_unsuitable_environments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny_pearl(make())


def test_stacked_frames() -> None:
    with pytest.raises(ValueError, match="`env` must observe the 2 numbers of the previous action, got 4"):
        tiny_pearl(VecFrameStack(copies(1), 2))


def test_the_environment_of_a_loaded_model_is_checked(tmp_path: Path) -> None:
    tiny_pearl().save(tmp_path / "model")
    with pytest.raises(ValueError, match="must not contain a VecNormalize"):
        PEARL.load(tmp_path / "model", VecNormalize(copies(1)))
    with pytest.raises(ValueError, match="must not contain a VecNormalize"):
        PEARL.load(tmp_path / "model").set_env(VecNormalize(copies(1)))
    with pytest.raises(ValueError, match="`meta_batch_size` must be at most `n_train_tasks` 4, got 9"):
        PEARL.load(tmp_path / "model", copies(1), meta_batch_size=9)
    tiny_pearl().learn(1).save(tmp_path / "trained")
    with pytest.raises(ValueError, match=r"`n_train_tasks` must be 4, .* got 6"):
        PEARL.load(tmp_path / "trained", copies(1), n_train_tasks=6)
    with pytest.raises(TypeError, match="n_tasks"):
        PEARL.load(tmp_path / "model", n_tasks=9)


def test_the_zip_of_another_algorithm(tmp_path: Path) -> None:
    SAC("MultiInputPolicy", noisy_reach(), buffer_size=10).save(tmp_path / "model")
    with pytest.raises(ValueError, match="`policy` must be 'PEARLPolicy' or a subclass of it, got"):
        PEARL.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"`path` must be a zip that PEARL\.save wrote"):
        (tmp_path / "broken.zip").write_bytes(b"PK")
        PEARL.load(tmp_path / "broken.zip")


@pytest.mark.parametrize(("value", "problem"), [(NAN, "non-finite"), (1e30, "too large a number in")])
@pytest.mark.parametrize(("where", "key"), [("reward", "prev_reward"), ("observation", "observation")])
def test_numbers_that_a_network_cannot_read(
    where: str, key: str, value: float, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = NoisyReach.step

    def poisoned(self: NoisyReach, action: Any) -> Any:
        observation, reward, *rest = step(self, action)
        if where == "reward":
            return observation, value, *rest
        return np.full_like(observation, value), reward, *rest

    monkeypatch.setattr(NoisyReach, "step", poisoned)
    with pytest.raises(ValueError, match=rf"{problem} observation\['{key}'\] from environment 0"):
        tiny_pearl().learn(1)


def test_a_first_observation_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = NoisyReach.reset

    def poisoned(self: NoisyReach, **kwargs: Any) -> Any:
        observation, info = reset(self, **kwargs)
        return observation * NAN, info

    monkeypatch.setattr(NoisyReach, "reset", poisoned)
    with pytest.raises(ValueError, match=r"non-finite observation\['observation'\] from environment 0"):
        tiny_pearl().learn(1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(dict(total_timesteps=2.5), TypeError), (dict(total_timesteps=-1), ValueError), (dict(callback=5), TypeError)],
)
def test_wrong_arguments_of_learn(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        tiny_pearl().learn(**{"total_timesteps": 1, **arguments})


def test_a_schedule_is_followed_and_ends_at_zero_progress() -> None:
    model = tiny_pearl(learning_rate=lambda left: 0.01 * (0.5 + left))
    model.learn(190)
    assert model.num_timesteps == 200 and model._current_progress_remaining == 0
    rates = {
        group["lr"] for part in (model.actor, model.critic, model.encoder) for group in part.optimizer.param_groups
    }
    assert rates == {0.005}
    assert th.is_tensor(model.log_ent_coef)
