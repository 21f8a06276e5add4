"""
Grids with hidden goals, where exploration in one episode pays off in the next: GridNavi (VariBAD, Zintgraf et al. 2020,
section 5.1) and Dark Key-to-Door (Algorithm Distillation, Laskin et al. 2022, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trmrl.common.checks import check_int, check_number, check_option, check_positive_int
from sb3_trmrl.envs.batch import Batch
from sb3_trmrl.envs.pictures import GREY, ORANGE, YELLOW, Colour, grid
from sb3_trmrl.envs.small_problem import SmallProblem
from sb3_trmrl.envs.tasks import held_out_rng, in_trials
from sb3_trmrl.trials.held_out import HELD_OUT_SPLITS, N_HELD_OUT_TASKS

Cell = tuple[int, int]
#: Stay, up, right, down, left
MOVES: tuple[Cell, ...] = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))


class _GridBatch(Batch):
    def __init__(self, envs: Sequence[_GridEnv]) -> None:
        super().__init__(envs)
        self._moves, self._rows = np.array(MOVES), envs[0]._rows
        self._cells = np.zeros((len(envs), 2), dtype=np.int64)

    def load(self, copy: int) -> None:
        self._cells[copy] = self.envs[copy]._cell

    def store(self, copy: int) -> None:
        self.envs[copy]._cell = tuple(self._cells[copy].tolist())

    def start(self, copies: np.ndarray) -> None:
        self._cells[copies] = self.envs[0].start

    def act(self, actions: np.ndarray) -> np.ndarray:
        self._cells = np.minimum(np.maximum(self._cells + self._moves[actions], 0), len(self._rows) - 1)
        return self._rewards()

    def observe(self) -> np.ndarray:
        return self._rows[self._cells].reshape(len(self.envs), -1)

    def _rewards(self) -> np.ndarray:
        """Return the reward of arriving at, or staying in, the current cell of each copy."""
        raise NotImplementedError


class _GridEnv(SmallProblem):
    """A square grid. The agent observes only its own cell (x, y), with x and y one-hot; walls stop it."""

    def __init__(self, size: int, horizon: int, start: Cell, render_mode: str | None) -> None:
        super().__init__(horizon, render_mode)
        self.size = check_int("size", size, low=3)
        self.start = start
        # Not MultiDiscrete: RecurrentPPO cannot build its LSTM for that (SB3 gives it a NumPy integer as width).
        self.observation_space = spaces.Box(0.0, 1.0, (2 * size,), np.float32)
        self.action_space = spaces.Discrete(len(MOVES))
        self._rows = np.eye(size, dtype=np.float32)
        self._cell = start

    def _reward(self) -> float:
        """Return the reward of arriving at, or staying in, the current cell."""
        raise NotImplementedError

    def _colours(self) -> list[tuple[Cell, Colour]]:
        """Return the hidden cells and their colours in the image."""
        raise NotImplementedError

    def _check_cell(self, name: str, value: Any) -> Cell:
        try:
            x, y = (check_number(name, number) for number in value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a cell (x, y), got {value!r}") from None
        if not (x.is_integer() and y.is_integer() and min(x, y) >= 0 and max(x, y) < self.size):
            raise ValueError(f"{name} must be a cell of the {self.size} x {self.size} grid, got {value!r}")
        return int(x), int(y)

    def _one_hot(self, *cells: Cell) -> np.ndarray:
        return self._rows[[number for cell in cells for number in cell]].ravel()

    def _start(self) -> None:
        self._cell = self.start

    def _act(self, action: Any) -> float:
        action = self._check_discrete(action, "0 (stay), 1 (up), 2 (right), 3 (down) or 4 (left)")
        (x, y), (dx, dy), last = self._cell, MOVES[action], self.size - 1
        self._cell = min(max(x + dx, 0), last), min(max(y + dy, 0), last)
        return self._reward()

    def _describe(self) -> str:
        return f"at {self._cell}"

    def _outcome(self, action: Any, reward: float) -> str:
        return f"reward {reward:g}, {self._describe()}"

    def _observe(self) -> np.ndarray:
        return self._one_hot(self._cell)

    def _picture(self) -> np.ndarray:
        return grid(self.size, self._colours(), self._cell)


class _GridNaviBatch(_GridBatch):
    def __init__(self, envs: Sequence[GridNaviEnv]) -> None:
        super().__init__(envs)
        self._goals = np.zeros_like(self._cells)

    def load(self, copy: int) -> None:
        super().load(copy)
        self._goals[copy] = self.envs[copy]._goal

    def _rewards(self) -> np.ndarray:
        return np.where((self._cells == self._goals).all(axis=1), 1.0, -0.1)


class GridNaviEnv(_GridEnv):
    """
    Find the hidden goal and stay there: reward 1 for each step at the goal, -0.1 for every other step. The task is the
    goal's cell.

    Episodes begin in the corner (0, 0). The goal is never there or next to it, which leaves 21 goals; none of them is
    held out, and evaluation visits them in a fixed order.

    :param size: Cells along each side
    :param horizon: Steps of an episode
    :param render_mode: ``"human"`` prints a line for each step, ``"rgb_array"`` draws the grid
    """

    batch_class = _GridNaviBatch
    holds_tasks_out = False

    def __init__(self, size: int = 5, horizon: int = 15, render_mode: str | None = None) -> None:
        super().__init__(size, horizon, (0, 0), render_mode)
        self.goals: list[Cell] = [(x, y) for x in range(size) for y in range(size) if max(x, y) > 1]
        self._goal = self.goals[-1]

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[Cell]:
        return [self.goals[i] for i in rng.integers(len(self.goals), size=n)]

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[Cell]:
        check_positive_int("n", n)
        order = held_out_rng(split).permutation(len(self.goals))
        return [self.goals[order[i % len(order)]] for i in range(n)]

    def set_task(self, task: Any) -> None:
        goal = self._check_cell("`task` (the goal's cell)", task)
        if goal not in self.goals:
            raise ValueError(f"`task` (the goal's cell) must not be at the start or next to it, got {task!r}")
        self._goal = goal

    def get_task(self) -> Cell:
        return self._goal

    def task_features(self, task: Cell) -> np.ndarray:
        return self._one_hot(task)

    def _reward(self) -> float:
        return 1.0 if self._cell == self._goal else -0.1

    def _colours(self) -> list[tuple[Cell, Colour]]:
        return [(self._goal, ORANGE)]


class _KeyToDoorBatch(_GridBatch):
    def __init__(self, envs: Sequence[DarkKeyToDoorEnv]) -> None:
        super().__init__(envs)
        self._keys, self._doors = np.zeros((2, len(envs), 2), dtype=np.int64)
        self._have_keys, self._are_open = np.zeros((2, len(envs)), dtype=bool)

    def load(self, copy: int) -> None:
        super().load(copy)
        env = self.envs[copy]
        self._keys[copy], self._doors[copy] = env._key, env._door
        self._have_keys[copy], self._are_open[copy] = env._has_key, env._is_open

    def store(self, copy: int) -> None:
        super().store(copy)
        env = self.envs[copy]
        env._has_key, env._is_open = bool(self._have_keys[copy]), bool(self._are_open[copy])

    def start(self, copies: np.ndarray) -> None:
        super().start(copies)
        self._have_keys[copies] = self._are_open[copies] = False

    def _rewards(self) -> np.ndarray:
        find = ~self._have_keys & (self._cells == self._keys).all(axis=1)
        open_ = self._have_keys & ~self._are_open & (self._cells == self._doors).all(axis=1)
        self._have_keys |= find
        self._are_open |= open_
        return np.where(find | open_, 1.0, 0.0)


class DarkKeyToDoorEnv(_GridEnv):
    """
    Find the hidden key, then the hidden door: reward 1 for finding the key and 1 for reaching the door with it, once
    per episode each. The task is the pair of their cells, (key, door).

    Episodes begin in the middle of the room. Of the 6,561 tasks of a 9 x 9 room, 500 are held out for validation and
    500 for tests.

    :param size: Cells along each side
    :param horizon: Steps of an episode
    :param render_mode: ``"human"`` prints a line for each step, ``"rgb_array"`` draws the room
    """

    batch_class = _KeyToDoorBatch

    def __init__(self, size: int = 9, horizon: int = 50, render_mode: str | None = None) -> None:
        middle = check_int("size", size, low=3) // 2
        super().__init__(size, horizon, (middle, middle), render_mode)
        n_tasks = size**4
        n_held_out = min(500, n_tasks // 10)
        self.n_held_out = min(N_HELD_OUT_TASKS, n_held_out)
        # The permutation depends on the size only, and each split is a part of it
        order = np.random.default_rng(size).permutation(n_tasks)
        self._numbers = {
            "validation": order[:n_held_out],
            "test": order[n_held_out : 2 * n_held_out],
            "train": order[2 * n_held_out :],
        }
        self._key, self._door = self._numbered_task(int(order[-1]))
        self._has_key = self._is_open = False

    def _numbered_task(self, number: int) -> tuple[Cell, Cell]:
        key_x, key_y, door_x, door_y = (int(i) for i in np.unravel_index(number, (self.size,) * 4))
        return (key_x, key_y), (door_x, door_y)

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[tuple[Cell, Cell]]:
        return [self._numbered_task(number) for number in rng.choice(self._numbers["train"], size=n)]

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[tuple[Cell, Cell]]:
        numbers = self._numbers[check_option("split", split, HELD_OUT_SPLITS)]
        if check_positive_int("n", n) > len(numbers):
            raise ValueError(f"`n` must be at most {len(numbers)}, the number of {split} tasks, got {n}")
        return [self._numbered_task(number) for number in numbers[:n]]

    def set_task(self, task: Any) -> None:
        try:
            key, door = task
        except (TypeError, ValueError):
            raise TypeError(f"`task` must be the pair (key, door) of two cells, got {task!r}") from None
        self._key, self._door = self._check_cell("`task`: the key", key), self._check_cell("`task`: the door", door)

    def get_task(self) -> tuple[Cell, Cell]:
        return self._key, self._door

    def task_features(self, task: tuple[Cell, Cell]) -> np.ndarray:
        return self._one_hot(*task)

    def _start(self) -> None:
        self._has_key = self._is_open = False
        super()._start()

    def _reward(self) -> float:
        if not self._has_key:
            self._has_key = self._cell == self._key
            return float(self._has_key)
        if not self._is_open:
            self._is_open = self._cell == self._door
            return float(self._is_open)
        return 0.0

    def _colours(self) -> list[tuple[Cell, Colour]]:
        key = [] if self._has_key else [(self._key, YELLOW)]
        return [(self._door, GREY if self._is_open else ORANGE), *key]


#: The registered environments; their trials have four episodes
grid_navi = partial(in_trials, GridNaviEnv, episodes_per_trial=4)
dark_key_to_door = partial(in_trials, DarkKeyToDoorEnv, episodes_per_trial=4)
