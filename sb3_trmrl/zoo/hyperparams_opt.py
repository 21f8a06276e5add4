"""Search spaces for rl-zoo3's ``--optimize-hyperparameters``, and the yml entry of the best trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from torch import nn, optim

from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.zoo.hyperparams_files import evaluated, memory_of

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
#: Modules whose classes yml files can name
_NAMED_MODULES = {"nn": nn, "th.optim": optim}
#: Sampled values that are learning rates, other rounded numbers, and choices. All others belong to the policy
_RATES = ("learning_rate", "vf_learning_rate", "vae_learning_rate", "inner_learning_rate")
_NUMBERS = ("ent_coef", "kl_weight", "tau", "target_kl", "reward_scale")
_CHOICES = ("clip_range", "n_epochs", "batch_size", "context_batch_size", "n_inner_steps")

# -- Values that a trial draws ----------------------------------------------------------------------------------------


def _draw_networks(trial: optuna.Trial) -> None:
    """Draw what all algorithms have."""
    # The horizon of the meta-RL robots is short (discount 0.9), that of the grids is long
    trial.suggest_float("one_minus_gamma", 0.003, 0.1, log=True)
    trial.suggest_categorical("width", [64, 128, 256])
    trial.suggest_categorical("activation_fn", list(_ACTIVATIONS))


def _draw_ppo(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_networks(trial)
    trial.suggest_float("one_minus_gae_lambda", 0.02, 0.3, log=True)
    trial.suggest_float("learning_rate", 3e-5, 3e-3, log=True)
    trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3])
    trial.suggest_categorical("n_epochs", [4, 10, 20])
    if "n_steps" in entry:
        trial.suggest_categorical("n_minibatches", [5, 10, 20, 40])
    if is_continuous:
        trial.suggest_float("log_std_init", -2.0, 0.0)
    else:
        trial.suggest_float("ent_coef", 1e-4, 0.03, log=True)


def _draw_trmrl(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_ppo(trial, entry, is_continuous)
    _draw_memory(trial)
    if "vf_learning_rate" in entry:
        trial.suggest_float("vf_learning_rate", 1e-4, 3e-3, log=True)


def _draw_memory(trial: optuna.Trial) -> None:
    if trial.suggest_categorical("memory", ["window", "full"]) == "window":
        trial.suggest_categorical("context_length", [3, 5, 10, 20])
    trial.suggest_categorical("d_model", [32, 64, 128])
    trial.suggest_categorical("n_layers", [1, 2, 4])


def _draw_varibad(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_ppo(trial, entry, is_continuous)
    trial.suggest_float("vae_learning_rate", 3e-4, 3e-3, log=True)
    trial.suggest_float("kl_weight", 0.01, 1.0, log=True)
    trial.suggest_categorical("gru_hidden_size", [64, 128])


def _draw_ppo_lstm(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_ppo(trial, entry, is_continuous)
    trial.suggest_categorical("lstm_hidden_size", [64, 128, 256])


def _draw_sac(trial: optuna.Trial) -> None:
    # Not the number of gradient steps: more of them are nearly always better, and take longer
    _draw_networks(trial)
    trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True)
    trial.suggest_categorical("tau", [0.005, 0.01, 0.02])


def _draw_trmrl_sac(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_sac(trial)
    trial.suggest_categorical("batch_size", [64, 128, 256])
    _draw_memory(trial)


def _draw_pearl(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_sac(trial)
    trial.suggest_categorical("batch_size", [32, 64, 128])
    trial.suggest_categorical("context_batch_size", [32, 64, 128])
    trial.suggest_float("kl_weight", 0.01, 1.0, log=True)
    trial.suggest_float("reward_scale", 1.0, 10.0, log=True)
    trial.suggest_categorical("latent_dim", [3, 5, 8])


def _draw_maml_trpo(trial: optuna.Trial, entry: Mapping[str, Any], is_continuous: bool) -> None:
    _draw_networks(trial)
    trial.suggest_float("one_minus_gae_lambda", 0.02, 0.3, log=True)
    trial.suggest_float("inner_learning_rate", 0.03, 3.0, log=True)
    trial.suggest_categorical("n_inner_steps", [1, 2, 3])
    trial.suggest_float("target_kl", 0.005, 0.05, log=True)
    if is_continuous:
        trial.suggest_float("log_std_init", -2.0, 0.0)


_DRAWS = {
    "trmrl": _draw_trmrl,
    "varibad": _draw_varibad,
    "ppo": _draw_ppo,
    "ppo_lstm": _draw_ppo_lstm,
    "trmrl_sac": _draw_trmrl_sac,
    "pearl": _draw_pearl,
    "maml_trpo": _draw_maml_trpo,
}
#: Algorithms that have a search space here
SEARCHED = tuple(_DRAWS)
#: Those whose actor and critic have separate hidden layers in ``net_arch``
_WITH_HEADS = ("trmrl", "varibad", "ppo", "ppo_lstm")


class SearchSpace:
    """
    Hyperparameters that a search varies, for one entry of a yml file. All others stay as in the entry: the number of
    environments and steps, which make whole trials, the number of gradient steps, the form of the schedules, and
    entries of ``policy_kwargs`` that are not searched.

    :param algo: One of ``SEARCHED``
    :param entry: Hyperparameters as in the yml file
    :param policy_kwargs: Those of the entry, evaluated
    """

    def __init__(self, algo: str, entry: Mapping[str, Any], policy_kwargs: Mapping[str, Any]) -> None:
        self.algo = algo
        self.entry = dict(entry)
        self.policy_kwargs = dict(policy_kwargs)

    def sample(self, trial: optuna.Trial, is_continuous: bool) -> dict[str, Any]:
        """
        :param trial: Trial that draws the values
        :param is_continuous: Whether actions are continuous: these have an initial noise, others an entropy bonus
        :return: Changed hyperparameters, see :meth:`convert`
        """
        _DRAWS[self.algo](trial, self.entry, is_continuous)
        return self.convert(trial.params)

    def convert(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param params: Values of a trial, as Optuna stores them
        :return: Hyperparameters that replace those of the entry, ``policy_kwargs`` as a whole
        """
        values = dict(params)
        found: dict[str, Any] = {}
        for name in ("gamma", "gae_lambda"):
            if f"one_minus_{name}" in values:
                found[name] = _rounded(1 - values.pop(f"one_minus_{name}"), 4)
        for name in set(_RATES) & set(values):
            found[name] = _with_value(self.entry.get(name), _rounded(values.pop(name), 3))
        found |= {name: _rounded(values.pop(name), 3) for name in set(_NUMBERS) & set(values)}
        found |= {name: values.pop(name) for name in set(_CHOICES) & set(values)}
        if "n_minibatches" in values:
            n_steps = self.entry["n_steps"] * self.entry.get("n_envs", 1)
            found["batch_size"] = max(2, n_steps // values.pop("n_minibatches"))
        layers = [values.pop("width")] * 2
        values["net_arch"] = {"pi": layers, "vf": list(layers)} if self.algo in _WITH_HEADS else layers
        values["activation_fn"] = _ACTIVATIONS[values["activation_fn"]]
        if "log_std_init" in values:
            values["log_std_init"] = _rounded(values["log_std_init"], 3)
        found["policy_kwargs"] = {**self._kept_policy_kwargs(values), **values}
        if self.algo == "trmrl_sac" and memory_of(self.algo, self.policy_kwargs) != values["memory"]:
            # Each kind of memory has a replay buffer with arguments of its own
            if "replay_buffer_class" in self.entry:
                found["replay_buffer_class"] = None
            given = self.entry.get("replay_buffer_kwargs")
            if given:
                given = evaluated("replay_buffer_kwargs", given) if isinstance(given, str) else given
                found["replay_buffer_kwargs"] = {key: value for key, value in given.items() if key == "folder"}
        return found

    def _kept_policy_kwargs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the entry that suit the sampled values: width, heads and positions belong to a memory."""
        kept = dict(self.policy_kwargs)
        if "memory" in values:
            dropped = {"context_length", "dim_feedforward"}
            if memory_of(self.algo, kept) != values["memory"]:
                dropped.add("positional_encoding")
            if values["d_model"] % kept.get("n_heads", 1):
                dropped.add("n_heads")
            kept = {key: value for key, value in kept.items() if key not in dropped}
            kept["dim_feedforward"] = 4 * values["d_model"]
        return kept

    def write_best(self, study: optuna.Study, env_id: str, path: Path) -> None:
        """Write the best trial of a study as an entry for ``--conf-file``."""
        trial = study.best_trial
        entry = {**self.entry, **self.convert(trial.params)}
        entry["policy_kwargs"] = with_names(entry["policy_kwargs"])
        states = [each.state.name for each in study.trials]
        about = f"# Trial {trial.number} of the study {study.study_name}: {trial.value:.6g} on validation. "
        about += f"Trials: {states.count('COMPLETE')} complete, {states.count('PRUNED')} pruned.\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write((about + yaml.safe_dump({env_id: entry}, sort_keys=False, width=110)).encode())


def with_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same keyword arguments as plain data, as in a yml file: classes by their names."""
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return with_names(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    name = getattr(value, "__name__", "")
    for prefix, module in _NAMED_MODULES.items():
        if name and getattr(module, name, None) is value:
            return f"{prefix}.{name}"
    return repr(value)  # readable, and the end of a search does not fail


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _with_value(before: Any, value: float) -> Any:
    """Return the value in the form of the entry: a number, or the start of the same schedule."""
    if not isinstance(before, str) or "_" not in before:
        return value
    kind, _, *rest = before.split("_")
    return "_".join([kind, f"{value:g}", *rest])
