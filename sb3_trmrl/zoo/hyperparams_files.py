"""Files of hyperparameters: which one a run uses, and the Python expressions in it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3.exp_manager
import yaml
from rl_zoo3.exp_manager import ExperimentManager

from sb3_trmrl.common.checks import check_keywords
from sb3_trmrl.memory.kinds import memory_name
from sb3_trmrl.zoo.defaults import ALGORITHMS

#: Entries of ``policy_kwargs`` that are classes. Files give them by name, such as ``nn.ReLU``, also in inner mappings
_CLASSES = ("activation_fn", "features_extractor_class", "optimizer_class")


def hyperparams_folder() -> Path:
    """Return the folder of our yml files: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "hyperparams"
    return installed if installed.is_dir() else package.parent / "hyperparams"


def zoo_file(algo: str) -> Path:
    """Return the path of rl-zoo3's own file for an algorithm, which may not exist."""
    return Path(rl_zoo3.__path__[0], "hyperparams", f"{algo}.yml")


def find_config(algo: str, env_id: str, conf_file: str | None) -> str | None:
    """Return the hyperparameter file: the user's, ours, or None for rl-zoo3's own file."""
    # Of one of our files, the name is enough, also outside a checkout
    folder = hyperparams_folder()
    if conf_file is not None:
        ours = folder / Path(conf_file).name
        return str(ours) if not os.path.exists(conf_file) and ours.is_file() else conf_file
    path = folder / f"{algo}.yml"
    if not path.is_file():
        return None
    known = yaml.safe_load(path.read_text())
    is_ours = env_id in known or algo in ALGORITHMS  # rl-zoo3 has no file for our algorithms
    # Our default is only for environments that rl-zoo3 has not tuned
    return str(path) if is_ours or ("default" in known and not _is_tuned_by_zoo(algo, env_id)) else None


def _is_tuned_by_zoo(algo: str, env_id: str) -> bool:
    """Return whether rl-zoo3's file has an entry of its own for an environment, or one for all Atari games."""
    path = zoo_file(algo)
    known = yaml.safe_load(path.read_text()) if path.is_file() else {}
    is_atari = env_id in gym.registry and ExperimentManager.is_atari(env_id)
    return env_id in known or ("atari" in known and is_atari)


def evaluated(key: str, value: str) -> Any:
    """Evaluate the Python expression of a hyperparameter with the names that rl-zoo3 imports."""
    try:
        return eval(value, dict(vars(rl_zoo3.exp_manager)))
    except Exception as error:  # the expression may raise anything
        raise ValueError(f"`{key}` must be a Python expression, got {value!r}: {error}") from error


def policy_kwargs_of(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``policy_kwargs`` of a file, an expression or a mapping, as a new dictionary; class names stay text."""
    return check_keywords("policy_kwargs", evaluated("policy_kwargs", value) if isinstance(value, str) else value)


def evaluated_policy_kwargs(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``policy_kwargs`` of a file with classes in place of their names."""
    return _with_classes(policy_kwargs_of(value))


def _with_classes(values: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(values)
    for key, value in values.items():
        if isinstance(value, Mapping):
            found[key] = _with_classes(value)
        elif isinstance(value, str) and (key in _CLASSES or value.startswith(("nn.", "th."))):
            found[key] = evaluated(key, value)
    return found


def memory_of(algo: str, policy_kwargs: Mapping[str, Any]) -> str:
    """Return the kind of memory that these arguments of the policy stand for."""
    memory = policy_kwargs.get("memory")
    if algo == "trmrl_sac" and memory is None:  # whose default does not depend on the length
        return "window"
    return memory_name(memory, policy_kwargs.get("context_length"))
