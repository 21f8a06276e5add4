"""
Training for the paper's ablations (appendix E): one setting of the transformer is changed at a time, and agents are
trained with each of its values and several seeds.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from sb3_trmrl.analysis.ablations import Ablations
from sb3_trmrl.common.checks import check_instance, check_int, check_positive_int
from sb3_trmrl.memory.kinds import memory_name
from sb3_trmrl.transformer_ppo import TrMRLPolicy
from sb3_trmrl.trials.held_out import has_environment
from sb3_trmrl.zoo.defaults import GRID
from sb3_trmrl.zoo.hyperparams_files import find_config

#: Written into the folder of a complete run
_FINISHED = "finished.json"


class AblationRun(NamedTuple):
    """One training run of the grid."""

    setting: str  # name of the changed setting
    value: Any
    seed: int
    folder: Path  # shared by settings that result in the same agent
    policy_kwargs: dict[str, Any]  # all arguments of the policy


def ablation_runs(
    env_id: str, folder: str | Path, seeds: Sequence[int], grid: Mapping[str, Sequence[Any]] = GRID
) -> list[AblationRun]:
    """List the runs of a grid: the values of each setting of the policy, and several seeds of each."""
    # The base settings, those of trmrl.yml for the environment, appear once for each setting
    if not has_environment(env_id):
        raise ValueError(f"`env_id` must be the id of a registered environment, got {env_id!r}")
    for setting, values in grid.items():
        check_instance(f"grid[{setting!r}]", values, (list, tuple), "a list of values")
    for seed in seeds:
        check_int("seeds", seed)
    base = _base_policy_kwargs(env_id, grid)
    points = [(setting, value) for setting, values in grid.items() for value in values]
    if not points or not seeds:
        raise ValueError(f"`grid` and `seeds` must not be empty, got {dict(grid)} and {list(seeds)}")
    runs = []
    for seed in seeds:
        for setting, value in points:
            policy_kwargs = {**base, setting: value}
            if policy_kwargs["d_model"] % policy_kwargs["n_heads"]:
                raise ValueError(f"`n_heads` must divide d_model={policy_kwargs['d_model']}, got {setting}={value!r}")
            changed = [f"{key}={policy_kwargs[key]}" for key in grid if policy_kwargs[key] != base[key]]
            run_folder = Path(folder) / (",".join(changed) or "base") / f"seed_{seed}"
            runs.append(AblationRun(setting, value, seed, run_folder, policy_kwargs))
    return runs


def _base_policy_kwargs(env_id: str, settings: Iterable[str]) -> dict[str, Any]:
    """Return the settings, the width and the heads by default, updated by ``trmrl.yml``."""
    path = find_config("trmrl", env_id, None)
    assert path is not None  # our own file has a default
    known = yaml.safe_load(Path(path).read_text())
    parameters = inspect.signature(TrMRLPolicy).parameters
    unknown = [setting for setting in settings if setting not in parameters]
    if unknown:
        raise ValueError(f"`grid` must hold settings of TrMRLPolicy, got {', '.join(map(repr, unknown))}")
    defaults = {name: parameters[name].default for name in ("d_model", "n_heads", *settings)}
    base = {**defaults, **(known.get(env_id) or known["default"]).get("policy_kwargs", {})}
    if "memory" in base or base.get("context_length") is None:  # another length must not change the kind of memory
        base["memory"] = memory_name(base.get("memory"), base.get("context_length"))
    return base


def train_ablations(
    runs: Sequence[AblationRun],
    env_id: str,
    n_timesteps: int,
    n_evaluations: int = 20,
    arguments: Sequence[str] = (),
) -> Iterator[AblationRun]:
    """Train incomplete runs one after the other, each in its own process; yield each run when it is complete."""
    check_positive_int("n_timesteps", n_timesteps)
    check_positive_int("n_evaluations", n_evaluations)
    for run in runs:
        about = {
            "env_id": env_id,
            "policy_kwargs": run.policy_kwargs,
            "seed": run.seed,
            "n_timesteps": n_timesteps,
            "n_evaluations": n_evaluations,
            "arguments": list(arguments),
        }
        if not _is_finished(run.folder, about):
            shutil.rmtree(run.folder, ignore_errors=True)
            run.folder.mkdir(parents=True)
            began = time.monotonic()
            options = ["--algo", "trmrl", "--env", env_id, "--seed", str(run.seed), "--n-timesteps", str(n_timesteps)]
            options += ["--eval-freq", str(max(1, n_timesteps // n_evaluations)), "--log-folder", str(run.folder)]
            options += _with_hyperparam(arguments, f"policy_kwargs:{run.policy_kwargs!r}")
            _train_in_process(run.folder, options)
            _evaluations(run)  # raises an error if there are none
            text = json.dumps({**about, "seconds": time.monotonic() - began}, indent=2)
            (run.folder / _FINISHED).write_text(text)
        yield run


def _with_hyperparam(arguments: Sequence[str], hyperparam: str) -> list[str]:
    """Add a hyperparameter to the list in the arguments: rl-zoo3 would read only the last of two lists."""
    flag = next((flag for flag in ("-params", "--hyperparams") if flag in arguments), None)
    if flag is None:
        return [*arguments, "--hyperparams", hyperparam]
    place = list(arguments).index(flag) + 1
    return [*arguments[:place], hyperparam, *arguments[place:]]


def _is_finished(folder: Path, about: dict[str, Any]) -> bool:
    """Return whether the run is complete; raise ``ValueError`` if it was made with other settings."""
    marker = folder / _FINISHED
    if not marker.is_file():
        return False
    found = json.loads(marker.read_text())
    different = {key: found.get(key) for key, value in about.items() if found.get(key) != value}
    if different:
        asked = {key: about[key] for key in different}
        raise ValueError(f"{folder} holds a run with {different} instead of {asked}: choose another folder")
    return True


def _train_in_process(folder: Path, options: Sequence[str]) -> None:
    log = folder / "train.log"
    with open(log, "w") as file:
        command = [sys.executable, "-m", "sb3_trmrl", "train", *options]
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        tail = "\n".join(log.read_text().splitlines()[-5:])
        raise RuntimeError(f"training ended with status {status}, see {log}:\n{tail}")


def _evaluations(run: AblationRun) -> tuple[np.ndarray, np.ndarray]:
    """Return the environment steps of the evaluations and the mean return of a trial at each, (K,) both."""
    found = sorted(run.folder.glob("**/evaluations.npz"))
    if not found:
        raise FileNotFoundError(f"{run.folder} has no evaluations.npz: the run was not evaluated")
    with np.load(found[0]) as data:
        return data["timesteps"], data["results"].mean(axis=1)


def read_ablations(runs: Sequence[AblationRun], env_id: str) -> Ablations:
    """Read the learning curves of complete runs, up to the last evaluation that all of them have."""
    found = [_evaluations(run) for run in runs]
    length = min(len(timesteps) for timesteps, _ in found)
    curves: dict[str, dict[Any, list[np.ndarray]]] = {}
    for run, (_, returns) in zip(runs, found, strict=True):
        curves.setdefault(run.setting, {}).setdefault(run.value, []).append(returns[:length])
    stacked = {key: {value: np.stack(each) for value, each in values.items()} for key, values in curves.items()}
    return Ablations(env_id, found[0][0][:length], stacked)
