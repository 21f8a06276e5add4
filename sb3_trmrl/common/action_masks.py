"""Action masks of environments, in the convention of sb3-contrib, which is not required."""

from typing import Any


def is_masking_supported(env: Any) -> bool:
    """Return whether the environments of a VecEnv have the method ``action_masks()``."""
    try:
        return bool(env.has_attr("action_masks"))
    except (AttributeError, NotImplementedError):  # some vectorised environments do not give attributes
        return False
