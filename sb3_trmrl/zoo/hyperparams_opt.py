"""Search space of ``trmrl`` for rl-zoo3's ``--optimize-hyperparameters``."""

from typing import Any

import optuna


def convert_trmrl_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """Convert sampled values, which rl-zoo3 stores and loads, to arguments of ``TransformerPPO``."""
    # ``policy_kwargs`` is left out on purpose: rl-zoo3 would replace the whole entry of the yml file, and with it the
    # architecture
    hyperparams = sampled_params.copy()
    hyperparams["gamma"] = 1 - hyperparams.pop("one_minus_gamma")
    hyperparams["gae_lambda"] = 1 - hyperparams.pop("one_minus_gae_lambda")
    hyperparams["batch_size"] = 2 ** hyperparams.pop("batch_size_pow")
    return hyperparams


def sample_trmrl_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """Sample hyperparameters of TransformerPPO; the arguments are those that rl-zoo3 passes."""
    # ``n_steps`` and ``n_envs`` stay as in the yml file, where they make whole trials. The ranges include the short
    # horizons (gamma 0.9, lambda 0.8) that meta-RL on locomotion needs
    sampled_params = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.001, 0.2, log=True),
        "one_minus_gae_lambda": trial.suggest_float("one_minus_gae_lambda", 0.01, 0.3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 6, 11),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True),
        "vf_learning_rate": trial.suggest_float("vf_learning_rate", 5e-5, 5e-3, log=True),
        "clip_range": trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3]),
        "n_epochs": trial.suggest_categorical("n_epochs", [4, 10, 20]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        "max_grad_norm": trial.suggest_float("max_grad_norm", 0.3, 2.0),
    }
    hyperparams = convert_trmrl_params(sampled_params)
    for name in ("gamma", "gae_lambda", "batch_size"):
        trial.set_user_attr(name, hyperparams[name])
    return hyperparams
