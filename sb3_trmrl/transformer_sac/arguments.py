"""Checks of the arguments of TransformerSAC and its policy."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trmrl.algorithms import arguments
from sb3_trmrl.algorithms.arguments import Check, or_none
from sb3_trmrl.algorithms.sac_arguments import SAC_CHECKS, check_actor_critic_arch
from sb3_trmrl.common.checks import (
    check_bool,
    check_instance,
    check_int,
    check_keywords,
    check_number,
    check_option,
    check_positive_int,
    check_subclass,
    check_whole_number,
)
from sb3_trmrl.memory.kinds import MEMORY_KINDS
from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer


def check_train_freq(name: str, value: Any) -> tuple[int, str]:
    """Require a number of steps, or a number with the unit ``"step"`` or ``"episode"``. Return number and unit."""
    pair = value if isinstance(value, (tuple, list)) else (value, "step")
    unit = getattr(pair[-1], "value", pair[-1]) if len(pair) == 2 else None
    if unit not in ("step", "episode"):
        raise ValueError(f"`{name}` must be a number of steps, or a tuple such as (1, 'episode'), got {value!r}")
    return check_positive_int(name, pair[0]), unit


def _gradient_steps(name: str, value: Any) -> None:
    check_int(name, value, low=-1)  # 0 for none, as in SB3


#: Arguments of the constructor, which are also the names of the attributes
CHECKS: dict[str, Check] = {
    **SAC_CHECKS,
    "learning_starts": check_whole_number,
    "train_freq": check_train_freq,
    "gradient_steps": _gradient_steps,
    "action_noise": or_none(lambda name, value: check_instance(name, value, ActionNoise, "an ActionNoise or None")),
    "replay_buffer_class": or_none(lambda name, value: check_subclass(name, value, MemoryReplayBuffer)),
    "replay_buffer_kwargs": check_keywords,
    "use_sde": check_bool,
    "sde_sample_freq": arguments.PPO_CHECKS["sde_sample_freq"],
    "use_sde_at_warmup": check_bool,
}

#: Arguments of the policy that its transformer does not check
POLICY_CHECKS: dict[str, Check] = {
    **{
        name: check
        for name, check in arguments.POLICY_CHECKS.items()
        if name not in ("ortho_init", "full_std", "squash_output")
    },
    "net_arch": or_none(check_actor_critic_arch),
    "use_expln": check_bool,
    "clip_mean": check_number,
    "n_critics": check_positive_int,
    "context_length": or_none(check_positive_int),
    "critic_layer_norm": check_bool,
}


def kind_of_memory(memory: Any) -> str:
    """Return the value of ``memory``. None stands for the window."""
    return "window" if memory is None else check_option("memory", memory, MEMORY_KINDS)


def check_replay_buffer_class(value: Any, kind: str) -> None:
    """Require the class of the kind of memory, or a subclass."""
    needed = MEMORY_KINDS[kind].replay_buffer
    if not issubclass(value, needed):
        raise TypeError(
            f"`replay_buffer_class` must be a subclass of {needed.__name__} with memory={kind!r}, got {value}"
        )


def check_vec_env(env: VecEnv, normalizer: VecNormalize | None, train_freq: Any) -> None:
    """
    Require that VecNormalize returns the observations of the policy, which the replay buffer stores as they were, and
    one environment where ``train_freq`` counts episodes.
    """
    if env.num_envs > 1 and check_train_freq("train_freq", train_freq)[1] == "episode":
        raise ValueError(
            f"`train_freq` must be a number of steps with {env.num_envs} environments, whose episodes end at different "
            f"times, got {train_freq!r}"
        )
    if normalizer is not None and normalizer.observation_space != env.observation_space:
        raise ValueError(
            f"`env` must have VecNormalize around all wrappers that change observations: the policy reads "
            f"{env.observation_space}, VecNormalize returns {normalizer.observation_space}. Wrap images in "
            "VecTransposeImage, and stack frames, before VecNormalize"
        )
