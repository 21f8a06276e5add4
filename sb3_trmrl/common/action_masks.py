"""
Action masks of environments: the convention of sb3-contrib, a method ``action_masks()`` that returns which actions are
valid now. It is repeated here because sb3-contrib is not required.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

_METHOD = "action_masks"


def is_masking_supported(env: VecEnv) -> bool:
    """Return whether the environments have the method ``action_masks()``."""
    try:
        return env.has_attr(_METHOD)
    except (AttributeError, NotImplementedError):  # vectorised environments that do not give attributes
        return False


def get_action_masks(env: VecEnv) -> np.ndarray:
    """Return the masks of the next action, one row for each environment."""
    masks = env.env_method(_METHOD)
    shapes = list(dict.fromkeys(map(np.shape, masks)))
    if len(shapes) > 1:
        raise ValueError(f"`action_masks` must have the same shape in all environments, got {shapes}")
    return np.stack(masks)
