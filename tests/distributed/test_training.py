"""Ranks train one model: it equals that of one process, and is the same on all ranks."""

from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trmrl.distributed import collectives
from tests.helpers.agents import BOX_ACTION, VECTOR, tiny_model
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


def learn_with_mode(space: str, memory: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Learn with actions that do not depend on random numbers, from minibatches of whole rollouts."""
    env = numbered(space)
    settings = dict(n_steps=16, batch_size=16 * N_ENVS, n_epochs=2, learning_rate=0.1)
    sgd = dict(memory=memory, optimizer_class=th.optim.SGD)
    model = tiny_model(env, sgd, **(settings | kwargs))
    model.policy.forward = partial(model.policy.forward, deterministic=True)
    model.learn(2 * 16 * N_ENVS)
    return {
        "weights": {name: weight.clone() for name, weight in model.policy.state_dict().items()},
        "num_timesteps": model.num_timesteps,
        "episodes": sorted(each["r"] for each in model.ep_info_buffer),
        "logged": {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")},
    }


@pytest.mark.parametrize("memory", ["window", "full"])
@pytest.mark.parametrize(
    "kwargs", [dict(), dict(normalize_advantage=False, clip_range_vf=0.2, ent_coef=0.1)], ids=["", "options"]
)
def test_ranks_compute_what_one_process_computes(memory: str, kwargs: dict[str, Any]) -> None:
    expected = learn_with_mode("dict", memory, kwargs)
    first, second = run_ranks(learn_with_mode, "dict", memory, kwargs)
    for name, weight in expected["weights"].items():
        th.testing.assert_close(first["weights"][name], weight, rtol=1e-4, atol=1e-6)
        assert th.equal(first["weights"][name], second["weights"][name])
    assert first["num_timesteps"] == second["num_timesteps"] == expected["num_timesteps"]
    assert first["episodes"] == second["episodes"] == pytest.approx(expected["episodes"], abs=1e-5)
    for name, value in expected["logged"].items():
        assert first["logged"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
