"""
Locomotion families of meta-reinforcement learning on Gymnasium's HalfCheetah-v5 and Ant-v5.

Rewards and task distributions are those of PEARL (Rakelly et al. 2019) and VariBAD (Zintgraf et al. 2020), which
TrMRL's paper uses; observations are Gymnasium's, without the torso's position. Velocities are in m/s.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import cos, pi, sin
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from sb3_trmrl.common.checks import check_bool, check_option, check_positive_int
from sb3_trmrl.envs.mujoco_state import PickledWithState, mujoco_state, set_mujoco_state
from sb3_trmrl.envs.tasks import TaskEnv, UniformTaskEnv, check_box_action, in_trials
from sb3_trmrl.trials.held_out import HELD_OUT_SPLITS, N_HELD_OUT_TASKS

#: The camera that follows the robot. Gymnasium 1.4's default camera does not.
_CAMERA = "track"


class _LocomotionEnv(PickledWithState, TaskEnv):
    """Mixin that gives one of Gymnasium's robots a horizon and another reward."""

    model: mujoco.MjModel
    data: mujoco.MjData
    #: Entries of the robot's info that are passed on, as Python floats, which are quick to copy
    info_keys: ClassVar[tuple[str, ...]]

    def __init__(self, horizon: int, render_mode: str | None) -> None:
        if render_mode is not None:
            check_option("render_mode", render_mode, self.metadata["render_modes"])
        self.horizon = check_positive_int("horizon", horizon)
        self._n_steps = 0

    def _reward(self, info: dict[str, float]) -> float:
        """Return the reward for the current task, given the entries ``info_keys`` of the robot's info."""
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._n_steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        check_box_action(action, self.model.nu)
        observation, _, terminated, _, robot_info = super().step(action)
        info = {key: float(robot_info[key]) for key in self.info_keys}
        self._n_steps += 1
        return observation, self._reward(info), terminated, self._n_steps >= self.horizon, info

    def state_dict(self) -> dict[str, Any]:
        return {**self._plain_state(), "simulation": mujoco_state(self.model, self.data)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        set_mujoco_state(self.model, self.data, state["simulation"])


class _CheetahEnv(_LocomotionEnv, HalfCheetahEnv):
    info_keys = ("x_velocity", "reward_ctrl")

    def __init__(self, horizon: int, render_mode: str | None) -> None:
        _LocomotionEnv.__init__(self, horizon, render_mode)
        HalfCheetahEnv.__init__(self, ctrl_cost_weight=0.05, camera_name=_CAMERA, render_mode=render_mode)


class _DirectionTasks(TaskEnv):
    """Tasks are the directions +1 (forward) and -1 (backward), or one of them."""

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

    def held_out_tasks(self, split: str, n: int = N_HELD_OUT_TASKS) -> list[int]:
        check_option("split", split, HELD_OUT_SPLITS)
        check_positive_int("n", n)
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


class HalfCheetahVelEnv(UniformTaskEnv, _CheetahEnv):
    """
    Run at a target speed: reward ``-abs(x_velocity - v) - 0.05 * sum(action ** 2)``. The task is the speed v, a float.

    Observations have 17 numbers, actions 6 numbers in [-1, 1]. Episodes never terminate.

    :param velocity_range: Lowest and highest target speed in m/s, not negative, sampled uniformly. The paper's range
        outside the training distribution is (3, 4)
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
        UniformTaskEnv.__init__(self, "velocity_range", velocity_range, 0.0, np.inf)
        self.velocity_range = self._task_range
        _CheetahEnv.__init__(self, horizon, render_mode)
        gym.utils.EzPickle.__init__(self, velocity_range, horizon, render_mode)

    def _reward(self, info: dict[str, float]) -> float:
        return -abs(info["x_velocity"] - self._task) + info["reward_ctrl"]


class HalfCheetahDirEnv(_DirectionTasks, _CheetahEnv):
    """
    Run forward or backward: reward ``d * x_velocity - 0.05 * sum(action ** 2)``. The task is the direction d, +1 or -1.

    Observations have 17 numbers, actions 6 numbers in [-1, 1]. Episodes never terminate.

    :param directions: Directions to sample from: both, or one of them
    :param horizon: Steps until an episode is truncated
    :param render_mode: As in HalfCheetah-v5
    """

    def __init__(self, directions: Iterable[int] = (1, -1), horizon: int = 200, render_mode: str | None = None) -> None:
        _DirectionTasks.__init__(self, directions)
        _CheetahEnv.__init__(self, horizon, render_mode)
        gym.utils.EzPickle.__init__(self, self.directions, horizon, render_mode)

    def _reward(self, info: dict[str, float]) -> float:
        return self._direction * info["x_velocity"] + info["reward_ctrl"]


class AntDirEnv(_DirectionTasks, _LocomotionEnv, AntEnv):
    """
    Run forward or backward: the task is the direction d, +1 or -1, and the reward is
    ``velocity . (cos t, sin t) - 0.5 * sum(action ** 2) - 5e-4 * sum(clip(contact forces, -1, 1) ** 2) + 1``,
    t = 0 for forward and pi for backward. The 1 is paid at every step, including the one that ends the episode.

    Observations have 27 numbers, actions 8 numbers in [-1, 1]. Episodes terminate when the torso's height leaves
    [0.2, 1].

    :param directions: Directions to sample from: both, or one of them
    :param legacy_angles: Use the direction as t, an angle in radians, as the released code of VariBAD and TrMRL does:
        both targets then point forward, to (0.54, 0.84) and (0.54, -0.84)
    :param horizon: Steps until an episode is truncated
    :param render_mode: As in Ant-v5
    """

    info_keys = ("x_velocity", "y_velocity", "reward_ctrl", "reward_contact")

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

    def _reward(self, info: dict[str, float]) -> float:
        angle = self._direction if self.legacy_angles else {1: 0.0, -1: pi}[self._direction]
        speed = info["x_velocity"] * cos(angle) + info["y_velocity"] * sin(angle)
        return speed + info["reward_ctrl"] + info["reward_contact"] + 1.0


#: The registered environments; their trials have two episodes
half_cheetah_vel = partial(in_trials, HalfCheetahVelEnv, episodes_per_trial=2)
half_cheetah_dir = partial(in_trials, HalfCheetahDirEnv, episodes_per_trial=2)
ant_dir = partial(in_trials, AntDirEnv, episodes_per_trial=2)
