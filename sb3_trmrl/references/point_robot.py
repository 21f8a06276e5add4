"""What ``SparsePointRobot-v0`` can yield to an agent that knows where the goal is, and such an agent."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi, sin

import numpy as np

from sb3_trmrl.envs.sparse_point_robot import SparsePointRobotEnv
from sb3_trmrl.references.scripted import ScriptedAgent, each_task

#: The point moves by a tenth of an action
_STEP = 0.1


def sparse_point_robot_optimum(
    angles: Iterable[float] | None = None,
    goal_radius: float = 0.2,
    horizon: int = 20,
    angle_range: tuple[float, float] = (0.0, pi),
) -> float:
    """
    The straight way is the best one: after each step the point is as near to the goal as any way could have brought it.

    :param angles: Angles of the goals, for example those of an evaluation; None: 10,000 evenly on ``angle_range``
    :param goal_radius: Distance within which the goal is felt
    :param horizon: Steps of an episode
    :param angle_range: Lowest and highest angle, if ``angles`` is None
    :return: Most that an episode can yield with the goal known, mean over the goals
    :raises TypeError: if an angle is no number
    :raises ValueError: if an argument is out of range, or there are no angles
    """
    env = SparsePointRobotEnv(angle_range, goal_radius, horizon)
    if angles is None:
        low, high = env.angle_range
        angles = low + (high - low) * (np.arange(10_000) + 0.5) / 10_000
    goals = [(cos(angle), sin(angle)) for angle in each_task(env, "angles", angles)]
    if not goals:
        raise ValueError("`angles` must hold at least one, got none")
    goal = np.array(goals)
    position, total = np.zeros_like(goal), 0.0
    for _ in range(horizon):
        # Adds up like the environment, so that the step at which the goal is first felt is the same
        position = position + _STEP * _move(position, goal)
        distance = np.hypot(*(position - goal).T)
        total += float(np.where(distance <= env.goal_radius, 1.0 - distance, 0.0).mean())
    return total


class SparsePointRobotOracle(ScriptedAgent):
    """Walks straight to the goal, which ``reveal_task=True`` tells, and stays."""

    keys = ("observation", "task")

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        return _move(rows["observation"], rows["task"]).astype(np.float32)


def _move(position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    action: np.ndarray = np.clip((goal - position) / _STEP, -1.0, 1.0)
    return action
