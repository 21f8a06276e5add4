"""Checks of the arguments of PEARL and its policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_trmrl.algorithms import arguments
from sb3_trmrl.algorithms.arguments import Check, check_sampled_trials, check_schedule, check_sizes, or_none
from sb3_trmrl.algorithms.transitions import TokenReader
from sb3_trmrl.common.checks import (
    check_between,
    check_int,
    check_non_negative,
    check_number,
    check_positive,
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


def _gradient_steps(name: str, value: Any) -> None:
    if check_int(name, value, low=-1) == 0:
        raise ValueError(f"`{name}` must be at least 1, or -1 for as many as steps were collected, got 0")


def check_net_arch(name: str, value: Any) -> None:
    """Require a list of layer sizes, or a dictionary of two such lists with the keys ``"pi"`` and ``"qf"``."""
    if not isinstance(value, Mapping):
        check_sizes(name, value, "a list of layer sizes, or a dictionary of two with the keys 'pi' and 'qf'")
        return
    if value.keys() != {"pi", "qf"}:
        raise ValueError(f"`{name}` must have the keys 'pi' and 'qf', got {', '.join(map(repr, value))}")
    for key, sizes in value.items():
        check_sizes(f"{name}[{key!r}]", sizes)


#: Arguments of the constructor, which are also the names of the attributes
CHECKS: dict[str, Check] = {
    "learning_rate": check_schedule,
    "buffer_size": check_whole_number,
    "batch_size": check_positive_int,
    "tau": lambda name, value: check_between(name, value, 0, 1),
    "gamma": lambda name, value: check_between(name, value, 0, 1),
    "gradient_steps": _gradient_steps,
    "ent_coef": _ent_coef,
    "target_update_interval": check_positive_int,
    "target_entropy": _target_entropy,
    "n_train_tasks": check_positive_int,
    "initial_steps": check_positive_int,
    "tasks_per_iteration": check_positive_int,
    "prior_steps": check_positive_int,
    "posterior_steps": check_int,
    "meta_batch_size": check_positive_int,
    "context_batch_size": check_positive_int,
    "kl_weight": check_non_negative,
    "reward_scale": check_positive,
    **{
        name: arguments.PPO_CHECKS[name]
        for name in ("stats_window_size", "tensorboard_log", "policy_kwargs", "seed", "device")
    },
}

#: Arguments of the policy; its reader checks the observation space
POLICY_CHECKS: dict[str, Check] = {
    "net_arch": or_none(check_net_arch),
    "latent_dim": check_positive_int,
    "encoder_net_arch": or_none(check_sizes),
    "n_critics": check_positive_int,
    **{name: arguments.POLICY_CHECKS[name] for name in ("lr_schedule", "activation_fn", "optimizer_class")},
    "optimizer_kwargs": arguments.POLICY_CHECKS["optimizer_kwargs"],
}


def check_sizes_of_data(model: Any) -> None:
    """Require numbers of tasks and transitions that fit each other."""
    if model.train_tasks is not None and len(model.train_tasks) != model.n_train_tasks:
        raise ValueError(
            f"`n_train_tasks` must be {len(model.train_tasks)}, the number of tasks that the model was trained on, got "
            f"{model.n_train_tasks}"
        )
    if model.meta_batch_size > model.n_train_tasks:
        raise ValueError(
            f"`meta_batch_size` must be at most `n_train_tasks` {model.n_train_tasks}, got {model.meta_batch_size}"
        )
    needed = max(model.initial_steps, model.prior_steps + model.posterior_steps) * model.n_train_tasks
    if model.buffer_size < needed:
        raise ValueError(
            f"`buffer_size` must be at least {needed}, the transitions that are collected in succession from "
            f"`n_train_tasks` {model.n_train_tasks} tasks, got {model.buffer_size}"
        )


def check_action_space(space: spaces.Space[Any], reader: TokenReader) -> spaces.Box:
    """Require a Box with finite bounds, of which the observations contain the previous action."""
    if not isinstance(space, spaces.Box):
        raise TypeError(f"`env` must have a Box action space, because PEARL's actor is that of SAC, got {space}")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise ValueError(f"`env` must have an action space with finite bounds, got {space}")
    n_actions = int(np.prod(space.shape))
    if reader.action_dim != n_actions:
        raise ValueError(
            f"`env` must observe the {n_actions} numbers of the previous action, got {reader.action_dim}. PEARL cannot "
            "read stacked frames"
        )
    return space


def check_vec_env(env: VecEnv, n_train_tasks: int) -> None:
    """Require trials of tasks that are sampled, without normalised or stacked observations."""
    layer = env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, (VecNormalize, VecFrameStack)):
            raise ValueError(
                f"`env` must not contain a {type(layer).__name__}: the replay buffer and the posterior hold raw "
                "transitions, and old ones would not fit new statistics. Scale observations in the environment, "
                "rewards with `reward_scale`"
            )
        layer = layer.venv
    check_sampled_trials(env)
    if env.num_envs > n_train_tasks:
        raise ValueError(
            f"`env` must have at most `n_train_tasks` {n_train_tasks} copies, which play different tasks, got "
            f"{env.num_envs}"
        )
