"""Several copies of an environment with held-out tasks."""

import warnings
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_trmrl import AdaptationEvalCallback, evaluate_adaptation, share_tasks
from tests.helpers.agents import Still, tiny_model

COPIES = "several copies of an environment visit the same tasks"


def tasks_met(env: Any) -> set[Any]:
    """Return the tasks of 20 episodes of SB3's evaluation."""
    tasks = set()

    def note(local: dict[str, Any], _: Any) -> None:
        if local["done"]:
            tasks.add(local["info"]["task"])

    evaluate_policy(Still(), env, 20, callback=note, warn=False)  # type: ignore[arg-type]
    return tasks


@pytest.mark.parametrize("n_envs", [2, 4, 20])
def test_copies_are_told_to_share_their_tasks(n_envs: int) -> None:
    env = make_vec_env("GridNavi-v0", n_envs, env_kwargs={"split": "test"})
    with pytest.warns(UserWarning, match=COPIES):
        assert len(tasks_met(env)) < 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tasks_met(share_tasks(make_vec_env("GridNavi-v0", n_envs, env_kwargs={"split": "test"})))) == 20


def test_what_does_not_warn() -> None:
    """One environment after the other, environments that sample tasks, and everything of this package."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=COPIES)
        for _ in range(2):
            env = gym.make("GridNavi-v0", split="test")
            env.reset(seed=0)
            env.reset(seed=0)
            env.close()
            assert len(tasks_met(make_vec_env("GridNavi-v0", 1, env_kwargs={"split": "test"}))) == 20
        make_vec_env("GridNavi-v0", 3).reset()
        evaluate_adaptation(Still(), "GridNavi-v0", 4, 1)
        callback = AdaptationEvalCallback("BernoulliBandit-v0", eval_freq=16, verbose=0)
        tiny_model("BernoulliBandit-v0").learn(64, callback=callback)
