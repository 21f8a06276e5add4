"""What all registered families of tasks have in common: trials, seeds, held-out tasks, copies, checkers."""

import copy
import pickle
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_trmrl.envs.tabular_mdp import TabularMDPTask
from tests.helpers.registered import (
    EPISODES_PER_TRIAL,
    FAMILIES,
    HORIZON,
    LOCOMOTION,
    SMALL,
    UNAVOIDABLE,
    assert_checkers_pass,
    finish,
    play,
    start_without_the_agent,
    visited_tasks,
)

# Without random numbers, once the task is given
DETERMINISTIC = ("GridNavi-v0", "DarkKeyToDoor-v0", "SparsePointRobot-v0")
TRUNCATED = (*LOCOMOTION, "SparsePointRobot-v0")
NOT_HELD_OUT = ("GridNavi-v0", "HalfCheetahDir-v0", "AntDir-v0")


def short(env_id: str, horizon: int) -> dict[str, int]:
    """Arguments that make the episodes of a simulator short."""
    return {"horizon": horizon} if env_id in LOCOMOTION else {}


@pytest.mark.parametrize("env_id", FAMILIES)
def test_default_trials(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=0)
    lengths, ended = (), False
    while not ended:
        _, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, env.action_space.dtype))
        lengths, ended = info.get("episode_lengths", lengths), terminated or truncated
    assert len(lengths) == EPISODES_PER_TRIAL[env_id] and max(lengths) <= HORIZON[env_id]
    if env_id != "AntDir-v0":  # it may fall
        assert set(lengths) == {HORIZON[env_id]}
        assert (terminated, truncated) == (env_id not in TRUNCATED, env_id in TRUNCATED)
    env.close()


@pytest.mark.parametrize("env_id", FAMILIES)
def test_the_task_is_constant_in_a_trial_and_new_in_the_next(env_id: str) -> None:
    env = gym.make(env_id, **short(env_id, 5))
    tasks = []
    for trial in range(12):
        _, info = env.reset(seed=3 if trial == 0 else None)
        task, ended = info["task"], False
        while not ended:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            ended = terminated or truncated
            assert env.unwrapped.get_task() == task
            assert info.get("task", task) == task
        assert len(info["episode_lengths"]) == EPISODES_PER_TRIAL[env_id]
        assert info["task"] == task
        tasks.append(task)
    n_different = len(set(tasks))
    if env_id in NOT_HELD_OUT:  # these have few tasks
        assert n_different == 2 if env_id.endswith("Dir-v0") else n_different > 6
    else:
        assert n_different == 12
    env.close()


@pytest.mark.filterwarnings("ignore:several copies of an environment visit the same tasks")
@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_same_seed_same_run_bit_for_bit_and_different_seeds_differ(env_id: str, split: str) -> None:
    n_steps = 3 * 4 * HORIZON[env_id] if env_id in SMALL else 100
    envs = [gym.make(env_id, split=split, **short(env_id, 20)) for _ in range(2)]
    play(envs[1], 37, seed=11)
    first, second = play(envs[0], n_steps, seed=4), play(envs[1], n_steps, seed=4)
    assert pickle.dumps(first) == pickle.dumps(second)
    if split == "train" or env_id not in DETERMINISTIC:
        assert pickle.dumps(play(envs[0], n_steps, seed=5)) != pickle.dumps(first)
    for env in envs:
        env.close()


@pytest.mark.parametrize("env_id", FAMILIES)
def test_common_arguments_reach_the_wrappers(env_id: str) -> None:
    env = gym.make(env_id, episodes_per_trial=3, horizon=2, trial_end="truncated", across_episodes="zero")
    env.reset(seed=0)
    rows = []
    for _ in range(6):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        is_zero = not (observation["prev_action"].any() or observation["prev_reward"].any())
        rows.append((is_zero, float(observation["prev_done"][0]), terminated, truncated))
    assert info["episode_lengths"] == (2, 2, 2)
    middle, boundary, end = (False, 0.0, False, False), (True, 1.0, False, False), (False, 0.0, False, True)
    assert rows == [middle, boundary, middle, boundary, middle, end]
    env.close()


@pytest.mark.parametrize("env_id", FAMILIES)
def test_infos_are_small(env_id: str) -> None:
    env = gym.make(env_id)
    infos = [entry[-1] for entry in play(env, 450, seed=0) if len(entry) == 5]
    assert any("task" in info for info in infos)
    # Copied as vectorised environments do; a task of TabularMDP is immutable and shared
    for info in infos:
        copied = copy.deepcopy(info)
        assert copied == info
        without_task = {key: value for key, value in copied.items() if key != "task"}
        assert len(pickle.dumps(without_task)) < 400
        assert all(type(value) in (bool, int, float, tuple) for value in without_task.values())
        if isinstance(info.get("task"), TabularMDPTask):
            assert copied["task"] is info["task"]
    env.close()


def test_the_range_of_tasks_is_an_argument() -> None:
    tasks = visited_tasks(gym.make("HalfCheetahVel-v0"), 200, seed=0)
    assert min(tasks) >= 0.0 and max(tasks) <= 3.0
    assert np.mean(tasks) == pytest.approx(1.5, abs=4 * 3 / np.sqrt(12 * 200))
    for split in ("train", "test"):
        tasks = visited_tasks(gym.make("HalfCheetahVel-v0", velocity_range=(3.0, 4.0), split=split), 20, seed=0)
        assert all(3.0 <= task <= 4.0 for task in tasks)
    assert set(visited_tasks(gym.make("AntDir-v0", directions=(-1,)), 5, seed=0)) == {-1}
    bandit = gym.make("BernoulliBandit-v0", n_arms=3, mean_range=(0.8, 0.9))
    assert all(0.8 <= mean <= 0.9 for task in visited_tasks(bandit, 20, seed=0) for mean in task)
    mdp = gym.make("TabularMDP-v0", reward_prior=(-5.0, 0.0))
    assert (visited_tasks(mdp, 1, seed=0)[0].mean_rewards == -5.0).all()


@pytest.mark.parametrize("env_id", FAMILIES)
def test_held_out_tasks_are_fixed_disjoint_and_visited_in_turn(env_id: str) -> None:
    kwargs = short(env_id, 2)
    visited = {}
    for split in ("validation", "test"):
        env = gym.make(env_id, split=split, **kwargs)
        visited[split] = visited_tasks(env, 20, seed=1)
        assert visited_tasks(env, 20) == visited[split]
        other = gym.make(env_id, split=split, **kwargs)
        assert visited_tasks(other, 20, seed=2) == visited_tasks(other, 20) == visited[split]
    if env_id.endswith("Dir-v0"):  # each of the two tasks as often as the other
        assert visited["validation"] == visited["test"] == [1, -1] * 10
    elif env_id not in NOT_HELD_OUT:
        train = visited_tasks(gym.make(env_id, **kwargs), 100, seed=0)
        every = visited["validation"] + visited["test"] + train
        assert len(set(every)) == len(every)


@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_tasks_come_in_any_number_and_are_always_the_same(env_id: str, split: str) -> None:
    env, other = (gym.make(env_id).unwrapped for _ in range(2))
    assert env.holds_tasks_out == (env_id not in NOT_HELD_OUT)
    other.reset(seed=17)
    for n in (1, 20, 33):
        tasks = env.held_out_tasks(split, n)
        assert len(tasks) == n and tasks == other.held_out_tasks(split, n)
        for task in tasks:
            env.set_task(task)
            assert env.get_task() == task
    assert gym.make(env_id, split=split).get_wrapper_attr("tasks") == tuple(env.held_out_tasks(split))


@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize(
    "kwargs", [{}, {"reveal_task": True}, {"reveal_task": True, "previous_transition": False}], ids=str
)
def test_both_env_checkers_pass_without_warnings(env_id: str, kwargs: dict[str, Any]) -> None:
    assert_checkers_pass(env_id, **kwargs)


@pytest.mark.parametrize("env_id", SMALL)
def test_the_passive_checker_finds_nothing_in_a_whole_trial(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for word in UNAVOIDABLE:
            warnings.filterwarnings("ignore", message=f".*{word}")
        env = gym.make(env_id, disable_env_checker=False)
        env.reset(seed=0)
        for _ in range(EPISODES_PER_TRIAL[env_id] * HORIZON[env_id]):
            env.step(env.action_space.sample())
        env.reset()


@pytest.mark.filterwarnings("ignore:several copies of an environment visit the same tasks")
@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize("kwargs", [{}, {"split": "test"}, {"split": "test", "reveal_task": True}], ids=str)
def test_a_spec_makes_the_same_environment_again(env_id: str, kwargs: dict[str, Any]) -> None:
    env = gym.make(env_id, **kwargs)
    again = gym.make(pickle.loads(pickle.dumps(env.spec)))
    assert again.spec == env.spec and again.observation_space == env.observation_space
    assert visited_tasks(again, 3, seed=0) == visited_tasks(env, 3, seed=0)
    assert gym.spec(env_id).make(**kwargs).spec.kwargs == env.spec.kwargs
    bare = pickle.loads(pickle.dumps(env.unwrapped))
    assert type(bare) is type(env.unwrapped)
    assert bare.observation_space == env.unwrapped.observation_space


DUPLICATE = pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)


@pytest.mark.parametrize("env_id", [*LOCOMOTION, "MetaWorldML1-v0"])
@pytest.mark.parametrize("n_steps", [None, 0, 7], ids=["not reset", "reset", "stepped"])
@DUPLICATE
@pytest.mark.usefixtures("few_goals")
def test_copies_of_simulators(env_id: str, n_steps: int | None, duplicate: Callable[[Any], Any]) -> None:
    """They go on with the task, the step and the generator of the original, in the middle of a trial."""
    if "MetaWorld" in env_id:
        pytest.importorskip("metaworld")
    env = gym.make(env_id, horizon=5, episodes_per_trial=3, disable_env_checker=True)
    env.action_space.seed(0)
    if n_steps is None:
        env.unwrapped.set_task(env.unwrapped.sample_tasks(1)[0])
    else:
        env.reset(seed=0)
        for _ in range(n_steps):
            env.step(env.action_space.sample())
    other = duplicate(env)
    assert other.unwrapped.get_task() == env.unwrapped.get_task()
    if n_steps is None:
        np.testing.assert_equal(other.reset(seed=0), env.reset(seed=0))
    for _ in range(15 - (n_steps or 0)):
        action = env.action_space.sample()
        np.testing.assert_equal(other.step(action), env.step(action))
    np.testing.assert_equal(other.reset(), env.reset())
    other.close()
    env.close()


@pytest.mark.parametrize("env_id", SMALL)
@pytest.mark.parametrize("n_steps", [None, 0, 3], ids=["not reset", "reset", "stepped"])
@DUPLICATE
def test_copies_go_on_alike_and_apart(env_id: str, n_steps: int | None, duplicate: Callable[[Any], Any]) -> None:
    env = SMALL[env_id](horizon=10, render_mode="rgb_array")
    env.action_space.seed(0)
    if n_steps is not None:
        env.reset(seed=0)
        env.set_task(env.sample_tasks(1)[0])
        for _ in range(n_steps):
            env.step(env.action_space.sample())
    other = duplicate(env)
    np.testing.assert_array_equal(other.render(), env.render())
    assert other.get_task() == env.get_task()
    if n_steps is None:
        other.reset(seed=0), env.reset(seed=0)
    for _ in range(5):
        action = env.action_space.sample()
        np.testing.assert_equal(other.step(action), env.step(action))
    assert other.sample_tasks(3) == env.sample_tasks(3)
    other.reset()
    env.step(action)  # still in its own episode
    with pytest.raises(gym.error.ResetNeeded):
        for _ in range(10):
            env.step(action)
    other.step(action)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_monitor_in_a_vec_env_sees_whole_trials(env_id: str) -> None:
    horizon, n_episodes = 4, 3
    kwargs = {"horizon": horizon, "episodes_per_trial": n_episodes}
    venv = make_vec_env(env_id, n_envs=2, seed=0, env_kwargs=kwargs)
    keys = [k for k in ("observation", "prev_reward") if env_id != "TabularMDP-v0" or k == "prev_reward"]
    venv = VecNormalize(venv, norm_obs_keys=keys)
    assert all(spec.max_episode_steps is None for spec in venv.get_attr("spec"))
    venv.reset()
    for step in range(1, 2 * n_episodes * horizon + 1):
        actions = np.array([venv.action_space.sample() * 0 for _ in range(2)])
        observations, _, dones, infos = venv.step(actions)
        trial_over = step % (n_episodes * horizon) == 0
        assert dones.tolist() == [trial_over] * 2
        boundary = step % horizon == 0 and not trial_over
        assert (observations["prev_done"] == float(boundary)).all()
        for info in infos:
            if trial_over:
                assert info["episode"]["l"] == n_episodes * horizon
                assert info["episode"]["r"] == pytest.approx(sum(info["episode_returns"]), abs=1e-4)
                assert info["terminal_observation"]["prev_done"][0] == (0.0 if env_id in TRUNCATED else 1.0)
                assert info["TimeLimit.truncated"] == (env_id in TRUNCATED)
            else:
                assert "episode" not in info
    venv.close()


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [("BernoulliBandit-v0", {}), ("GridNavi-v0", {"horizon": 5, "reveal_task": True})]
)
def test_subprocesses_find_the_environment_by_its_module_and_play_the_same_trials(
    env_id: str, kwargs: dict[str, Any]
) -> None:
    runs = []
    for vec_env_cls in (SubprocVecEnv, None):
        venv = make_vec_env(
            f"sb3_trmrl:{env_id}", 2, seed=3, vec_env_cls=vec_env_cls, env_kwargs={"episodes_per_trial": 2, **kwargs}
        )
        venv.action_space.seed(0)
        runs.append([venv.reset(), [info["task"] for info in venv.reset_infos]])
        for _ in range(25):
            observations, rewards, dones, infos = venv.step(np.array([venv.action_space.sample() for _ in range(2)]))
            returns = [info.get("episode_returns") for info in infos]
            runs[-1].append((observations, rewards.astype(np.float32), dones, returns))
        venv.close()
    np.testing.assert_equal(runs[0], runs[1])


def test_importing_the_environments_needs_neither_torch_nor_mujoco() -> None:
    code = (
        "assert not {'torch', 'mujoco', 'stable_baselines3'} & set(sys.modules)\n"
        "gym.make('BernoulliBandit-v0').reset(); gym.make('HalfCheetahVel-v0').reset()\n"
        "assert not {'torch', 'stable_baselines3'} & set(sys.modules)\n"
    )
    finish(start_without_the_agent(code))


@pytest.mark.parametrize("env_id", SMALL)
def test_small_problems_print_and_draw(env_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    env = gym.make(env_id, render_mode="human")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("new episode") and ("pays" in last or last.startswith("reward"))
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    env.action_space.seed(0)
    frames = [env.render()]
    for _ in range(6):
        env.step(env.action_space.sample())
        frames.append(env.render())
    assert frames[0].dtype == np.uint8 and frames[0].ndim == 3 and frames[0].shape[2] == 3
    assert any((a != b).any() for a, b in pairwise(frames))
    assert FAMILIES[env_id]().render() is None
