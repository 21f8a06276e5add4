"""Action masks of environments, in the convention of sb3-contrib, which is not required."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv


def is_masking_supported(env: Any) -> bool:
    """Return whether the environments of a VecEnv have the method ``action_masks()``."""
    try:
        if type(env.unwrapped).has_attr is VecEnv.has_attr:  # true if `get_attr` returns None, as some do for all names
            return all(callable(method) for method in env.get_attr("action_masks"))
        return bool(env.has_attr("action_masks"))
    except (AttributeError, NotImplementedError):  # some vectorised environments do not give attributes
        return False
