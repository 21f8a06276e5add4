"""Checks of the arguments of VariBAD and its policy."""

from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.buffers import DictRolloutBuffer

from sb3_trmrl.algorithms import arguments
from sb3_trmrl.algorithms.arguments import Check, check_schedule, check_sizes, or_none
from sb3_trmrl.common.checks import (
    check_bool,
    check_instance,
    check_int,
    check_non_negative,
    check_option,
    check_positive,
    check_positive_int,
    check_subclass,
)

#: What the reward decoder may read beside the latent
DECODER_INPUTS = ("state", "action", "next_state")
#: Distributions of rewards, given latent and transition
REWARD_DISTRIBUTIONS = ("gaussian", "bernoulli")


def _decoder_inputs(name: str, value: Any) -> None:
    check_instance(name, value, Sequence, f"a list of {', '.join(map(repr, DECODER_INPUTS))}")
    if isinstance(value, str) or not value or len(set(map(str, value))) < len(value):
        raise ValueError(f"`{name}` must be a list of {', '.join(map(repr, DECODER_INPUTS))}, got {value!r}")
    for index, each in enumerate(value):
        check_option(f"{name}[{index}]", each, DECODER_INPUTS)


#: Arguments of the constructor that PPO does not have, which are also the names of the attributes
OWN_CHECKS: dict[str, Check] = {
    "vae_learning_rate": check_schedule,
    "kl_weight": check_non_negative,
    "n_elbo_terms": or_none(check_positive_int),
    "n_decoded_transitions": or_none(check_positive_int),
    "vae_buffer_size": check_positive_int,
    "vae_batch_trials": check_positive_int,
    "vae_updates_per_rollout": check_int,
    "vae_bptt_steps": or_none(check_positive_int),
    "vae_max_grad_norm": lambda name, value: check_positive(name, value, finite=False),
    "decode_rewards": check_bool,
    "decode_states": check_bool,
    "reward_distribution": lambda name, value: check_option(name, value, REWARD_DISTRIBUTIONS),
    "reward_decoder_inputs": _decoder_inputs,
    "reward_decoder_arch": check_sizes,
    "state_decoder_arch": check_sizes,
    "standardize_targets": check_bool,
}

#: All arguments of the constructor
CHECKS: dict[str, Check] = {
    **arguments.PPO_CHECKS,
    "rollout_buffer_class": or_none(lambda name, value: check_subclass(name, value, DictRolloutBuffer)),
    **OWN_CHECKS,
}

#: Arguments of the policy
POLICY_CHECKS: dict[str, Check] = {
    **arguments.POLICY_CHECKS,
    "latent_dim": check_positive_int,
    "gru_hidden_size": check_positive_int,
    "action_embedding_dim": check_positive_int,
    "state_embedding_dim": check_positive_int,
    "reward_embedding_dim": check_positive_int,
    "standardize_inputs": check_bool,
}
