"""Resets of the training environment that the algorithm has not made, which would mix two episodes in one memory."""

from __future__ import annotations

import warnings
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

#: Infos of the newest reset of each environment. Every reset replaces them
Resets = tuple[Any, ...]


def newest_resets(env: VecEnv) -> Resets:
    """Return the infos of the newest reset of each environment."""
    return tuple(env.unwrapped.reset_infos)


def is_reset_since(env: VecEnv, before: Resets) -> bool:
    """Return whether an environment was reset after ``before``, which is that of the last step."""
    return any(a is not b for a, b in zip(newest_resets(env), before, strict=True))


def warn_of_reset() -> None:
    """Say that new episodes begin, because something else has used the training environment."""
    warnings.warn(
        "the training environment was reset between two rollouts, for example by evaluate_policy: new episodes "
        "begin. Evaluate in another environment",
        UserWarning,
        stacklevel=3,
    )


def refuse_reset(env: VecEnv, before: Resets) -> None:
    """Raise a ValueError if a callback has reset the training environment at this step."""
    if is_reset_since(env, before):
        raise ValueError(
            "`callback` must not reset the training environment during a rollout, as EvalCallback does if it gets the "
            "same environment: evaluate in another one"
        )
