"""The arguments `reveal_task` and `previous_transition` of all registered families of tasks."""

from math import cos, sin
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_trmrl.envs.tasks import TaskObservation
from tests.helpers.registered import FAMILIES, SMALL


def features(env_id: str, task: Any) -> Any:
    """A task as numbers, written down once more."""
    if env_id == "TabularMDP-v0":
        return [*task.mean_rewards.ravel(), *task.transitions.ravel()]
    if env_id == "SparsePointRobot-v0":
        return [cos(task), sin(task)]
    if env_id in ("GridNavi-v0", "DarkKeyToDoor-v0"):
        size = 5 if env_id == "GridNavi-v0" else 9
        return [float(i == number) for number in np.ravel(task) for i in range(size)]
    if env_id == "MetaWorldML1-v0":
        return [1.0, *task.rand_vec]  # its only class
    return np.ravel(task)


@pytest.mark.parametrize("previous_transition", [True, False])
@pytest.mark.parametrize("env_id", [*FAMILIES, "MetaWorldML1-v0"])
def test_reveal_task_shows_the_present_task(
    env_id: str, previous_transition: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if env_id == "MetaWorldML1-v0":
        pytest.importorskip("metaworld")
        monkeypatch.setenv("SB3_TRMRL_CACHE", str(tmp_path))
    kwargs = {"episodes_per_trial": 3, "horizon": 4, "previous_transition": previous_transition}
    env, hidden = gym.make(env_id, reveal_task=True, **kwargs), gym.make(env_id, **kwargs)
    expected_space = hidden.observation_space if previous_transition else {"observation": hidden.observation_space}
    space = env.observation_space["task"]
    assert {k: v for k, v in env.observation_space.items() if k != "task"} == dict(expected_space.items())
    assert space.dtype == np.float32 and space.shape == (len(features(env_id, env.unwrapped.get_task())),)

    tasks, boundaries = [], 0
    for trial in range(6):
        seed = 5 if trial == 0 else None
        (observation, info), (other, _) = env.reset(seed=seed), hidden.reset(seed=seed)
        tasks.append(info["task"])
        shown = np.array(features(env_id, info["task"]), dtype=np.float32)
        ended = False
        while True:
            assert env.observation_space.contains(observation)
            np.testing.assert_allclose(observation["task"], shown, rtol=1e-6)
            # Everything else stays as it is
            rest = {key: value for key, value in observation.items() if key != "task"}
            np.testing.assert_equal(rest if previous_transition else rest["observation"], other)
            if ended:
                break
            action = env.action_space.sample()
            observation, reward, terminated, truncated, info = env.step(action)
            other, same_reward, *_ = hidden.step(action)
            assert reward == same_reward
            boundaries += info["new_episode"]
            ended = terminated or truncated
    assert boundaries == 12
    assert any(task != tasks[0] for task in tasks)
    for made in (env, hidden):
        made.close()


@pytest.mark.parametrize("env_id", FAMILIES)
def test_the_revealed_task_tells_held_out_tasks_apart(env_id: str) -> None:
    env = gym.make(env_id, reveal_task=True, split="test")
    tasks = env.unwrapped.held_out_tasks("test")
    shown = [env.reset()[0]["task"] for _ in tasks]
    for i, task in enumerate(tasks):
        for j in range(i):
            assert (task == tasks[j]) == np.array_equal(shown[i], shown[j])


@pytest.mark.parametrize("previous_transition", [True, False])
def test_a_revealed_task_follows_the_splits_of_a_vec_env(previous_transition: bool) -> None:
    kwargs = {"reveal_task": True, "previous_transition": previous_transition, "episodes_per_trial": 2, "horizon": 3}
    venv = make_vec_env("GridNavi-v0", n_envs=2, seed=0, env_kwargs=kwargs)
    observations = venv.reset()
    for _ in range(40):
        expected = [features("GridNavi-v0", task) for task in venv.env_method("get_task")]
        np.testing.assert_array_equal(observations["task"], expected)
        observations, _, dones, infos = venv.step(np.array([venv.action_space.sample() for _ in range(2)]))
        for i in np.flatnonzero(dones):
            # The last observation of a trial still tells its own task
            last = infos[i]["terminal_observation"]["task"]
            np.testing.assert_array_equal(last, features("GridNavi-v0", infos[i]["task"]))
    venv.close()


def test_without_previous_transitions_the_observation_is_the_environments_own() -> None:
    for env_id, env_class in SMALL.items():
        env = gym.make(env_id, previous_transition=False, horizon=3, episodes_per_trial=4)
        assert env.observation_space == env_class().observation_space
        observation, _ = env.reset(seed=0)
        for _ in range(7):
            assert env.observation_space.contains(observation)
            observation, _, _, _, info = env.step(env.action_space.sample())
        assert info["episode_index"] == 2


def test_a_key_that_is_taken() -> None:
    env = TaskObservation(gym.make("GridNavi-v0").unwrapped)
    with pytest.raises(ValueError, match="`env` must not have an observation with the key 'task'"):
        TaskObservation(env)
