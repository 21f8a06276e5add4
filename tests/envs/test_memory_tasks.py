"""GridNavi, Dark Key-to-Door and the sparse point robot; held-out tasks and `reveal_task` of every family."""

import copy
import pickle
import time
import warnings
from collections import Counter
from math import cos, hypot, pi, sin

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_trmrl.envs.grid import DarkKeyToDoorEnv, GridNaviEnv
from sb3_trmrl.envs.sparse_point_robot import SparsePointRobotEnv
from sb3_trmrl.envs.tasks import stratified

MEMORY = {"GridNavi-v0": GridNaviEnv, "DarkKeyToDoor-v0": DarkKeyToDoorEnv, "SparsePointRobot-v0": SparsePointRobotEnv}
HORIZON = {"GridNavi-v0": 15, "DarkKeyToDoor-v0": 50, "SparsePointRobot-v0": 20}
OTHERS = ["HalfCheetahVel-v0", "HalfCheetahDir-v0", "AntDir-v0", "BernoulliBandit-v0", "TabularMDP-v0"]
FAMILIES = [*MEMORY, *OTHERS]
NOT_HELD_OUT = {"GridNavi-v0", "HalfCheetahDir-v0", "AntDir-v0"}

ORANGE, BLUE, YELLOW, GREY = (213, 94, 0), (0, 114, 178), (240, 228, 66), (190, 190, 190)


def tasks_of(env, n_trials, seed=None):
    return [env.reset(seed=seed if i == 0 else None)[1]["task"] for i in range(n_trials)]


def cell_of(observation):
    """One-hot column and row."""
    one_hot = observation["observation"].reshape(2, -1)
    assert ((one_hot == 0) | (one_hot == 1)).all() and (one_hot.sum(axis=1) == 1).all()
    return tuple(one_hot.argmax(axis=1).tolist())


def in_grid(cell, action, size):
    """Stay, up, right, down, left; walls hold."""
    dx, dy = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)][action]
    return min(max(cell[0] + dx, 0), size - 1), min(max(cell[1] + dy, 0), size - 1)


# --- dynamics and rewards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, horizon", [(5, 15), (3, 4), (8, 30)])
def test_grid_navi_is_varibads(size, horizon):
    env = gym.make("GridNavi-v0", size=size, horizon=horizon, episodes_per_trial=3)
    rng = np.random.default_rng(0)
    for trial in range(30):
        observation, info = env.reset(seed=0 if trial == 0 else None)
        goal, ended, n_steps = info["task"], False, 0
        cell = (0, 0)
        assert cell_of(observation) == (0, 0)
        while not ended:
            # Mostly up and right: to walls, corners and goals
            action = int(rng.choice(5, p=[0.1, 0.3, 0.3, 0.15, 0.15]))
            observation, reward, terminated, truncated, info = env.step(action)
            n_steps += 1
            cell = in_grid(cell, action, size)
            assert reward == (1.0 if cell == goal else -0.1)
            if n_steps % horizon == 0:
                assert info["new_episode"] == (n_steps < 3 * horizon)
            if info["new_episode"]:
                cell = (0, 0)
            assert cell_of(observation) == cell
            assert (terminated, truncated) == (n_steps == 3 * horizon, False)
            ended = terminated
        assert info["episode_lengths"] == (horizon,) * 3


def test_goals_of_grid_navi_are_everywhere_but_around_the_start():
    drawn = Counter(GridNaviEnv().draw_tasks(21_000, np.random.default_rng(0)))
    assert set(drawn) == {(x, y) for x in range(5) for y in range(5)} - {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(abs(n - 1000) < 4.5 * np.sqrt(1000 * 20 / 21) for n in drawn.values())


@pytest.mark.parametrize("size, horizon", [(9, 50), (3, 12), (4, 25)])
def test_dark_key_to_door_is_algorithm_distillations(size, horizon):
    env = gym.make("DarkKeyToDoor-v0", size=size, horizon=horizon, episodes_per_trial=3)
    rng = np.random.default_rng(0)
    cells = [(x, y) for x in range(size) for y in range(size)]
    middle, returns = (size // 2, size // 2), Counter()
    for trial in range(60):
        # Near the middle, or they would hardly ever be found; some coincide
        key, door = (cells[i] for i in rng.integers(len(cells), size=2))
        if trial % 3:
            key = (middle[0] + trial % 2, middle[1])
        if trial % 7 == 0:
            door = key
        observation, _ = env.reset(seed=trial, options={"task": (key, door)})
        cell, found, ended, n_steps = middle, 0, False, 0
        assert cell_of(observation) == middle
        while not ended:
            action = int(rng.integers(5))
            observation, reward, terminated, truncated, info = env.step(action)
            n_steps += 1
            cell = in_grid(cell, action, size)
            expected = 0.0
            if found < 2 and cell == (key, door)[found]:
                found, expected = found + 1, 1.0
            assert reward == expected
            if n_steps % horizon == 0:
                returns[found] += 1
                cell, found = middle, 0
            if n_steps < 3 * horizon:
                assert cell_of(observation) == cell
            assert (terminated, truncated) == (n_steps == 3 * horizon, False)
            ended = terminated
        assert max(info["episode_returns"]) <= 2.0
    assert min(returns[i] for i in range(3)) >= 5


def test_a_key_and_door_are_felt_once_and_the_door_only_with_the_key():
    env = gym.make("DarkKeyToDoor-v0", episodes_per_trial=1)
    key, door = (5, 4), (6, 4)

    def rewards(*actions):
        env.reset(seed=0, options={"task": (key, door)})
        return [env.step(action)[1] for action in actions]

    right, left, stay = 2, 4, 0
    assert rewards(right, stay, right, stay, left, right, right) == [1, 0, 1, 0, 0, 0, 0]
    key, door = (6, 4), (5, 4)
    assert rewards(right, right, left, right, left) == [0, 1, 1, 0, 0]
    key = door = (4, 4)
    assert rewards(stay, stay, stay) == [1, 1, 0]
    assert rewards(right, left, right, left) == [0, 1, 0, 1]


@pytest.mark.parametrize("radius, horizon", [(0.2, 20), (0.6, 31)])
def test_the_sparse_point_robot_is_pearls(radius, horizon):
    env = gym.make("SparsePointRobot-v0", goal_radius=radius, horizon=horizon, episodes_per_trial=2)
    rng = np.random.default_rng(0)
    n_rewarded = 0
    for trial in range(30):
        observation, info = env.reset(seed=0 if trial == 0 else None)
        goal, ended, n_steps = np.array([cos(info["task"]), sin(info["task"])]), False, 0
        point = np.zeros(2)
        assert goal[1] >= 0
        while not ended:
            # Roughly to the goal
            action = (3 * (goal - point) + rng.normal(size=2)).clip(-1, 1).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            n_steps += 1
            point = point + action.astype(np.float64) / 10
            distance = hypot(*(point - goal))
            assert reward == pytest.approx(1 - distance if distance <= radius else 0.0)
            n_rewarded += reward > 0
            if n_steps % horizon == 0 and n_steps < 2 * horizon:
                point = np.zeros(2)
            np.testing.assert_allclose(observation["observation"], point, atol=1e-6)
            assert (terminated, truncated) == (False, n_steps == 2 * horizon)
            ended = truncated
        assert info["episode_lengths"] == (horizon,) * 2
    assert n_rewarded > 100


def test_the_point_robot_moves_by_a_tenth_at_most():
    env = SparsePointRobotEnv()
    env.reset(seed=0)
    np.testing.assert_allclose(env.step([3.0, -0.5])[0], [0.1, -0.05], rtol=1e-6)
    np.testing.assert_allclose(env.step([-0.25, -7.0])[0], [0.075, -0.15], rtol=1e-6)


@pytest.mark.parametrize("env_id", MEMORY)
def test_default_trials(env_id):
    env = gym.make(env_id)
    env.reset(seed=0)
    for step in range(1, 4 * HORIZON[env_id] + 1):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated or truncated) == (step == 4 * HORIZON[env_id])
    assert info["episode_lengths"] == (HORIZON[env_id],) * 4
    # A grid's problem is the sum of rewards until the end, and the robot's is cut off (as PEARL's)
    assert truncated == (env_id == "SparsePointRobot-v0")


@pytest.mark.parametrize("env_id", MEMORY)
def test_same_seed_same_run_and_different_seeds_differ(env_id):
    def run(seed):
        env.action_space.seed(0)
        log = [env.reset(seed=seed)]
        for _ in range(3 * 4 * HORIZON[env_id]):
            log.append(env.step(env.action_space.sample()))
            if log[-1][2] or log[-1][3]:
                log.append(env.reset())
        return pickle.dumps(log)

    env = gym.make(env_id)
    assert run(3) == run(3) != run(4)


@pytest.mark.parametrize("env_id", MEMORY)
def test_the_task_cannot_be_seen_before_it_is_felt(env_id):
    # The same actions give the same observations under two tasks until the first reward of either.
    tasks = {"GridNavi-v0": [(4, 4), (0, 4)], "DarkKeyToDoor-v0": [((8, 8), (0, 0)), ((0, 0), (8, 8))]}
    tasks["SparsePointRobot-v0"] = [0.1, 3.0]
    env = gym.make(env_id)
    runs = []
    for task in tasks[env_id]:
        env.action_space.seed(1)
        seen, _ = env.reset(seed=0, options={"task": task})
        runs.append([seen])
        for _ in range(3):
            runs[-1].append(env.step(env.action_space.sample())[0])
    np.testing.assert_equal(runs[0], runs[1])


@pytest.mark.parametrize("env_id", MEMORY)
def test_thousands_of_steps_per_second(env_id):
    env = gym.make(env_id, disable_env_checker=True)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(4 * HORIZON[env_id])]
    start, n_steps = time.perf_counter(), 0
    while n_steps < 5_000:
        for action in actions:
            env.step(action)
        env.reset()
        n_steps += len(actions)
    print(f"\n{env_id}: {n_steps / (time.perf_counter() - start):,.0f} steps/s")


# --- tasks given as arrays ----------------------------------------------------------------------------------------


def test_numpy_tasks_become_plain_ones():
    for env, task, plain in [
        (GridNaviEnv(), np.array([3, 4]), (3, 4)),
        (DarkKeyToDoorEnv(), np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        (SparsePointRobotEnv(), np.float32(0.5), 0.5),
    ]:
        env.set_task(task)
        assert env.get_task() == plain and repr(env.get_task()) == repr(plain)


# --- held-out tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", FAMILIES)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_tasks_come_in_any_number_and_are_always_the_same(env_id, split):
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


def test_dark_key_to_door_trains_on_none_of_the_tasks_it_holds_out():
    env = gym.make("DarkKeyToDoor-v0")
    trained = {*env.unwrapped.draw_tasks(20_000, np.random.default_rng(0)), *tasks_of(env, 2_000, seed=1)}
    validation, test = (set(env.unwrapped.held_out_tasks(split, 500)) for split in ("validation", "test"))
    assert len(validation) == len(test) == 500
    assert not (validation & test or validation & trained or test & trained)
    # Everything else is drawn: of 5,561 tasks, 22,000 draws miss exp(-3.96), 2 %
    assert 0.97 * 5_561 < len(trained) <= 5_561
    # Held-out tasks are spread over the room
    for tasks in (validation, test):
        numbers = np.array([[*key, *door] for key, door in tasks])
        assert np.abs(numbers.mean(axis=0) - 4.0).max() < 4 * np.sqrt(80 / 12 / 500)
    with pytest.raises(ValueError, match=r"at most 500.*test.*got 501"):
        env.unwrapped.held_out_tasks("test", 501)
    small = DarkKeyToDoorEnv(size=3)
    trained = set(small.draw_tasks(5_000, np.random.default_rng(0)))
    held_out = {*small.held_out_tasks("validation", 8), *small.held_out_tasks("test", 8)}
    assert len(held_out) == 16 and not held_out & trained and len(held_out | trained) == 81


def test_grid_navi_visits_every_goal_in_an_order_of_its_own():
    env = GridNaviEnv()
    orders = [env.held_out_tasks(split, 21) for split in ("validation", "test")]
    assert orders[0] != orders[1] and set(orders[0]) == set(orders[1]) == set(env.goals)
    assert set(Counter(env.held_out_tasks("test", 42)).values()) == {2}
    assert len(set(env.held_out_tasks("test"))) == 20


def test_held_out_goals_of_the_point_robot_are_spread_over_the_range():
    for angle_range in [(0.0, pi), (-1.0, 0.5)]:
        env = SparsePointRobotEnv(angle_range)
        low, high = angle_range
        tasks = {split: env.held_out_tasks(split) for split in ("validation", "test")}
        assert not set(tasks["validation"]) & set(tasks["test"])
        for angles in tasks.values():
            places = (np.array(angles) - low) / (high - low) * 20
            assert sorted(places.astype(int)) == list(range(20))
            assert angles != sorted(angles)
        drawn = np.array(env.draw_tasks(4_000, np.random.default_rng(0)))
        assert low <= drawn.min() and drawn.max() <= high
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / np.sqrt(12 * 4_000))


@pytest.mark.parametrize("n", [1, 7, 500])
def test_stratified_draws_one_number_from_each_part_in_any_order(n):
    numbers = stratified(-2.0, 3.0, n, np.random.default_rng(0))
    assert all(type(number) is float for number in numbers)
    parts = np.floor((np.array(numbers) + 2.0) / 5.0 * n).astype(int)
    assert sorted(parts) == list(range(n))
    if n > 1:
        assert numbers != sorted(numbers)
        assert numbers != stratified(-2.0, 3.0, n, np.random.default_rng(1))
    # Within its part each number is uniform
    within = (np.array(numbers) + 2.0) / 5.0 * n - parts
    assert within.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * n))
    assert stratified(1.0, 1.0, n, np.random.default_rng(0)) == [1.0] * n


# --- the task in the observation ----------------------------------------------------------------------------------


def features(env_id, task):
    """A task as numbers, written down here once more."""
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
def test_reveal_task_shows_the_present_task(env_id, previous_transition, monkeypatch, tmp_path):
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
def test_the_revealed_task_tells_held_out_tasks_apart(env_id):
    env = gym.make(env_id, reveal_task=True, split="test")
    tasks = env.unwrapped.held_out_tasks("test")
    shown = [env.reset()[0]["task"] for _ in tasks]
    for i, task in enumerate(tasks):
        for j in range(i):
            assert (task == tasks[j]) == np.array_equal(shown[i], shown[j])


@pytest.mark.parametrize("previous_transition", [True, False])
def test_a_revealed_task_follows_the_splits_of_a_vec_env(previous_transition):
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


def test_without_previous_transitions_the_observation_is_the_environments_own():
    for env_id, env_class in MEMORY.items():
        env = gym.make(env_id, previous_transition=False, horizon=3)
        assert env.observation_space == env_class().observation_space
        observation, _ = env.reset(seed=0)
        for _ in range(7):
            assert env.observation_space.contains(observation)
            observation, _, _, _, info = env.step(env.action_space.sample())
        assert info["episode_index"] == 2


# --- under Gymnasium and Stable-Baselines3 ------------------------------------------------------------------------

# What Gymnasium's own environments get too
UNAVOIDABLE = ("minimum value is -infinity", "maximum value is infinity", "is different from the unwrapped version")


@pytest.mark.parametrize(
    "env_id, kwargs",
    [
        *[(env_id, {}) for env_id in MEMORY],
        *[(env_id, {"reveal_task": True}) for env_id in FAMILIES],
        *[(env_id, {"reveal_task": True, "previous_transition": False}) for env_id in FAMILIES],
    ],
)
def test_both_env_checkers_pass_without_warnings(env_id, kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check_env(
            gym.make(env_id, disable_env_checker=True, **kwargs), skip_render_check=env_id not in MEMORY
        )
        sb3_check_env(gym.make(env_id, **kwargs))
    ours = [str(w.message) for w in caught if not any(words in str(w.message) for words in UNAVOIDABLE)]
    assert ours == []


@pytest.mark.parametrize("env_id", MEMORY)
def test_the_passive_checker_finds_nothing_in_a_whole_trial(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for word in UNAVOIDABLE:
            warnings.filterwarnings("ignore", message=f".*{word}")
        env = gym.make(env_id, disable_env_checker=False)
        env.reset(seed=0)
        for _ in range(4 * HORIZON[env_id]):
            env.step(env.action_space.sample())
        env.reset()


@pytest.mark.parametrize("env_id", MEMORY)
@pytest.mark.parametrize("n_steps", [None, 0, 3], ids=["not reset", "reset", "stepped"])
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_copies_go_on_alike_and_apart(env_id, n_steps, duplicate):
    env = MEMORY[env_id](horizon=10, render_mode="rgb_array")
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


@pytest.mark.parametrize("env_id", MEMORY)
@pytest.mark.parametrize("kwargs", [{}, {"reveal_task": True, "split": "test"}], ids=["plain", "oracle"])
def test_a_spec_makes_the_same_environment_again(env_id, kwargs):
    env = gym.make(env_id, **kwargs)
    again = gym.make(pickle.loads(pickle.dumps(env.spec)))
    assert again.spec == env.spec and again.observation_space == env.observation_space
    assert tasks_of(again, 3, seed=0) == tasks_of(env, 3, seed=0)


def test_subprocesses_play_the_same_trials():
    kwargs = {"n_envs": 2, "seed": 3, "env_kwargs": {"episodes_per_trial": 2, "horizon": 5, "reveal_task": True}}
    runs = []
    for vec_env_cls in (SubprocVecEnv, None):
        venv = make_vec_env("sb3_trmrl:GridNavi-v0", vec_env_cls=vec_env_cls, **kwargs)
        venv.action_space.seed(0)
        runs.append([venv.reset()])
        for _ in range(25):
            observations, rewards, dones, infos = venv.step(np.array([venv.action_space.sample() for _ in range(2)]))
            returns = [info.get("episode_returns") for info in infos]
            runs[-1].append((observations, rewards.astype(np.float32), dones, returns))
        venv.close()
    np.testing.assert_equal(runs[0], runs[1])


# --- rendering ----------------------------------------------------------------------------------------------------


def colour_at(frame, size, cell, margin):
    """Colour of a cell: of its middle, where the agent is drawn, or near its border; y points upwards."""
    side = frame.shape[0] // size
    offset = 4 if margin else side // 2
    return tuple(int(c) for c in frame[(size - 1 - cell[1]) * side + offset, cell[0] * side + offset])


def test_grid_navi_draws_agent_and_goal():
    env = gym.make("GridNavi-v0", render_mode="rgb_array")
    env.reset(seed=0, options={"task": (3, 0)})
    for x in range(4):
        frame = env.render()
        assert frame.dtype == np.uint8 and frame.shape[0] == frame.shape[1] and frame.shape[2] == 3
        for cell in [(i, j) for i in range(5) for j in range(5)]:
            assert (colour_at(frame, 5, cell, margin=False) == BLUE) == (cell == (x, 0))
            assert (colour_at(frame, 5, cell, margin=True) == ORANGE) == (cell == (3, 0))
        env.step(2)
    env.step(1)
    assert colour_at(env.render(), 5, (4, 1), margin=False) == BLUE
    assert gym.make("GridNavi-v0").unwrapped.render() is None


def test_dark_key_to_door_draws_what_is_still_to_be_found():
    env = gym.make("DarkKeyToDoor-v0", render_mode="rgb_array")
    env.reset(seed=0, options={"task": ((5, 4), (6, 4))})

    def colours():
        frame = env.render()
        return colour_at(frame, 9, (5, 4), margin=True), colour_at(frame, 9, (6, 4), margin=True)

    assert colours() == (YELLOW, ORANGE)
    assert colour_at(env.render(), 9, (4, 4), margin=False) == BLUE
    env.step(2)
    assert colours() == ((255, 255, 255), ORANGE)
    env.step(2)
    assert colours() == ((255, 255, 255), GREY)
    env.reset(options={"task": ((5, 4), (6, 4))})
    assert colours() == (YELLOW, ORANGE)


def test_the_point_robot_draws_point_and_goal():
    env = gym.make("SparsePointRobot-v0", render_mode="rgb_array")

    def place(colour):
        rows, columns = np.nonzero((env.render() == colour).all(axis=-1))
        return columns.mean(), -rows.mean()

    env.reset(seed=0, options={"task": 0.0})
    start, goal = place(BLUE), place(ORANGE)
    assert goal[0] > start[0] and abs(goal[1] - start[1]) < 10
    for _ in range(5):
        env.step(np.array([1.0, 0.0], dtype=np.float32))
    halfway = place(BLUE)
    assert start[0] < halfway[0] < goal[0] and halfway[1] == start[1]
    for _ in range(5):
        env.step(np.array([-1.0, 1.0], dtype=np.float32))
    assert place(BLUE)[0] == start[0] and place(BLUE)[1] > start[1]
    env.reset(options={"task": pi / 2})
    assert place(ORANGE)[1] > place(BLUE)[1]
    for _ in range(19):  # out of the picture
        env.step(np.array([1.0, -1.0], dtype=np.float32))
    assert env.render().shape == (480, 480, 3) and place(BLUE)[0] > start[0]


@pytest.mark.parametrize("env_id", MEMORY)
def test_they_print(env_id, capsys):
    env = gym.make(env_id, render_mode="human")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("new episode") and last.startswith("reward")
