"""
MetaWorld's simulations, shared by the environments of a process: each holds about 27 MB and takes a while to make.

An environment that moves on to a task of another class gives its simulation back and takes one of that class. A few are
kept idle; the oldest idle one goes when there are more.
"""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
from gymnasium.error import DependencyNotInstalled

try:
    from metaworld import ALL_V3_ENVIRONMENTS
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
    from metaworld.types import Task
except ImportError as error:
    raise DependencyNotInstalled(f'MetaWorld is needed ({error}): pip install "sb3_trmrl[metaworld]"') from error

from sb3_trmrl.envs.metaworld_tasks import MetaWorldTask

#: Simulations kept idle in a process
MAX_IDLE = 10


class Simulation(SawyerXYZEnv):
    """
    Lies over one of MetaWorld's classes, whose test for contacts it makes quick. After ``set_goal`` and ``reset``, what
    comes depends on the actions alone: MetaWorld puts everything back that it or the robot has moved.
    """

    def set_goal(self, task: MetaWorldTask) -> None:
        """
        :param task: Task of this simulation's class; the goal is hidden from the observation
        """
        data = {"rand_vec": np.array(task.rand_vec), "env_cls": SawyerXYZEnv, "partially_observable": True}
        self.set_task(Task(task.name, pickle.dumps(data)))

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


@cache
def _simulation_class(name: str) -> type[Simulation]:
    """
    :param name: Name of a class of MetaWorld
    :return: The same with :class:`Simulation` over it
    """
    of_metaworld = ALL_V3_ENVIRONMENTS[name]
    return type(of_metaworld.__name__, (Simulation, of_metaworld), {})


class SimulationPool:
    """
    Idle simulations of one process.

    :param max_idle: How many to keep, at least 0
    """

    def __init__(self, max_idle: int = MAX_IDLE) -> None:
        self.max_idle = max_idle
        #: Class, version of the reward and simulation, the oldest first
        self._idle: list[tuple[str, str, Simulation]] = []

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, name: str, reward_function_version: str) -> Simulation:
        """
        :param name: Name of a class of MetaWorld
        :param reward_function_version: ``"v1"`` or ``"v2"``
        :return: A simulation that nobody else has; its task has to be set, and it has to be reset
        """
        for index, (*key, simulation) in enumerate(self._idle):
            if key == [name, reward_function_version]:
                del self._idle[index]
                return simulation
        return _simulation_class(name)(reward_function_version=reward_function_version)

    def give_back(self, name: str, simulation: Simulation) -> None:
        """
        :param name: Name of its class
        :param simulation: What :meth:`take` returned
        """
        self._idle.append((name, simulation.reward_function_version, simulation))
        del self._idle[: -self.max_idle or None]


#: That of this process
POOL = SimulationPool()
