"""Ranks train one model: it equals that of one process, and is the same on all ranks."""

import os
import signal
from contextlib import redirect_stdout
from copy import deepcopy
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_trmrl.distributed import collectives
from sb3_trmrl.resuming import TrainingCheckpoint
from sb3_trmrl.resuming.checkpoint_files import find_checkpoint
from tests.helpers.agents import BOX_ACTION, VECTOR, SampledEnv, tiny_model
from tests.helpers.ranks import run_ranks

N_ENVS = 4
SPACES: dict[str, spaces.Space[Any]] = {
    "vector": VECTOR,
    "dict": spaces.Dict(a=VECTOR, b=spaces.Discrete(3)),
    "image": spaces.Box(0, 255, (3, 36, 36), np.uint8),
}


class NumberedEnv(gym.Env):
    """Environment whose observations, rewards and lengths of episodes depend on its number only."""

    def __init__(self, number: int, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space, self.number = deepcopy(observation_space), action_space, number
        self.observation_space.seed(number)
        self.step_number = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.step_number += 1
        ends = self.step_number % (3 + 2 * self.number) == 0
        reward = float(np.sin(self.step_number * (1 + self.number))) + float(np.sum(action))
        return self.observation_space.sample(), reward, ends, False, {}


def numbered(space: str, action_space: spaces.Space[Any] = BOX_ACTION) -> DummyVecEnv:
    """Environments of this rank; those of all ranks are the N_ENVS of one process."""
    n_envs = collectives.share("n_envs", N_ENVS)
    first = collectives.rank() * n_envs
    return DummyVecEnv(
        [
            partial(lambda i: Monitor(NumberedEnv(i, SPACES[space], action_space)), i)
            for i in range(first, first + n_envs)
        ]
    )


#: Memory, and arguments of the algorithm
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("window", dict()),
    ("full", dict()),
    ("window", dict(normalize_advantage=False, clip_range_vf=0.2, ent_coef=0.1)),
    ("full", dict(normalize_advantage=False, clip_range_vf=0.2, ent_coef=0.1)),
]


def learn_without_noise() -> list[dict[str, Any]]:
    """Learn with actions that do not depend on random numbers, from minibatches of whole rollouts."""
    results = []
    for memory, kwargs in SETTINGS:
        settings = dict(n_steps=16, batch_size=16 * N_ENVS, n_epochs=2, learning_rate=0.1)
        sgd = dict(memory=memory, optimizer_class=th.optim.SGD)
        model = tiny_model(numbered("dict"), sgd, **(settings | kwargs))
        model.policy.forward = partial(model.policy.forward, deterministic=True)
        model.learn(2 * 16 * N_ENVS)
        logged = {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}
        results.append(
            {
                "weights": {name: weight.clone() for name, weight in model.policy.state_dict().items()},
                "num_timesteps": model.num_timesteps,
                "episodes": sorted(each["r"] for each in model.ep_info_buffer),
                "logged": logged,
            }
        )
    return results


def test_ranks_compute_what_one_process_computes() -> None:
    for expected, first, second in zip(learn_without_noise(), *run_ranks(learn_without_noise), strict=True):
        for name, weight in expected["weights"].items():
            th.testing.assert_close(first["weights"][name], weight, rtol=1e-4, atol=1e-6)
            assert th.equal(first["weights"][name], second["weights"][name])
        assert first["num_timesteps"] == second["num_timesteps"] == expected["num_timesteps"]
        assert first["episodes"] == second["episodes"] == pytest.approx(expected["episodes"], abs=1e-5)
        assert first["logged"].keys() == expected["logged"].keys()
        for name, value in expected["logged"].items():
            assert first["logged"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


class BatchNorm(BaseFeaturesExtractor):
    """Features whose layer has statistics beside its parameters."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, 2)
        self.layers = nn.Sequential(nn.Linear(observation_space.shape[0], 2), nn.BatchNorm1d(2))  # type: ignore[index]

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("vector", dict(policy_kwargs=dict(memory="window"))),
    "full": ("vector", dict(policy_kwargs=dict(memory="full"), batch_size=8)),
    "gSDE": ("vector", dict(use_sde=True, sde_sample_freq=4)),
    "dict": ("dict", dict(policy_kwargs=dict(critic_input="token"))),
    "image": ("image", dict(policy_kwargs=dict(memory="full"))),
    "target_kl": ("vector", dict(target_kl=1e-5, n_epochs=5)),
    "batch norm": ("vector", dict(policy_kwargs=dict(features_extractor_class=BatchNorm))),
    "no seed": ("vector", dict(seed=None)),
}


def learn_each() -> dict[str, dict[str, Any]]:
    """Learn with each setting, with VecNormalize and actions of this rank."""
    results = {}
    for name, (space, settings) in CASES.items():
        env = numbered(space)
        env = VecNormalize(env, norm_obs=space == "vector") if name != "window" else env
        model = tiny_model(env, **{**dict(n_epochs=2), **settings})
        model.learn(4 * 16 * N_ENVS)
        results[name] = {
            "weights": {key: weight.clone() for key, weight in model.policy.state_dict().items()},
            "optimizer": model.policy.optimizer.state_dict()["state"],
            "n_updates": model._n_updates,
            "actions": model.rollout_buffer.actions,
            "statistics": [vars(each) for each in model._shared_statistics._statistics],
        }
    return results


def test_ranks_hold_the_same_model() -> None:
    first, second = run_ranks(learn_each)
    for name in CASES:
        one, other = first[name], second[name]
        for key in ("weights", "optimizer", "statistics", "n_updates"):
            th.testing.assert_close(one[key], other[key], rtol=0.0, atol=0.0, msg=f"{name}: {key}")
        assert not np.array_equal(one["actions"], other["actions"]), f"{name}: ranks draw the same actions"
    assert first["target_kl"]["n_updates"] < 4 * 5, "the KL divergence has not stopped an update"
    assert len(first["full"]["statistics"]) == 2


def draw_minibatches() -> list[list[int]]:
    """Return the sizes of the minibatches of two epochs."""
    env = DummyVecEnv([partial(NumberedEnv, 50 * collectives.rank(), VECTOR, BOX_ACTION)])
    model = tiny_model(env, dict(memory="full"), n_steps=64, batch_size=16)
    model.learn(128)
    return [[len(batch.advantages) for batch in model.rollout_buffer.get(8)] for _ in range(2)]


def test_ranks_draw_as_many_minibatches() -> None:
    """One rank has 21 episodes and the other one a single one, which is in one minibatch."""
    many, one = run_ranks(draw_minibatches)
    assert one == [[64], [64]]
    assert many == [[64], [64]]


# -- Callbacks, log and arguments --------------------------------------------------------------------------------------


class Recorder(BaseCallback):
    """Records what callbacks see, and ends training after the given number of steps."""

    def __init__(self, last_step: int) -> None:
        super().__init__()
        self.last_step = last_step
        self.steps: list[int] = []

    def _on_step(self) -> bool:
        self.steps.append(self.num_timesteps)
        return self.num_timesteps < self.last_step


def learn_with_callback(folder: str) -> dict[str, Any]:
    model = tiny_model(numbered("vector"), tensorboard_log=folder, verbose=1)
    recorder, bar = Recorder(last_step=100), ProgressBarCallback()
    with redirect_stdout(StringIO()) as output:
        model.learn(1000, callback=[bar, recorder])
    return {
        "steps": recorder.steps,
        "num_timesteps": model.num_timesteps,
        "progress": getattr(bar, "pbar", None) and bar.pbar.n,
        "has_output": bool(output.getvalue()),
        "formats": len(model.logger.output_formats),
        "episodes": len(model.ep_info_buffer),
    }


def test_rank_0_calls_back_and_logs(tmp_path: Path) -> None:
    """It ends training in the middle of a rollout, of which the others finish their part."""
    first, second = run_ranks(learn_with_callback, str(tmp_path))
    assert first["steps"] == list(range(N_ENVS, 101, N_ENVS))
    assert second["steps"] == []
    assert (first["num_timesteps"], second["num_timesteps"]) == (100, 128)
    assert (first["progress"], second["progress"]) == (100, None)
    assert (first["has_output"], second["has_output"]) == (True, False)
    assert (first["formats"], second["formats"]) == (2, 0)
    assert len(list(tmp_path.iterdir())) == 1
    # Environment i has an episode of 3 + 2 i steps. Both know all of the first rollout, and their own of the second one
    first_rollout = [16 // (3 + 2 * i) for i in range(N_ENVS)]
    both_rollouts = [24 // (3 + 2 * i) for i in range(2)], [32 // (3 + 2 * i) for i in range(2, N_ENVS)]
    assert first["episodes"] == sum(both_rollouts[0]) + sum(first_rollout[2:])
    assert second["episodes"] == sum(both_rollouts[1]) + sum(first_rollout[:2])


def learn_after_stop() -> list[int]:
    model = tiny_model(numbered("vector"))
    model.learn(1000, callback=Recorder(last_step=36))
    model.learn(100, reset_num_timesteps=False)
    return [model.num_timesteps, model._n_updates]


def test_ranks_continue_after_a_callback_has_ended_training() -> None:
    assert run_ranks(learn_after_stop) == [[36 + 2 * 64, 2]] * 2


DIFFERENT: dict[str, list[Any]] = {
    "n_envs": [1, 2],
    "n_steps": [16, 32],
    "target_kl": [None, 0.1],
    "learning_rate": [0.1, 0.2],
}


def learn_with_different_arguments() -> list[str]:
    errors = []
    for name, values in DIFFERENT.items():
        value = values[collectives.rank()]
        n_envs = value if name == "n_envs" else 1
        model = tiny_model(DummyVecEnv([SampledEnv] * n_envs), **({} if name == "n_envs" else {name: value}))
        with pytest.raises(ValueError) as error:
            model.learn(64)
        errors.append(str(error.value))
    return errors


def test_arguments_are_the_same_on_all_ranks() -> None:
    expected = [f"`{name}` must be the same on all ranks, got {a}, {b}" for name, (a, b) in DIFFERENT.items()]
    assert run_ranks(learn_with_different_arguments) == [expected] * 2


def test_batch_size_is_that_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match=r"`batch_size` .* must be a multiple of the number of ranks \(3\), got 16"):
        tiny_model(SampledEnv())


# -- Lost ranks --------------------------------------------------------------------------------------------------------


def learn_and_die(folder: str) -> None:
    model = tiny_model(numbered("vector"))
    collect = model.collect_rollouts

    def collect_or_die(*args: Any, **kwargs: Any) -> bool:
        if collectives.rank() == 1 and model.num_timesteps == 256:
            os.kill(os.getpid(), signal.SIGKILL)
        return bool(collect(*args, **kwargs))

    model.collect_rollouts = collect_or_die
    model.learn(1000, callback=TrainingCheckpoint(folder, save_freq=64))


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    error, exit_code = run_ranks(learn_and_die, str(tmp_path))
    assert "RuntimeError: rank 0 of 2 could not communicate with the other ranks" in error
    assert exit_code == -signal.SIGKILL
    assert find_checkpoint(tmp_path).name == "checkpoint_192_steps.zip"
