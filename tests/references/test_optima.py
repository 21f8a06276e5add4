"""Optima with a known task against planning by brute force, and the oracles that reach them."""

from functools import cache
from itertools import product
from math import cos, hypot, pi, sin
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import sb3_trmrl.references as references
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation

STEPS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


def plan(start: Any, moves: Any, reward: Any, horizon: int) -> Any:
    """Best sum of rewards by dynamic programming over all action sequences; ``reward(state) -> (reward, state)``."""

    @cache
    def value(state: Any, left: int) -> Any:
        if left == 0:
            return 0.0
        options = []
        for move in moves:
            gained, following = reward(state, move)
            options.append(gained + value(following, left - 1))
        return max(options)

    return value(start, horizon)


def walk(cell: tuple[int, int], move: Any, size: int) -> Any:
    return tuple(min(max(c + m, 0), size - 1) for c, m in zip(cell, move, strict=True))


def best_return_of_grid_navi(goal: Any, size: int, horizon: int) -> Any:
    def reward(cell: tuple[int, int], move: Any) -> Any:
        cell = walk(cell, move, size)
        return (1.0 if cell == goal else -0.1), cell

    return plan((0, 0), STEPS, reward, horizon)


def best_return_of_key_to_door(key: Any, door: Any, size: int, horizon: int) -> Any:
    def reward(state: Any, move: Any) -> Any:
        cell, found = walk(state[0], move, size), state[1]
        gained = (found == 0 and cell == key) or (found == 1 and cell == door)
        return float(gained), (cell, found + gained)

    return plan(((size // 2, size // 2), 0), STEPS, reward, horizon)


@pytest.mark.parametrize("size, horizon", [(5, 15), (5, 4), (3, 2), (6, 20)])
def test_the_optimum_of_grid_navi(size: int, horizon: int) -> None:
    goals = [(x, y) for x in range(size) for y in range(size) if (x, y) not in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    expected = {goal: best_return_of_grid_navi(goal, size, horizon) for goal in goals}
    for goal in goals:
        assert references.grid_navi_optimum([goal], size, horizon) == pytest.approx(expected[goal])
    assert references.grid_navi_optimum(size=size, horizon=horizon) == pytest.approx(np.mean(list(expected.values())))


def test_the_grid_navi_oracle_reaches_the_optimum_in_every_episode() -> None:
    result = evaluate_adaptation(
        references.GridNaviOracle(),
        "GridNavi-v0",
        n_eval_tasks=21,
        n_eval_episodes=3,
        env_kwargs={"reveal_task": True},
    )
    assert len(set(result.tasks)) == 21
    for goal, returns in zip(result.tasks, result.returns, strict=True):
        assert returns == pytest.approx(best_return_of_grid_navi(goal, 5, 15))
    assert result.mean_returns == pytest.approx(references.grid_navi_optimum())
    assert result.mean_returns == pytest.approx(references.grid_navi_optimum(result.tasks))


@pytest.mark.parametrize("horizon", [1, 2, 3, 4, 7])
def test_the_optimum_of_dark_key_to_door(horizon: int) -> None:
    cells = list(product(range(3), repeat=2))
    expected = []
    for key, door in product(cells, cells):
        expected.append(best_return_of_key_to_door(key, door, 3, horizon))
        assert references.dark_key_to_door_optimum([(key, door)], 3, horizon) == expected[-1]
    assert references.dark_key_to_door_optimum(size=3, horizon=horizon) == pytest.approx(np.mean(expected))


def play_trial(agent: Any, env: Any, task: Any) -> Any:
    """Returns of the inner episodes of one trial, one environment at a time."""
    observation, _ = env.reset(seed=0, options={"task": task})
    state, start, over = None, np.array([True]), False
    while not over:
        action, state = agent.predict(observation, state, start)
        observation, _, terminated, truncated, info = env.step(action)
        start, over = np.array([False]), terminated or truncated
    return info["episode_returns"]


@pytest.mark.parametrize("size, horizon", [(3, 4), (3, 6), (5, 11)])
def test_the_dark_key_to_door_oracle_reaches_the_optimum(size: int, horizon: int) -> None:
    env = gym.make("DarkKeyToDoor-v0", size=size, horizon=horizon, episodes_per_trial=2, reveal_task=True)
    cells = list(product(range(size), repeat=2))
    # Key or door may be at the start, and both in one place.
    keys = cells if size == 3 else [(0, 0), (2, 2), (4, 1)]
    for key, door in product(keys, cells):
        optimum = references.dark_key_to_door_optimum([(key, door)], size, horizon)
        assert play_trial(references.DarkKeyToDoorOracle(), env, (key, door)) == (optimum, optimum)


def test_fifty_steps_are_enough_for_every_key_and_door() -> None:
    assert references.dark_key_to_door_optimum() == 2.0
    result = evaluate_adaptation(
        references.DarkKeyToDoorOracle(), "DarkKeyToDoor-v0", 40, 3, env_kwargs={"reveal_task": True}
    )
    assert (result.returns == 2.0).all()


def best_return_of_the_point_robot(angle: float, radius: float, horizon: int) -> Any:
    """After t steps every point of the square with half-side t / 10 can have been reached, and no other."""
    total, goal = 0.0, (cos(angle), sin(angle))
    for t in range(1, horizon + 1):
        nearest = [min(max(c, -t / 10), t / 10) for c in goal]
        distance = hypot(goal[0] - nearest[0], goal[1] - nearest[1])
        total += 1 - distance if distance <= radius else 0.0
    return total


def test_the_optimum_of_the_point_robot() -> None:
    angles = np.random.default_rng(0).uniform(0, pi, size=50)
    for radius, horizon in [(0.2, 20), (0.5, 12), (1.0, 3)]:
        expected = [best_return_of_the_point_robot(angle, radius, horizon) for angle in angles]
        for angle, best_return in zip(angles, expected, strict=True):
            found = references.sparse_point_robot_optimum([angle], radius, horizon)
            assert found == pytest.approx(best_return, abs=1e-9)
        assert references.sparse_point_robot_optimum(angles, radius, horizon) == pytest.approx(np.mean(expected))
    grid = [best_return_of_the_point_robot(angle, 0.2, 20) for angle in np.linspace(0, pi, 20_001)]
    assert references.sparse_point_robot_optimum() == pytest.approx(np.mean(grid), abs=0.002)


def test_no_other_way_of_the_point_robot_yields_more() -> None:
    env = gym.make("SparsePointRobot-v0", episodes_per_trial=1)
    rng = np.random.default_rng(0)
    for angle in (0.3, 1.2, 2.8):
        optimum = references.sparse_point_robot_optimum([angle])
        goal = np.array([cos(angle), sin(angle)])
        returns = []
        for noise in np.linspace(0, 1, 40):
            position, total = np.zeros(2), 0.0
            env.reset(seed=0, options={"task": angle})
            for _ in range(20):
                action = (10 * (goal - position) + noise * rng.normal(size=2)).clip(-1, 1).astype(np.float32)
                observation, reward, *_ = env.step(action)
                position, total = observation["observation"], total + reward
            returns.append(total)
        assert max(returns) == pytest.approx(optimum, abs=1e-5) and min(returns) < optimum - 1


def test_the_point_robot_oracle_reaches_the_optimum_in_every_episode() -> None:
    result = evaluate_adaptation(
        references.SparsePointRobotOracle(), "SparsePointRobot-v0", 30, 3, env_kwargs={"reveal_task": True}
    )
    for angle, returns in zip(result.tasks, result.returns, strict=True):
        assert returns == pytest.approx(references.sparse_point_robot_optimum([angle]), abs=1e-5)
    assert result.mean_returns == pytest.approx(references.sparse_point_robot_optimum(result.tasks), abs=1e-5)
    # Straight up, where the goal is first felt exactly at its radius
    env = gym.make("SparsePointRobot-v0", episodes_per_trial=2, reveal_task=True)
    for angle in (0.0, pi / 2, pi):
        returns = play_trial(references.SparsePointRobotOracle(), env, angle)
        assert returns == pytest.approx((references.sparse_point_robot_optimum([angle]),) * 2, abs=1e-5)
