"""
The paper's ablations (appendix E, figures 10 to 13): one setting of the transformer at a time is changed, and agents
are trained with each of its values and several seeds.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from sb3_trmrl.analysis.colours import COLOURS
from sb3_trmrl.analysis.figures import check_picture
from sb3_trmrl.common.checks import check_instance, check_int, check_positive_int
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval
from sb3_trmrl.transformer_ppo import TrMRLPolicy
from sb3_trmrl.trials.held_out import has_environment
from sb3_trmrl.zoo.experiment import find_config

#: Settings that are varied one at a time, in the order of the paper's figures, and their values
GRID: dict[str, tuple[Any, ...]] = {
    "initialization": ("tfixup", "xavier", "default"),
    "context_length": (1, 5, 25),
    "n_layers": (1, 2, 4, 8),
    "n_heads": (1, 4, 16),
}
_TITLES = {
    "initialization": "initialization (fig. 10)",
    "context_length": "context length (fig. 11)",
    "n_layers": "layers (fig. 12)",
    "n_heads": "heads (fig. 13)",
}
#: Written into the folder of a run when it is complete
_FINISHED = "finished.json"

#: Trains one agent: folder for the run, and the arguments of ``trmrl train``
Train = Callable[[Path, Sequence[str]], None]


class AblationRun(NamedTuple):
    """
    One training of the grid.

    :param setting: Name of the setting that is changed
    :param value: Its value
    :param seed: Seed of the run
    :param folder: Folder of the run; settings that come to the same share it
    :param policy_kwargs: All arguments of the policy
    """

    setting: str
    value: Any
    seed: int
    folder: Path
    policy_kwargs: dict[str, Any]


@dataclass(frozen=True)
class Ablations:
    """
    Learning curves of the grid.

    :param env_id: Environment
    :param timesteps: Steps of the evaluations, (K,)
    :param curves: Mean return of a trial on validation tasks, by setting and value, (seeds, K) each
    """

    env_id: str
    timesteps: np.ndarray
    curves: dict[str, dict[Any, np.ndarray]]

    def to_frame(self) -> pd.DataFrame:
        """
        :return: One row for each setting, value and evaluation: setting, value, timesteps, mean over seeds, the ends of
            its 95 % bootstrap interval, low and high, and the number of seeds
        """
        frames = []
        for setting, values in self.curves.items():
            for value, curves in values.items():
                low, high = bootstrap_interval(curves, 0.95, 0).T
                rows: dict[str, Any] = {"setting": setting, "value": str(value), "timesteps": self.timesteps}
                rows |= {"mean": curves.mean(axis=0), "low": low, "high": high, "seeds": len(curves)}
                frames.append(pd.DataFrame(rows))
        return pd.concat(frames, ignore_index=True)


def ablation_runs(
    env_id: str, folder: str | Path, seeds: Sequence[int], grid: Mapping[str, Sequence[Any]] = GRID
) -> list[AblationRun]:
    """
    :param env_id: Environment with an entry (or a default) in our ``trmrl.yml``, whose settings are the base
    :param folder: Folder of all runs
    :param seeds: Seeds of each point of the grid
    :param grid: Values of each setting of the policy
    :return: The runs, those of the base settings several times
    :raises TypeError: if the values of a setting are no list, or a seed is no integer
    :raises ValueError: if there is no such environment, the heads do not divide the width, a setting is unknown, or
        nothing is to be run
    """
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
            of_run = Path(folder) / _name(policy_kwargs, base, grid) / f"seed_{seed}"
            runs.append(AblationRun(setting, value, seed, of_run, policy_kwargs))
    return runs


def _base_policy_kwargs(env_id: str, settings: Iterable[str]) -> dict[str, Any]:
    """
    :param env_id: Environment
    :param settings: Names of the settings that are changed
    :return: Those and the width as they are by default, and what our file says of the environment
    :raises ValueError: if the policy has no such setting
    """
    path = find_config("trmrl", env_id, None)
    assert path is not None  # our own file has a default
    known = yaml.safe_load(Path(path).read_text())
    parameters = inspect.signature(TrMRLPolicy).parameters
    unknown = [setting for setting in settings if setting not in parameters]
    if unknown:
        raise ValueError(f"`grid` must hold settings of TrMRLPolicy, got {', '.join(map(repr, unknown))}")
    defaults = {name: parameters[name].default for name in ("d_model", "n_heads", *settings)}
    return {**defaults, **(known.get(env_id) or known["default"]).get("policy_kwargs", {})}


def _name(policy_kwargs: dict[str, Any], base: dict[str, Any], grid: Mapping[str, Sequence[Any]]) -> str:
    changed = [f"{key}={policy_kwargs[key]}" for key in grid if policy_kwargs[key] != base[key]]
    return ",".join(changed) or "base"


def train_ablations(
    runs: Sequence[AblationRun],
    env_id: str,
    n_timesteps: int,
    n_evaluations: int = 20,
    arguments: Sequence[str] = (),
    train: Train | None = None,
) -> Iterator[AblationRun]:
    """
    Train what has not been trained yet; one run after the other, each in a process of its own. A run that was cut off
    is begun again.

    :param runs: What :func:`ablation_runs` returned
    :param env_id: Environment
    :param n_timesteps: Steps of each run
    :param n_evaluations: Evaluations on validation tasks during each run
    :param arguments: Further arguments of ``trmrl train``
    :param train: Trains one agent, by default ``python -m sb3_trmrl train``
    :return: The runs, each as soon as it is there
    :raises ValueError: if a finished run in the folder was made with other settings
    :raises RuntimeError: if a training fails
    """
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
            (train or _train_in_process)(run.folder, options)
            _evaluations(run)  # fails if there are none
            text = json.dumps({**about, "seconds": time.monotonic() - began}, indent=2)
            (run.folder / _FINISHED).write_text(text)
        yield run


def _with_hyperparam(arguments: Sequence[str], hyperparam: str) -> list[str]:
    """
    :param arguments: Arguments of ``trmrl train``, with hyperparameters or without
    :param hyperparam: One more of those; of two lists the zoo would read the last only
    :return: All arguments
    """
    flag = next((flag for flag in ("-params", "--hyperparams") if flag in arguments), None)
    if flag is None:
        return [*arguments, "--hyperparams", hyperparam]
    place = list(arguments).index(flag) + 1
    return [*arguments[:place], hyperparam, *arguments[place:]]


def _is_finished(folder: Path, about: dict[str, Any]) -> bool:
    """
    :param folder: Folder of a run
    :param about: What it is to be
    :return: Whether it is there
    :raises ValueError: if it was made with other settings
    """
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
    """
    :param folder: Folder of the run
    :param options: Arguments of ``trmrl train``
    :raises RuntimeError: if it fails
    """
    log = folder / "train.log"
    with open(log, "w") as file:
        command = [sys.executable, "-m", "sb3_trmrl", "train", *options]
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        tail = "\n".join(log.read_text().splitlines()[-5:])
        raise RuntimeError(f"training ended with status {status}, see {log}:\n{tail}")


def _evaluations(run: AblationRun) -> tuple[np.ndarray, np.ndarray]:
    """
    :param run: A run
    :return: Steps of its evaluations, (K,), and mean return of a trial at each, (K,)
    :raises FileNotFoundError: if there are none
    """
    found = sorted(run.folder.glob("**/evaluations.npz"))
    if not found:
        raise FileNotFoundError(f"{run.folder} has no evaluations.npz: the run was not evaluated")
    with np.load(found[0]) as data:
        return data["timesteps"], data["results"].mean(axis=1)


def read_ablations(runs: Sequence[AblationRun], env_id: str) -> Ablations:
    """
    :param runs: Finished runs
    :param env_id: Environment
    :return: Their learning curves, up to the last evaluation that all of them have
    """
    found = [_evaluations(run) for run in runs]
    length = min(len(timesteps) for timesteps, _ in found)
    curves: dict[str, dict[Any, list[np.ndarray]]] = {}
    for run, (_, returns) in zip(runs, found, strict=True):
        curves.setdefault(run.setting, {}).setdefault(run.value, []).append(returns[:length])
    stacked = {key: {value: np.stack(each) for value, each in values.items()} for key, values in curves.items()}
    return Ablations(env_id, found[0][0][:length], stacked)


def plot_ablations(result: Ablations, path: str | Path) -> None:
    """
    A panel for each setting; bands are 95 % bootstrap intervals over seeds.

    :param result: What :func:`read_ablations` returned
    :param path: Picture to write
    :raises TypeError: if ``result`` or ``path`` is something else
    :raises ValueError: if no picture can be written there
    """
    check_instance("result", result, Ablations, "an Ablations")
    check_picture(path)
    figure = Figure(figsize=(9, 3 * ((len(result.curves) + 1) // 2) + 0.6), layout="constrained")
    n_columns = min(2, len(result.curves))
    panels = figure.subplots(-(-len(result.curves) // n_columns), n_columns, sharex=True, sharey=True, squeeze=False)
    n_seeds = {len(curves) for values in result.curves.values() for curves in values.values()}
    for axes, (setting, values) in zip(panels.ravel(), result.curves.items(), strict=False):
        for (value, curves), colour in zip(values.items(), COLOURS, strict=False):
            axes.plot(result.timesteps, curves.mean(axis=0), color=colour, label=str(value))
            interval = bootstrap_interval(curves, 0.95, 0).T
            axes.fill_between(result.timesteps, *interval, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(_TITLES.get(setting, setting), fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for axes in panels[-1]:
        axes.set_xlabel("environment steps")
    for axes in panels[:, 0]:
        axes.set_ylabel("return of a trial, validation tasks")
    seeds = f"{min(n_seeds)} seed{'s' if min(n_seeds) > 1 else ''}"
    band = " and 95 % bootstrap interval" if min(n_seeds) > 1 else ""
    figure.suptitle(f"Ablations on {result.env_id}: mean{band} over {seeds}")
    figure.savefig(path, dpi=150)
