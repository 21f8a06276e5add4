"""
Locomotion families of meta-reinforcement learning on Gymnasium's HalfCheetah-v5 and Ant-v5.

Rewards and task distributions are those of PEARL (Rakelly et al. 2019) and VariBAD (Zintgraf et al. 2020), which
TrMRL's paper uses; observations are Gymnasium's, without the torso's position. Velocities are in m/s.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import cos, pi, sin
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from sb3_trmrl.common.checks import check_bool, check_number, check_option, check_positive_int
from sb3_trmrl.envs.mujoco_state import mujoco_state, set_mujoco_state
from sb3_trmrl.envs.tasks import (
    N_HELD_OUT,
    SPLITS,
    TaskEnv,
    check_box_action,
    check_range,
    held_out_rng,
    in_trials,
    stratified,
)

#: Camera of the robots' models that follows them. Without a name Gymnasium 1.4 takes one that stays behind.
_CAMERA = "track"


class _LocomotionEnv(TaskEnv):
    """
    The horizon and the reward, laid over one of Gymnasium's robots.

    :param horizon: Steps until an episode is truncated
    :param render_mode: As in the robot
    """

    model: mujoco.MjModel
    data: mujoco.MjData

    def __init__(self, horizon: int, render_mode: str | None) -> None:
        if render_mode is not None:
            check_option("render_mode", render_mode, self.metadata["render_modes"])
        self.horizon = check_positive_int("horizon", horizon)
        self._n_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._n_steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.shape is not None
        check_box_action(action, self.action_space.shape[0])
        observation, _, terminated, _, robot_info = super().step(action)
        reward, info = self._reward(robot_info)
        self._n_steps += 1
        return observation, reward, terminated, self._n_steps >= self.horizon, info

    def state_dict(self) -> dict[str, Any]:
        return {**self._plain_state(), "simulation": mujoco_state(self.model, self.data)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        set_mujoco_state(self.model, self.data, state["simulation"])

    def _reward(self, robot_info: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """
        :param robot_info: The robot's own info of this step
        :return: Reward of the current task, and the info that is passed on: Python floats, quick to copy
        """
        raise NotImplementedError


class _DirectionTasks(TaskEnv):
    """
    Tasks are the directions +1 (forward) and -1 (backward).

    :param directions: Those that are sampled: both, or one of them
    """

    holds_tasks_out = False  # there are only two

    def __init__(self, directions: Iterable[int]) -> None:
        if isinstance(directions, (str, bytes)) or not isinstance(directions, Iterable):
            raise TypeError(f"`directions` must be a sequence of +1 and -1, got {directions!r}")
        self.directions = tuple(_check_direction("each of `directions`", direction) for direction in directions)
        if not self.directions:
            raise ValueError(f"`directions` must hold at least one direction, got {self.directions}")
        self._direction = self.directions[0]

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[int]:
        return [self.directions[i] for i in rng.integers(len(self.directions), size=n)]

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT) -> list[int]:
        check_option("split", split, SPLITS[1:])
        check_positive_int("n", n)
        # Every direction in turn, as often as the others
        return [self.directions[i % len(self.directions)] for i in range(n)]

    def set_task(self, task: Any) -> None:
        self._direction = _check_direction("`task`", task)

    def get_task(self) -> int:
        return self._direction


def _check_direction(name: str, value: Any) -> int:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or value not in (-1, 1):
        kind = ValueError if is_number else TypeError
        raise kind(f"{name} must be the direction +1 (forward) or -1 (backward), got {value!r}")
    return int(value)


class HalfCheetahVelEnv(_LocomotionEnv, HalfCheetahEnv):
    """
    Run at a given speed: reward ``-abs(x_velocity - v) - 0.05 * sum(action ** 2)``. The task is the speed v, a float.

    Observation 17 numbers, action 6 numbers in [-1, 1]; never terminates.

    :param velocity_range: Lowest and highest target speed in m/s, not negative. Sampled uniformly. Out of the training
        distribution is (3, 4)
    :param horizon: Steps until an episode is truncated
    :param render_mode: As in HalfCheetah-v5
    """

    task_unit = "m/s"

    def __init__(
        self,
        velocity_range: tuple[float, float] = (0.0, 3.0),
        horizon: int = 200,
        render_mode: str | None = None,
    ) -> None:
        self.velocity_range = check_range("velocity_range", velocity_range, 0.0, np.inf)
        self._velocity = sum(self.velocity_range) / 2
        _LocomotionEnv.__init__(self, horizon, render_mode)
        HalfCheetahEnv.__init__(self, ctrl_cost_weight=0.05, camera_name=_CAMERA, render_mode=render_mode)
        gym.utils.EzPickle.__init__(self, velocity_range, horizon, render_mode)

    def draw_tasks(self, n: int, rng: np.random.Generator) -> list[float]:
        velocities: list[float] = rng.uniform(*self.velocity_range, size=n).tolist()
        return velocities

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT) -> list[float]:
        return stratified(*self.velocity_range, check_positive_int("n", n), held_out_rng(split))

    def set_task(self, task: Any) -> None:
        self._velocity = check_number("task", task)

    def get_task(self) -> float:
        return self._velocity

    def _reward(self, robot_info: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        x_velocity, reward_ctrl = float(robot_info["x_velocity"]), float(robot_info["reward_ctrl"])
        return -abs(x_velocity - self._velocity) + reward_ctrl, {"x_velocity": x_velocity, "reward_ctrl": reward_ctrl}


class HalfCheetahDirEnv(_DirectionTasks, _LocomotionEnv, HalfCheetahEnv):
    """
    Run forward or backward: reward ``d * x_velocity - 0.05 * sum(action ** 2)``. The task is the direction d, +1 or -1.

    Observation 17 numbers, action 6 numbers in [-1, 1]; never terminates.

    :param directions: Those that are sampled: both, or one of them
    :param horizon: Steps until an episode is truncated
    :param render_mode: As in HalfCheetah-v5
    """

    def __init__(self, directions: Iterable[int] = (1, -1), horizon: int = 200, render_mode: str | None = None) -> None:
        _DirectionTasks.__init__(self, directions)
        _LocomotionEnv.__init__(self, horizon, render_mode)
        HalfCheetahEnv.__init__(self, ctrl_cost_weight=0.05, camera_name=_CAMERA, render_mode=render_mode)
        gym.utils.EzPickle.__init__(self, self.directions, horizon, render_mode)

    def _reward(self, robot_info: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        x_velocity, reward_ctrl = float(robot_info["x_velocity"]), float(robot_info["reward_ctrl"])
        return self._direction * x_velocity + reward_ctrl, {"x_velocity": x_velocity, "reward_ctrl": reward_ctrl}


class AntDirEnv(_DirectionTasks, _LocomotionEnv, AntEnv):
    """
    Run forward or backward: the task is the direction d, +1 or -1, and the reward is
    ``velocity . (cos t, sin t) - 0.5 * sum(action ** 2) - 5e-4 * sum(clip(contact forces, -1, 1) ** 2) + 1``,
    t = 0 for forward and pi for backward. The 1 is paid at every step, the one that ends the episode included.

    Observation 27 numbers, action 8 numbers in [-1, 1]; terminates when the torso's height leaves [0.2, 1].

    :param directions: Those that are sampled: both, or one of them
    :param legacy_angles: Use the direction as t, an angle in radians, as the released code of VariBAD and TrMRL does:
        both targets then point ahead, to (0.54, 0.84) and (0.54, -0.84)
    :param horizon: Steps until an episode is truncated
    :param render_mode: As in Ant-v5
    """

    def __init__(
        self,
        directions: Iterable[int] = (1, -1),
        legacy_angles: bool = False,
        horizon: int = 200,
        render_mode: str | None = None,
    ) -> None:
        self.legacy_angles = check_bool("legacy_angles", legacy_angles)
        _DirectionTasks.__init__(self, directions)
        _LocomotionEnv.__init__(self, horizon, render_mode)
        AntEnv.__init__(self, include_cfrc_ext_in_observation=False, camera_name=_CAMERA, render_mode=render_mode)
        gym.utils.EzPickle.__init__(self, self.directions, legacy_angles, horizon, render_mode)

    def _reward(self, robot_info: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        info = {key: float(robot_info[key]) for key in ("x_velocity", "y_velocity", "reward_ctrl", "reward_contact")}
        angle = self._direction if self.legacy_angles else {1: 0.0, -1: pi}[self._direction]
        speed = info["x_velocity"] * cos(angle) + info["y_velocity"] * sin(angle)
        return speed + info["reward_ctrl"] + info["reward_contact"] + 1.0, info


#: What is registered: the environment in trials of two episodes, see ``in_trials`` for the arguments of a trial
half_cheetah_vel = partial(in_trials, HalfCheetahVelEnv, episodes_per_trial=2)
half_cheetah_dir = partial(in_trials, HalfCheetahDirEnv, episodes_per_trial=2)
ant_dir = partial(in_trials, AntDirEnv, episodes_per_trial=2)
