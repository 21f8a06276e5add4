"""GridNavi and Dark Key-to-Door: dynamics, rewards, held-out tasks and pictures."""

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl.envs.grid import DarkKeyToDoorEnv, GridNaviEnv
from sb3_trmrl.envs.pictures import BLUE, GREY, ORANGE, YELLOW
from tests.helpers.registered import visited_tasks


def cell_of(observation: Any) -> Any:
    """One-hot column and row."""
    one_hot = observation["observation"].reshape(2, -1)
    assert ((one_hot == 0) | (one_hot == 1)).all() and (one_hot.sum(axis=1) == 1).all()
    return tuple(one_hot.argmax(axis=1).tolist())


def in_grid(cell: tuple[int, int], action: int, size: int) -> Any:
    """Stay, up, right, down, left; walls hold."""
    dx, dy = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)][action]
    return min(max(cell[0] + dx, 0), size - 1), min(max(cell[1] + dy, 0), size - 1)


@pytest.mark.parametrize("size, horizon", [(5, 15), (3, 4), (8, 30)])
def test_grid_navi_is_varibads(size: int, horizon: int) -> None:
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


def test_goals_of_grid_navi_are_everywhere_but_around_the_start() -> None:
    drawn = Counter(GridNaviEnv().draw_tasks(21_000, np.random.default_rng(0)))
    assert set(drawn) == {(x, y) for x in range(5) for y in range(5)} - {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert all(abs(n - 1000) < 4.5 * np.sqrt(1000 * 20 / 21) for n in drawn.values())


@pytest.mark.parametrize("size, horizon", [(9, 50), (3, 12), (4, 25)])
def test_dark_key_to_door_is_algorithm_distillations(size: int, horizon: int) -> None:
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


def test_a_key_and_door_are_felt_once_and_the_door_only_with_the_key() -> None:
    env = gym.make("DarkKeyToDoor-v0", episodes_per_trial=1)
    key, door = (5, 4), (6, 4)

    def rewards(*actions: int) -> list[float]:
        env.reset(seed=0, options={"task": (key, door)})
        return [env.step(action)[1] for action in actions]

    right, left, stay = 2, 4, 0
    assert rewards(right, stay, right, stay, left, right, right) == [1, 0, 1, 0, 0, 0, 0]
    key, door = (6, 4), (5, 4)
    assert rewards(right, right, left, right, left) == [0, 1, 1, 0, 0]
    key = door = (4, 4)
    assert rewards(stay, stay, stay) == [1, 1, 0]
    assert rewards(right, left, right, left) == [0, 1, 0, 1]


def test_dark_key_to_door_trains_on_none_of_the_tasks_it_holds_out() -> None:
    env = gym.make("DarkKeyToDoor-v0")
    trained = {*env.unwrapped.draw_tasks(20_000, np.random.default_rng(0)), *visited_tasks(env, 2_000, seed=1)}
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


def test_grid_navi_visits_every_goal_in_an_order_of_its_own() -> None:
    env = GridNaviEnv()
    orders = [env.held_out_tasks(split, 21) for split in ("validation", "test")]
    assert orders[0] != orders[1] and set(orders[0]) == set(orders[1]) == set(env.goals)
    assert set(Counter(env.held_out_tasks("test", 42)).values()) == {2}
    assert len(set(env.held_out_tasks("test"))) == 20


def colour_at(frame: np.ndarray, size: int, cell: tuple[int, int], margin: bool) -> Any:
    """Colour of a cell: of its middle, where the agent is drawn, or near its border; y points upwards."""
    side = frame.shape[0] // size
    offset = 4 if margin else side // 2
    return tuple(int(c) for c in frame[(size - 1 - cell[1]) * side + offset, cell[0] * side + offset])


def test_grid_navi_draws_agent_and_goal() -> None:
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


def test_dark_key_to_door_draws_what_is_still_to_be_found() -> None:
    env = gym.make("DarkKeyToDoor-v0", render_mode="rgb_array")
    env.reset(seed=0, options={"task": ((5, 4), (6, 4))})

    def colours() -> Any:
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
