"""What ``GridNavi-v0`` and ``DarkKeyToDoor-v0`` can yield to an agent that knows where to go, and such agents."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from sb3_trmrl.envs.grid import MOVES, Cell, DarkKeyToDoorEnv, GridNaviEnv
from sb3_trmrl.references.scripted import ScriptedAgent, each_task


def grid_navi_optimum(goals: Iterable[Cell] | None = None, size: int = 5, horizon: int = 15) -> float:
    """
    :param goals: Goals, for example those of an evaluation; None: all
    :param size: Cells along each side
    :param horizon: Steps of an episode
    :return: Most that an episode can yield with the goal known, mean over the goals
    :raises TypeError: if a goal is no cell
    :raises ValueError: if a goal or an argument is out of range, or there are no goals
    """
    env = GridNaviEnv(size, horizon)
    returns = []
    for goal in each_task(env, "goals", env.goals if goals is None else goals):
        at_goal = max(horizon - sum(goal) + 1, 0)  # arriving counts
        returns.append(1.0 * at_goal - 0.1 * (horizon - at_goal))
    return _mean("goals", returns)


def dark_key_to_door_optimum(
    tasks: Iterable[tuple[Cell, Cell]] | None = None, size: int = 9, horizon: int = 50
) -> float:
    """
    :param tasks: Pairs of key and door, for example those of an evaluation; None: all
    :param size: Cells along each side
    :param horizon: Steps of an episode
    :return: Most that an episode can yield with key and door known, mean over the tasks: 2 if there is time enough
    :raises TypeError: if a task is no pair of cells
    :raises ValueError: if a cell or an argument is out of range, or there are no tasks
    """
    env = DarkKeyToDoorEnv(size, horizon)
    cells = list(product(range(size), repeat=2))
    returns = []
    for key, door in each_task(env, "tasks", product(cells, cells) if tasks is None else tasks):
        # Whoever is there already has to stay for a step
        to_key, to_door = max(_distance(env.start, key), 1), max(_distance(key, door), 1)
        returns.append(float(to_key <= horizon) + float(to_key + to_door <= horizon))
    return _mean("tasks", returns)


def _mean(name: str, returns: list[float]) -> float:
    if not returns:
        raise ValueError(f"`{name}` must hold at least one, got none")
    return float(np.mean(returns))


def _distance(one: Cell, other: Cell) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


class GridNaviOracle(ScriptedAgent):
    """Walks to the goal, which ``reveal_task=True`` tells, and stays."""

    keys = ("observation", "task")

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        (goal,) = _cells(rows["task"], 1)
        (cell,) = _cells(rows["observation"], 1)
        return _step_towards(cell, goal)


class DarkKeyToDoorOracle(ScriptedAgent):
    """
    Walks to the key and then to the door, which ``reveal_task=True`` tells.

    Its state is whether an episode goes on, and whether its key is found, (E, 2).
    """

    keys = ("observation", "task", "prev_done")

    def _empty_memory(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((len(rows["task"]), 2), dtype=bool)

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        key, door = _cells(rows["task"], 2)
        (cell,) = _cells(rows["observation"], 1)
        # In an episode's first observation nothing can have been found
        memory[rows["prev_done"][:, 0] == 1] = False
        memory[:, 1] |= memory[:, 0] & (cell == key).all(axis=1)
        memory[:, 0] = True
        return _step_towards(cell, np.where(memory[:, 1:], door, key))


def _cells(one_hot: np.ndarray, n: int) -> np.ndarray:
    """
    :param one_hot: One-hot coordinates of n cells, (E, n * 2 * size)
    :param n: Number of cells
    :return: Each cell, (n, E, 2)
    """
    cells: np.ndarray = one_hot.reshape(len(one_hot), n, 2, -1).argmax(axis=-1).swapaxes(0, 1)
    return cells


def _step_towards(cell: np.ndarray, target: np.ndarray) -> np.ndarray:
    """
    :param cell: Where the agents are, (E, 2)
    :param target: Where they want to be, (E, 2)
    :return: Actions, (E,): first along x, then along y, then stay
    """
    dx, dy = np.sign(target - cell).T
    moves = np.stack([dx, np.where(dx == 0, dy, 0)], axis=1)
    actions: np.ndarray = (moves[:, None] == np.array(MOVES)).all(axis=-1).argmax(axis=1)
    return actions
