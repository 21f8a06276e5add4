"""Checks of the arguments of PEARL and its policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_trmrl.algorithms import arguments
from sb3_trmrl.algorithms.arguments import Check, check_sampled_trials, check_sizes, or_none
from sb3_trmrl.algorithms.sac_arguments import (
    SAC_CHECKS,
    check_actor_critic_arch,
    check_bounded_box,
    check_gradient_steps,
)
from sb3_trmrl.algorithms.transitions import TokenReader
from sb3_trmrl.common.checks import (
    check_int,
    check_non_negative,
    check_positive,
    check_positive_int,
)

#: Arguments of the constructor that SAC does not have, which are also the names of the attributes
OWN_CHECKS: dict[str, Check] = {
    "n_train_tasks": check_positive_int,
    "initial_steps": check_positive_int,
    "tasks_per_iteration": check_positive_int,
    "prior_steps": check_positive_int,
    "posterior_steps": check_int,
    "meta_batch_size": check_positive_int,
    "context_batch_size": check_positive_int,
    "kl_weight": check_non_negative,
    "reward_scale": check_positive,
}

#: All arguments of the constructor
CHECKS: dict[str, Check] = {**SAC_CHECKS, "gradient_steps": check_gradient_steps, **OWN_CHECKS}

#: Arguments of the policy; its reader checks the observation space
POLICY_CHECKS: dict[str, Check] = {
    "net_arch": or_none(check_actor_critic_arch),
    "latent_dim": check_positive_int,
    "encoder_net_arch": or_none(check_sizes),
    "n_critics": check_positive_int,
    **{name: arguments.POLICY_CHECKS[name] for name in ("lr_schedule", "activation_fn", "optimizer_class")},
    "optimizer_kwargs": arguments.POLICY_CHECKS["optimizer_kwargs"],
}


def steps_in_succession(model: Any) -> int:
    """Return how many transitions of a task are collected in succession, which the buffer must hold."""
    return int(max(model.initial_steps, model.prior_steps + model.posterior_steps))


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
    needed = steps_in_succession(model) * model.n_train_tasks
    if model.buffer_size < needed:
        raise ValueError(
            f"`buffer_size` must be at least {needed}, the transitions that are collected in succession from "
            f"`n_train_tasks` {model.n_train_tasks} tasks, got {model.buffer_size}"
        )


def check_action_space(space: spaces.Space[Any], reader: TokenReader) -> spaces.Box:
    """Require a Box with finite bounds, of which the observations contain the previous action."""
    box = check_bounded_box(space, "PEARL")
    n_actions = int(np.prod(box.shape))
    if reader.action_dim != n_actions:
        raise ValueError(
            f"`env` must observe the {n_actions} numbers of the previous action, got {reader.action_dim}. PEARL cannot "
            "read stacked frames"
        )
    return box


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
