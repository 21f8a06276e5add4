"""HalfCheetahNoVel-v0: Gymnasium's HalfCheetah without velocities in the observation, for no_velocities.yml."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation


def make(velocities: bool = False, **kwargs: Any) -> gym.Env[Any, Any]:
    """
    :param velocities: Whether the agent observes velocities
    :param kwargs: Arguments of HalfCheetah-v5
    :return: The environment, with the 8 positions, and the 9 velocities if asked for
    """
    env = gym.make("HalfCheetah-v5", **kwargs)
    if velocities:
        return env
    space = spaces.Box(-np.inf, np.inf, (8,), np.float64)
    return TransformObservation(env, lambda observation: observation[:8], space)


gym.register("HalfCheetahNoVel-v0", entry_point=make)
