"""Checks of the arguments of MAMLTRPO and its policy."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms import arguments
from sb3_trmrl.algorithms.arguments import Check, check_sampled_trials, check_sizes, or_none
from sb3_trmrl.common.action_masks import is_masking_supported
from sb3_trmrl.common.checks import check_between, check_bool, check_non_negative, check_positive, check_positive_int


def _factor(name: str, value: Any) -> None:
    """Require a number between 0 and 1, both excluded."""
    if not 0 < check_between(name, value, 0, 1) < 1:
        raise ValueError(f"`{name}` must be between 0 and 1, both excluded, got {value}")


#: Arguments of the constructor that SB3's classes do not have, which are also the names of the attributes
OWN_CHECKS: dict[str, Check] = {
    "inner_learning_rate": check_positive,
    "n_tasks": check_positive_int,
    "n_inner_episodes": check_positive_int,
    "n_inner_steps": check_positive_int,
    "n_adaptation_episodes": or_none(check_positive_int),
    "target_kl": check_positive,
    "cg_max_steps": check_positive_int,
    "cg_damping": check_non_negative,
    "line_search_max_iter": check_positive_int,
    "line_search_shrinking_factor": _factor,
    "normalize_advantage": check_bool,
}

#: All arguments of the constructor
CHECKS: dict[str, Check] = {
    **OWN_CHECKS,
    **{
        name: arguments.PPO_CHECKS[name]
        for name in ("gamma", "gae_lambda", "stats_window_size", "tensorboard_log", "policy_kwargs", "seed", "device")
    },
}

#: Arguments of the policy; its reader checks the previous transition
POLICY_CHECKS: dict[str, Check] = {
    "net_arch": or_none(check_sizes),
    **{
        name: arguments.POLICY_CHECKS[name]
        for name in ("observation_space", "action_space", "activation_fn", "ortho_init", "log_std_init")
    },
}


def check_vec_env(env: VecEnv) -> None:
    """Require trials of tasks that are sampled, with all rewards in the observations and without action masks."""
    check_sampled_trials(env)
    if env.has_attr("across_episodes") and "zero" in env.get_attr("across_episodes"):
        raise ValueError(
            "`env` must have across_episodes='keep', got 'zero': without the last reward of an episode, the agent "
            "cannot adapt to it"
        )
    if is_masking_supported(env):
        raise ValueError("`env` must have no method action_masks: MAMLTRPO does not support action masks")
