"""
MetaWorld's simulations. Compiling the model of a class takes 0.15 s and 21 MB. A process compiles it once, and all
simulations of the class share it.
"""

from __future__ import annotations

import math
import pickle
import threading
from functools import cache
from types import FunctionType
from typing import Any

import mujoco
import numpy as np
from gymnasium.error import DependencyNotInstalled

try:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS as ALL_V3_ENVIRONMENTS
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
    from metaworld.types import Task
except ImportError as error:
    raise DependencyNotInstalled(f'MetaWorld is not installed ({error}): pip install "sb3_trmrl[metaworld]"') from error

from sb3_trmrl.common.plain_state import plain_state, set_plain_state
from sb3_trmrl.envs.metaworld_tasks import MetaWorldTask
from sb3_trmrl.envs.mujoco_state import mujoco_state, set_mujoco_state


class Simulation(SawyerXYZEnv):
    """
    Mixin for MetaWorld's classes that shares the model with others. Contacts and observations are those of MetaWorld,
    but are found faster.
    """

    # MetaWorld moves bodies and sites of the model at a reset. Each simulation keeps its own positions, and writes them
    # to the shared model before it uses it

    #: MetaWorld's name of the class, for example ``"reach-v3"``
    class_name: str

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        # The model has its original positions only before the first simulation of a class
        if self.fullpath not in _COMPILED:
            model = super()._initialize_simulation()[0]
            _COMPILED[self.fullpath] = model, _copy_positions(model)
        model, original_positions = _COMPILED[self.fullpath]
        self._positions = [position.copy() for position in original_positions]
        self._write_positions(model)
        return model, mujoco.MjData(model)

    def _write_positions(self, model: mujoco.MjModel) -> None:
        with _SHARED:
            model.body_pos[:], model.site_pos[:] = self._positions

    def set_goal(self, task: MetaWorldTask) -> None:
        """Set a task of this simulation's class, with the goal hidden from the observation."""
        data = {"rand_vec": np.array(task.rand_vec), "env_cls": SawyerXYZEnv, "partially_observable": True}
        self.set_task(Task(task.name, pickle.dumps(data)))

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        with _SHARED:
            self._write_positions(self.model)
            result = super().reset(seed=seed, options=options)
            self._positions = _copy_positions(self.model)
        return result

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        with _SHARED:
            self._write_positions(self.model)
            transition: tuple[np.ndarray, Any, bool, bool, dict[str, Any]] = super().step(action)
        return transition

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the simulation can be continued."""
        # Some of MetaWorld's attributes are views of current positions, which a reset recreates
        attributes = {name: v for name, v in plain_state(self).items() if not self._is_view(getattr(self, name))}
        return {
            "attributes": attributes,
            "places": [position.copy() for position in self._positions],
            "simulation": mujoco_state(self.model, self.data),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a simulation of the same class."""
        set_plain_state(self, state["attributes"])
        self._positions = [position.copy() for position in state["places"]]
        self._write_positions(self.model)
        set_mujoco_state(self.model, self.data, state["simulation"])

    def _is_view(self, value: Any) -> bool:
        """Return whether an attribute shares memory with positions of bodies, geoms or sites in the simulation."""
        positions = (self.data.xpos, self.data.xipos, self.data.geom_xpos, self.data.site_xpos)
        return isinstance(value, np.ndarray) and any(np.shares_memory(value, position) for position in positions)

    def _get_curr_obs_combined_no_goal(self) -> np.ndarray:
        """
        Return hand (3), opening of the gripper (1), and position (3) and quaternion (4) of each object, (18,).
        MetaWorld's function joins arrays several times for this.
        """
        observation = np.zeros(4 + self._obs_obj_max_len)
        observation[:3] = self.get_endeff_pos()
        between = self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos
        observation[3] = min(max(math.sqrt(between.dot(between)) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        n_objects = len(positions) // 3
        objects = observation[4 : 4 + 7 * n_objects].reshape(n_objects, 7)
        objects[:, :3] = positions.reshape(n_objects, 3)
        objects[:, 3:] = quaternions.reshape(n_objects, 4)
        return observation

    def touching_object(self, object_geom_id: int) -> bool:
        """Return whether both fingers press on an object. MetaWorld's loop takes a quarter of the time of a step."""
        contact, forces = self.data.contact, self.data.efc_force
        pairs = contact.geom  # (contacts, 2)
        with_object = (pairs == object_geom_id).any(axis=1)
        if not with_object.any():
            return False
        for finger in ("leftpad_geom", "rightpad_geom"):
            with_finger = (pairs == self.data.geom(finger).id).any(axis=1)
            if not sum(forces[contact.efc_address[with_object & with_finger]]) > 0:
                return False
        return True


#: Held while a simulation uses a model: other threads must not move bodies of other simulations in it
_SHARED = threading.RLock()
#: Model and original positions of its bodies and sites, by path of the XML file
_COMPILED: dict[str, tuple[mujoco.MjModel, list[np.ndarray]]] = {}


def _copy_positions(model: mujoco.MjModel) -> list[np.ndarray]:
    """Return copies of the arrays that MetaWorld writes to: positions of bodies and sites in their parents' frames."""
    return [model.body_pos.copy(), model.site_pos.copy()]


class _Rotation:
    """
    The part of SciPy's ``Rotation`` that MetaWorld uses: the quaternion of a matrix. SciPy first checks that the matrix
    is a rotation, which takes a quarter of the time of a step.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> _Rotation:
        return cls(matrix)

    def as_quat(self) -> np.ndarray:
        """Return (x, y, z, w), computed in the same order as in SciPy, so that it has the same rounding."""
        matrix = self.matrix.tolist()
        diagonal = [matrix[i][i] for i in range(3)]
        trace = diagonal[0] + diagonal[1] + diagonal[2]
        quaternion = [0.0] * 4
        largest = max(diagonal)
        if trace > largest:
            quaternion[:3] = [matrix[2][1] - matrix[1][2], matrix[0][2] - matrix[2][0], matrix[1][0] - matrix[0][1]]
            quaternion[3] = 1 + trace
        else:
            i = diagonal.index(largest)
            j, k = (i + 1) % 3, (i + 2) % 3
            quaternion[i] = 1 - trace + 2 * matrix[i][i]
            quaternion[j] = matrix[j][i] + matrix[i][j]
            quaternion[k] = matrix[k][i] + matrix[i][k]
            quaternion[3] = matrix[k][j] - matrix[j][k]
        x, y, z, w = quaternion
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        return np.array([x / norm, y / norm, z / norm, w / norm])


@cache
def _simulation_class(name: str) -> type[Simulation]:
    metaworld_class = ALL_V3_ENVIRONMENTS[name]
    # A copy of the class's function that uses our Rotation, so that MetaWorld's module stays as it is
    original = metaworld_class._get_quat_objects
    replaced = FunctionType(original.__code__, {**original.__globals__, "Rotation": _Rotation}, original.__name__)
    content = {"class_name": name, "_get_quat_objects": replaced}
    return type(metaworld_class.__name__, (Simulation, metaworld_class), content)


def new_simulation(name: str, reward_function_version: str) -> Simulation:
    """Create a simulation of one of MetaWorld's classes; its goal has to be set before the first reset."""
    return _simulation_class(name)(reward_function_version=reward_function_version)
