"""The sparse point robot of PEARL (Rakelly et al. 2019, section 6.3): walk to a hidden goal on a half-circle."""

from __future__ import annotations

from functools import partial
from math import cos, hypot, pi, sin
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_trmrl.common.checks import check_number, check_positive_int
from sb3_trmrl.envs.tasks import (
    N_HELD_OUT,
    TaskEnv,
    check_box_action,
    check_range,
    held_out_rng,
    in_trials,
    stratified,
)
from sb3_trmrl.envs.text_render import ORANGE, TextRender, grid

#: Cells of the picture along each side, and the coordinates of its lower left corner
_PICTURE, _CORNER = 15, (-1.5, -1.0)


class SparsePointRobotEnv(TextRender, TaskEnv):
    """
    A point in the plane; reward 1 - distance within ``goal_radius`` of the goal, else 0. The task is the goal's angle
    in radians, on the unit circle.

    Episodes begin at (0, 0). An action, two numbers in [-1, 1], moves the point by a tenth of it. The observation is
    the point's position. Episodes are truncated after ``horizon`` steps.

    :param angle_range: Lowest and highest angle, sampled uniformly
    :param goal_radius: Distance within which the goal is felt
    :param horizon: Steps of an episode
    :param render_mode: ``"human"`` prints a line for each step, ``"rgb_array"`` draws the point
    """

    def __init__(
        self,
        angle_range: tuple[float, float] = (0.0, pi),
        goal_radius: float = 0.2,
        horizon: int = 20,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode)
        self.angle_range = check_range("angle_range", angle_range, -pi, pi)
        self.goal_radius = check_number("goal_radius", goal_radius)
        if not 0 < self.goal_radius <= 1:
            raise ValueError(f"`goal_radius` must be in (0, 1], got {goal_radius!r}")
        self.horizon = check_positive_int("horizon", horizon)
        self.observation_space = spaces.Box(-np.inf, np.inf, shape=(2,), dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)
        self._angle = sum(self.angle_range) / 2
        self._position = np.zeros(2)
        self._steps_left = 0

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[float]:
        angles: list[float] = rng.uniform(*self.angle_range, size=n).tolist()
        return angles

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT) -> list[float]:
        return stratified(*self.angle_range, check_positive_int("n", n), held_out_rng(split))

    def set_task(self, task: Any) -> None:
        self._angle = check_number("task", task)

    def get_task(self) -> float:
        return self._angle

    def task_features(self, task: float) -> np.ndarray:
        return np.array((cos(task), sin(task)), dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._position, self._steps_left = np.zeros(2), self.horizon
        self._show("new episode")
        return self._position.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._steps_left == 0:
            raise ResetNeeded("Cannot call env.step() before calling env.reset(), or after the end of the episode")
        move = check_box_action(action, 2)
        self._position = self._position + 0.1 * np.clip(move, -1.0, 1.0)
        self._steps_left -= 1
        distance = hypot(self._position[0] - cos(self._angle), self._position[1] - sin(self._angle))
        reward = 1.0 - distance if distance <= self.goal_radius else 0.0
        self._show(f"reward {reward:.2f}")
        return self._position.astype(np.float32), reward, False, self._steps_left == 0, {}

    def _show(self, event: str) -> None:
        x, y = self._position
        self.show(f"{event}, at ({x:.2f}, {y:.2f})", partial(_picture, x, y, self._angle))


def _picture(x: float, y: float, angle: float) -> np.ndarray:
    return grid(_PICTURE, [(_cell(cos(angle), sin(angle)), ORANGE)], _cell(x, y))


def _cell(x: float, y: float) -> tuple[int, int]:
    """
    :return: Cell of the picture that a point lies in, or the nearest one
    """
    column, row = (int((value - low) * _PICTURE / 3) for value, low in zip((x, y), _CORNER, strict=True))
    return min(max(column, 0), _PICTURE - 1), min(max(row, 0), _PICTURE - 1)


#: What is registered, see ``in_trials`` for the arguments of a trial
sparse_point_robot = partial(in_trials, SparsePointRobotEnv, episodes_per_trial=4)
