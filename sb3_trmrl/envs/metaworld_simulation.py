"""
MetaWorld's simulations. Compiling the model of a class takes 0.15 s and 21 MB, so a process does it once for each
class; the simulations of a class share it.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import mujoco
import numpy as np
from gymnasium.error import DependencyNotInstalled

try:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS as ALL_V3_ENVIRONMENTS
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
    from metaworld.types import Task
except ImportError as error:
    raise DependencyNotInstalled(f'MetaWorld is needed ({error}): pip install "sb3_trmrl[metaworld]"') from error

from sb3_trmrl.common.plain_state import plain_state, set_plain_state
from sb3_trmrl.envs.metaworld_tasks import MetaWorldTask
from sb3_trmrl.envs.mujoco_state import mujoco_state, set_mujoco_state


class Simulation(SawyerXYZEnv):
    """
    Lies over one of MetaWorld's classes: shares the model with others of the class, and has a quick test for contacts.

    MetaWorld moves bodies and sites of the model at a reset. Each simulation keeps its own places of them, and puts
    them into the model whenever it has its turn.
    """

    #: MetaWorld's name of the class, for example ``"reach-v3"``
    class_name: str

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        # Before the first simulation of a class, and only then, the model has all things in their first places
        if self.fullpath not in _COMPILED:
            model = super()._initialize_simulation()[0]
            _COMPILED[self.fullpath] = model, _places(model)
        model, first_places = _COMPILED[self.fullpath]
        self._places = [place.copy() for place in first_places]
        self._take_turn(model)
        return model, mujoco.MjData(model)

    def _take_turn(self, model: mujoco.MjModel) -> None:
        model.body_pos[:], model.site_pos[:] = self._places

    def set_goal(self, task: MetaWorldTask) -> None:
        """
        :param task: Task of this simulation's class; the goal is hidden from the observation
        """
        data = {"rand_vec": np.array(task.rand_vec), "env_cls": SawyerXYZEnv, "partially_observable": True}
        self.set_task(Task(task.name, pickle.dumps(data)))

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._take_turn(self.model)
        result = super().reset(seed=seed, options=options)
        self._places = _places(self.model)
        return result

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        self._take_turn(self.model)
        transition: tuple[np.ndarray, Any, bool, bool, dict[str, Any]] = super().step(action)
        return transition

    def state_dict(self) -> dict[str, Any]:
        """
        :return: All that decides how the simulation goes on
        """
        # Some of MetaWorld's attributes are views that show where a body is now; a reset makes them anew
        attributes = {name: v for name, v in plain_state(self).items() if not self._is_view(getattr(self, name))}
        return {
            "attributes": attributes,
            "places": [place.copy() for place in self._places],
            "simulation": mujoco_state(self.model, self.data),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: State of a simulation of the same class
        """
        set_plain_state(self, state["attributes"])
        self._places = [place.copy() for place in state["places"]]
        self._take_turn(self.model)
        set_mujoco_state(self.model, self.data, state["simulation"])

    def _is_view(self, value: Any) -> bool:
        """
        :param value: An attribute
        :return: Whether it shows places of bodies, geoms or sites in the simulation
        """
        places = (self.data.xpos, self.data.xipos, self.data.geom_xpos, self.data.site_xpos)
        return isinstance(value, np.ndarray) and any(np.shares_memory(value, place) for place in places)

    def touching_object(self, object_geom_id: int) -> bool:
        """
        What MetaWorld computes in a Python loop over contacts, a quarter of the time of a step.

        :param object_geom_id: Geom of the object
        :return: Whether both fingers press on it
        """
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


#: By path of the XML file: the model, and the first places of its bodies and sites
_COMPILED: dict[str, tuple[mujoco.MjModel, list[np.ndarray]]] = {}


def _places(model: mujoco.MjModel) -> list[np.ndarray]:
    """
    :param model: Model
    :return: Copies of what MetaWorld writes to: positions of bodies and of sites, in the frame of what they are part of
    """
    return [model.body_pos.copy(), model.site_pos.copy()]


@cache
def _simulation_class(name: str) -> type[Simulation]:
    """
    :param name: Name of a class of MetaWorld
    :return: The same with :class:`Simulation` over it
    """
    of_metaworld = ALL_V3_ENVIRONMENTS[name]
    return type(of_metaworld.__name__, (Simulation, of_metaworld), {"class_name": name})


def new_simulation(name: str, reward_function_version: str) -> Simulation:
    """
    :param name: Name of a class of MetaWorld
    :param reward_function_version: ``"v1"`` or ``"v2"``
    :return: A simulation whose goal has to be set, and which has to be reset then
    """
    return _simulation_class(name)(reward_function_version=reward_function_version)
