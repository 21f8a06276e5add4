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


@pytest.mark.parametrize("n_envs", [2, 4, 20])
@pytest.mark.parametrize("env_id", ["GridNavi-v0", "TabularMDP-v0"])
def test_tasks_are_divided_only_once(env_id: str, n_envs: int) -> None:
    env = share_tasks(make_vec_env(env_id, n_envs, env_kwargs={"split": "test"}))
    shares = env.get_attr("tasks")
    assert {len(share) for share in shares} == {20 // n_envs} and all(share != shares[0] for share in shares[1:])
    if env_id == "GridNavi-v0":
        assert len(tasks_met(share_tasks(env))) == len(tasks_met(env)) == 20
    assert share_tasks(env).get_attr("tasks") == shares


def test_tasks_that_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match=r'`env` must have been made with split="validation" or "test", got .*Dummy'):
        share_tasks(make_vec_env("GridNavi-v0", 2))
    for env in (make_vec_env("CartPole-v1", 2), gym.make("GridNavi-v0", split="test")):
        with pytest.raises(TypeError, match=r"`env` must be a VecEnv of .*MultiEpisodeTrial, got"):
            share_tasks(env)  # type: ignore[arg-type]


def test_fewer_tasks_in_the_middle_of_a_list() -> None:
    env = gym.make("GridNavi-v0", split="test")
    tasks = env.get_wrapper_attr("tasks")
    assert [env.reset()[1]["task"] for _ in range(5)] == [*tasks[:5]]
    env.set_wrapper_attr("tasks", tasks[:2])
    assert [env.reset()[1]["task"] for _ in range(3)] == [tasks[1], tasks[0], tasks[1]]


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
