"""Optimal return of ``SparsePointRobot-v0`` for a known goal, and a task-conditioned oracle."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi, sin

import numpy as np

from sb3_trmrl.envs.sparse_point_robot import STEP, SparsePointRobotEnv
from sb3_trmrl.references.scripted import ScriptedAgent, check_tasks


def sparse_point_robot_optimum(
    angles: Iterable[float] | None = None,
    goal_radius: float = 0.2,
    horizon: int = 20,
    angle_range: tuple[float, float] = (0.0, pi),
) -> float:
    """
    Return the highest possible return of an episode with a known goal, averaged over goals.

    The straight path is optimal: after every step the point is as near to the goal as any path could have brought it.

    :param angles: Angles of the goals, for example those of an evaluation; None: 10,000, evenly spaced in
        ``angle_range``
    :param goal_radius: Distance within which the goal gives a reward
    :param horizon: Steps of an episode
    :param angle_range: Lowest and highest angle, if ``angles`` is None
    :return: Optimal mean return
    :raises TypeError: if an angle is not a number
    :raises ValueError: if an argument is out of range, or there are no angles
    """
    env = SparsePointRobotEnv(angle_range, goal_radius, horizon)
    if angles is None:
        low, high = env.angle_range
        angles = low + (high - low) * (np.arange(10_000) + 0.5) / 10_000
    goal = np.array([(cos(angle), sin(angle)) for angle in check_tasks("angles", angles, env)])
    position, total = np.zeros_like(goal), 0.0
    for _ in range(horizon):
        # Adds up like the environment, to get the first reward at the same step
        position = position + STEP * _move(position, goal)
        distance = np.hypot(*(position - goal).T)
        total += float(np.where(distance <= env.goal_radius, 1.0 - distance, 0.0).mean())
    return total


class SparsePointRobotOracle(ScriptedAgent):
    """Walks straight to the goal, which it reads from the observation (``reveal_task=True``), and stays there."""

    keys = ("observation", "task")

    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        return _move(rows["observation"], rows["task"]).astype(np.float32)


def _move(position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    action: np.ndarray = np.clip((goal - position) / STEP, -1.0, 1.0)
    return action
