"""The sparse point robot: dynamics, rewards, held-out tasks and pictures; what it shares with the grids."""

from math import cos, hypot, pi, sin
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl.envs.grid import DarkKeyToDoorEnv, GridNaviEnv
from sb3_trmrl.envs.pictures import BLUE, ORANGE
from sb3_trmrl.envs.sparse_point_robot import SparsePointRobotEnv
from sb3_trmrl.envs.tasks import stratified


@pytest.mark.parametrize("radius, horizon", [(0.2, 20), (0.6, 31)])
def test_the_sparse_point_robot_is_pearls(radius: float, horizon: int) -> None:
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


def test_the_point_robot_moves_by_a_tenth_at_most() -> None:
    env = SparsePointRobotEnv()
    env.reset(seed=0)
    np.testing.assert_allclose(env.step([3.0, -0.5])[0], [0.1, -0.05], rtol=1e-6)
    np.testing.assert_allclose(env.step([-0.25, -7.0])[0], [0.075, -0.15], rtol=1e-6)


def test_held_out_goals_of_the_point_robot_are_spread_over_the_range() -> None:
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
def test_stratified_draws_one_number_from_each_part_in_any_order(n: int) -> None:
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


def test_the_point_robot_draws_point_and_goal() -> None:
    env = gym.make("SparsePointRobot-v0", render_mode="rgb_array")

    def place(colour: Any) -> Any:
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


def test_numpy_tasks_become_plain_ones() -> None:
    for env, task, plain in [
        (GridNaviEnv(), np.array([3, 4]), (3, 4)),
        (DarkKeyToDoorEnv(), np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        (SparsePointRobotEnv(), np.float32(0.5), 0.5),
    ]:
        env.set_task(task)
        assert env.get_task() == plain and repr(env.get_task()) == repr(plain)


@pytest.mark.parametrize("env_id", ["GridNavi-v0", "DarkKeyToDoor-v0", "SparsePointRobot-v0"])
def test_the_task_cannot_be_seen_before_it_is_felt(env_id: str) -> None:
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
