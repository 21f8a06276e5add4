"""Optimal returns of ``GridNavi-v0`` and ``DarkKeyToDoor-v0`` for a known task, and task-conditioned oracles."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from sb3_trmrl.envs.grid import MOVES, Cell, DarkKeyToDoorEnv, GridNaviEnv
from sb3_trmrl.references.scripted import ScriptedAgent, check_tasks


def grid_navi_optimum(goals: Iterable[Cell] | None = None, size: int = 5, horizon: int = 15) -> float:
    """
    Return the highest possible return of an episode with a known goal, averaged over goals.

    :param goals: Goals, for example those of an evaluation; None: all goals
    :param size: Cells along each side
    :param horizon: Steps of an episode
    :return: Optimal mean return
    :raises TypeError: if a goal is not a cell
    :raises ValueError: if a goal or an argument is out of range, or there are no goals
    """
    env = GridNaviEnv(size, horizon)
    returns = []
    for goal in check_tasks("goals", env.goals if goals is None else goals, env):
        at_goal = max(horizon - sum(goal) + 1, 0)  # the step of the arrival counts
        returns.append(1.0 * at_goal - 0.1 * (horizon - at_goal))
    return float(np.mean(returns))


def dark_key_to_door_optimum(
    tasks: Iterable[tuple[Cell, Cell]] | None = None, size: int = 9, horizon: int = 50
) -> float:
    """
    Return the highest possible return of an episode with known key and door, averaged over tasks.

    :param tasks: Pairs of key and door, for example those of an evaluation; None: all tasks
    :param size: Cells along each side
    :param horizon: Steps of an episode
    :return: Optimal mean return, 2 if there is enough time
    :raises TypeError: if a task is not a pair of cells
    :raises ValueError: if a cell or an argument is out of range, or there are no tasks
    """
    env = DarkKeyToDoorEnv(size, horizon)
    cells = list(product(range(size), repeat=2))
    returns = []
    for key, door in check_tasks("tasks", product(cells, cells) if tasks is None else tasks, env):
        # An agent that is in the right cell already has to stay there for a step
        to_key, to_door = max(_distance(env.start, key), 1), max(_distance(key, door), 1)
        returns.append(float(to_key <= horizon) + float(to_key + to_door <= horizon))
    return float(np.mean(returns))


def _distance(one: Cell, other: Cell) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


class GridNaviOracle(ScriptedAgent):
    """Walks to the goal, which it reads from the observation (``reveal_task=True``), and stays there."""

    keys = ("observation", "task")

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        (goal,) = _cells(rows["task"], 1)
        (cell,) = _cells(rows["observation"], 1)
        return _step_towards(cell, goal)


class DarkKeyToDoorOracle(ScriptedAgent):
    """
    Walks to the key and then to the door, which it reads from the observation (``reveal_task=True``).

    Its state is whether an episode has begun, and whether its key has been found, (E, 2).
    """

    keys = ("observation", "task", "prev_done")

    def _empty_memory(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros((len(rows["task"]), 2), dtype=bool)

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        key, door = _cells(rows["task"], 2)
        (cell,) = _cells(rows["observation"], 1)
        # The key cannot be found before the first step of an episode
        memory[rows["prev_done"][:, 0] == 1] = False
        memory[:, 1] |= memory[:, 0] & (cell == key).all(axis=1)
        memory[:, 0] = True
        return _step_towards(cell, np.where(memory[:, 1:], door, key))


def _cells(one_hot: np.ndarray, n: int) -> np.ndarray:
    """Return n cells, (n, E, 2), from their one-hot coordinates, (E, n * 2 * size)."""
    cells: np.ndarray = one_hot.reshape(len(one_hot), n, 2, -1).argmax(axis=-1).swapaxes(0, 1)
    return cells


def _step_towards(cell: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return actions, (E,), from cells to targets, (E, 2) each: first along x, then along y, then stay."""
    dx, dy = np.sign(target - cell).T
    moves = np.stack([dx, np.where(dx == 0, dy, 0)], axis=1)
    actions: np.ndarray = (moves[:, None] == np.array(MOVES)).all(axis=-1).argmax(axis=1)
    return actions
