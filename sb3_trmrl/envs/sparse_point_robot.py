"""The sparse point robot of PEARL (Rakelly et al. 2019, section 6.3): walk to a hidden goal on a half-circle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import cos, hypot, pi, sin
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trmrl.common.checks import check_number
from sb3_trmrl.envs.batch import Batch
from sb3_trmrl.envs.pictures import ORANGE, grid
from sb3_trmrl.envs.small_problem import SmallProblem
from sb3_trmrl.envs.tasks import UniformTaskEnv, check_box_action, in_trials

#: Distance that the point moves for an action of 1
STEP = 0.1
#: Cells of the image along each side, and the coordinates of its lower left corner
_PICTURE, _CORNER = 15, (-1.5, -1.0)


class _PointRobotBatch(Batch):
    def __init__(self, envs: Sequence[SparsePointRobotEnv]) -> None:
        super().__init__(envs)
        self._positions, self._goals = np.zeros((2, len(envs), 2))
        self._radii = np.zeros(len(envs))

    def load(self, copy: int) -> None:
        env = self.envs[copy]
        self._positions[copy], self._radii[copy] = env._position, env.goal_radius
        self._goals[copy] = cos(env._task), sin(env._task)

    def store(self, copy: int) -> None:
        self.envs[copy]._position = self._positions[copy].copy()

    def start(self, copies: np.ndarray) -> None:
        self._positions[copies] = 0.0

    def act(self, actions: np.ndarray) -> np.ndarray:
        self._positions += STEP * np.clip(actions.astype(np.float64), -1.0, 1.0)
        offsets = (self._positions - self._goals).T.tolist()
        distances = np.array(list(map(hypot, *offsets)))  # np.hypot rounds differently
        return np.where(distances <= self._radii, 1.0 - distances, 0.0)

    def observe(self) -> np.ndarray:
        return self._positions.astype(np.float32)

    def accepts(self, actions: np.ndarray) -> bool:
        is_known = actions.dtype.kind in "fiu" and actions.shape == self._positions.shape
        return is_known and bool(np.isfinite(actions).all())


class SparsePointRobotEnv(UniformTaskEnv, SmallProblem):
    """
    A point in the plane, with reward 1 - distance within ``goal_radius`` of the goal and 0 elsewhere. The task is the
    angle in radians of the goal, which lies on the unit circle.

    Episodes begin at (0, 0). An action, two numbers in [-1, 1], moves the point by a tenth of it. The observation is
    the point's position. Episodes are truncated after ``horizon`` steps.

    :param angle_range: Lowest and highest angle, sampled uniformly
    :param goal_radius: Distance within which the goal gives a reward
    :param horizon: Steps of an episode
    :param render_mode: ``"human"`` prints a line for each step, ``"rgb_array"`` draws the point
    """

    batch_class = _PointRobotBatch
    is_truncated = True
    task_unit = "rad"

    def __init__(
        self,
        angle_range: tuple[float, float] = (0.0, pi),
        goal_radius: float = 0.2,
        horizon: int = 20,
        render_mode: str | None = None,
    ) -> None:
        UniformTaskEnv.__init__(self, "angle_range", angle_range, -pi, pi)
        SmallProblem.__init__(self, horizon, render_mode)
        self.angle_range = self._task_range
        self.goal_radius = check_number("goal_radius", goal_radius)
        if not 0 < self.goal_radius <= 1:
            raise ValueError(f"`goal_radius` must be in (0, 1], got {goal_radius!r}")
        self.observation_space = spaces.Box(-np.inf, np.inf, shape=(2,), dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, shape=(2,), dtype=np.float32)
        self._position = np.zeros(2)

    def task_features(self, task: float) -> np.ndarray:
        return np.array((cos(task), sin(task)), dtype=np.float32)

    def _start(self) -> None:
        self._position = np.zeros(2)

    def _act(self, action: Any) -> float:
        self._position = self._position + STEP * np.clip(check_box_action(action, 2), -1.0, 1.0)
        distance = hypot(self._position[0] - cos(self._task), self._position[1] - sin(self._task))
        return 1.0 - distance if distance <= self.goal_radius else 0.0

    def _describe(self) -> str:
        return f"at ({self._position[0]:.2f}, {self._position[1]:.2f})"

    def _outcome(self, action: Any, reward: float) -> str:
        return f"reward {reward:.2f}, {self._describe()}"

    def _observe(self) -> np.ndarray:
        return self._position.astype(np.float32)

    def _picture(self) -> np.ndarray:
        return grid(_PICTURE, [(_cell(cos(self._task), sin(self._task)), ORANGE)], _cell(*self._position))


def _cell(x: float, y: float) -> tuple[int, int]:
    """Return the cell of the image that contains a point, or the nearest cell."""
    column, row = (int((value - low) * _PICTURE / 3) for value, low in zip((x, y), _CORNER, strict=True))
    return min(max(column, 0), _PICTURE - 1), min(max(row, 0), _PICTURE - 1)


#: The registered environment; its trials have four episodes
sparse_point_robot = partial(in_trials, SparsePointRobotEnv, episodes_per_trial=4)
