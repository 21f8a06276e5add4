"""Files of hyperparameters: which one a run uses, and the Python expressions in it."""

import os
from pathlib import Path
from typing import Any

import rl_zoo3.exp_manager
import yaml

from sb3_trmrl.zoo.defaults import ALGORITHMS


def hyperparams_folder() -> Path:
    """Return the folder of our yml files: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "hyperparams"
    return installed if installed.is_dir() else package.parent / "hyperparams"


def find_config(algo: str, env_id: str, conf_file: str | None) -> str | None:
    """Return the hyperparameter file: the user's, or ours if it has the environment or a default, or None."""
    # Of one of our files, the name is enough, also outside a checkout. None stands for rl-zoo3's own file
    folder = hyperparams_folder()
    if conf_file is not None:
        ours = folder / Path(conf_file).name
        return str(ours) if not os.path.exists(conf_file) and ours.is_file() else conf_file
    path = folder / f"{algo}.yml"
    if path.is_file():
        known = yaml.safe_load(path.read_text())
        if env_id in known or "default" in known or algo in ALGORITHMS:  # rl-zoo3 has no file for our algorithms
            return str(path)
    return None


def evaluated(key: str, value: str) -> Any:
    """Evaluate the Python expression of a hyperparameter with the names that rl-zoo3 imports."""
    try:
        return eval(value, dict(vars(rl_zoo3.exp_manager)))
    except Exception as error:  # the expression may raise anything
        raise ValueError(f"`{key}` must be a Python expression, got {value!r}: {error}") from error
