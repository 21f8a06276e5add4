"""Checks of arguments that algorithms on SB3's SAC share, see :mod:`sb3_trmrl.algorithms.arguments`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_trmrl.algorithms.arguments import PPO_CHECKS, Check, check_schedule, check_sizes
from sb3_trmrl.common.checks import (
    check_between,
    check_int,
    check_non_negative,
    check_number,
    check_positive_int,
    check_whole_number,
)


def _ent_coef(name: str, value: Any) -> None:
    """Require a number, ``"auto"``, or ``"auto_"`` and a positive number."""
    if not isinstance(value, str):
        check_non_negative(name, value)
        return
    kind, _, start = value.partition("_")
    try:
        is_known = kind == "auto" and (value == "auto" or 0 < float(start) < np.inf)
    except ValueError:
        is_known = False
    if not is_known:
        raise ValueError(f"`{name}` must be a number, 'auto', or 'auto_' and a positive start, got {value!r}")


def _target_entropy(name: str, value: Any) -> None:
    if value != "auto":
        check_number(name, value)


def check_gradient_steps(name: str, value: Any) -> None:
    """Require a number of gradient steps, or -1."""
    if check_int(name, value, low=-1) == 0:
        raise ValueError(f"`{name}` must be at least 1, or -1 for as many as steps were collected, got 0")


def check_actor_critic_arch(name: str, value: Any) -> None:
    """Require a list of layer sizes, or a dictionary of two such lists with the keys ``"pi"`` and ``"qf"``."""
    if not isinstance(value, Mapping):
        check_sizes(name, value, "a list of layer sizes, or a dictionary of two with the keys 'pi' and 'qf'")
        return
    if value.keys() != {"pi", "qf"}:
        raise ValueError(f"`{name}` must have the keys 'pi' and 'qf', got {', '.join(map(repr, value))}")
    for key, sizes in value.items():
        check_sizes(f"{name}[{key!r}]", sizes)


def check_bounded_box(space: spaces.Space[Any], algorithm: str) -> spaces.Box:
    """Require a Box of actions with finite bounds. The message names the algorithm."""
    if not isinstance(space, spaces.Box):
        raise TypeError(f"`env` must have a Box action space, because {algorithm}'s actor is that of SAC, got {space}")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise ValueError(f"`env` must have an action space with finite bounds, got {space}")
    return space


#: Arguments of the constructor of SAC, which are also the names of the attributes
SAC_CHECKS: dict[str, Check] = {
    "learning_rate": check_schedule,
    "buffer_size": check_whole_number,
    "batch_size": check_positive_int,
    "tau": lambda name, value: check_between(name, value, 0, 1),
    "gamma": lambda name, value: check_between(name, value, 0, 1),
    "ent_coef": _ent_coef,
    "target_update_interval": check_positive_int,
    "target_entropy": _target_entropy,
    **{name: PPO_CHECKS[name] for name in ("stats_window_size", "tensorboard_log", "policy_kwargs", "seed", "device")},
}
