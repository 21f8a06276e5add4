"""What rl-zoo3 leaves in the folder of a run: models, statistics, arguments and evaluations."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rl_zoo3 import ALGOS, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_trmrl.evaluation.callbacks import HISTORY
from sb3_trmrl.evaluation.trials import episodes_per_trial
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, has_splits, n_tasks_in_turn
from sb3_trmrl.zoo.error_origin import raised_by_user_code

#: Files of a run
INITIAL_MODEL = "initial_model.zip"
BEST_MODEL = "best_model.zip"
STATISTICS = "vecnormalize.pkl"
#: What an interrupted run is resumed from: the folder of checkpoints and the arguments given by the user
CHECKPOINTS = "checkpoints"
COMMAND_LINE = "command_line.json"
#: Exists while the run has files of a model, but training or saving has not come to its end
UNFINISHED = "unfinished"
#: Placeholders for the schedules of a loaded model, which does not train and whose schedule classes may be missing
UNUSED_SCHEDULES = {"learning_rate": 0.0, "clip_range": 0.0}


@contextmanager
def file_errors(path: str | Path, content: str) -> Iterator[None]:
    """Turn any error of reading a file into a ``ValueError`` that names it and the content that it must hold."""
    try:
        yield
    except Exception as error:
        if raised_by_user_code(error):  # a class of the user that the file refers to
            raise
        raise ValueError(f"{str(path)!r} must hold {content}, but it cannot be read: {error!r}") from error


def search_current_folder() -> None:
    """Let modules in the current folder be imported. ``python -m`` does so, the installed script ``trmrl`` does not."""
    # At the end, so that no file there hides an installed package
    folder = os.getcwd()
    if not ({"", folder} & set(sys.path) or getattr(sys.flags, "safe_path", False)):
        sys.path.append(folder)


def import_packages(
    names: Iterable[str], message: str = "--gym-packages must be modules that can be imported, got {!r}"
) -> None:
    """Import modules that register environments. Errors inside a module are raised unchanged."""
    for name in names:
        search_current_folder()
        try:
            importlib.import_module(name)
        except ImportError as error:
            if raised_by_user_code(error):
                raise
            raise ImportError(f"{message.format(name)}: {error}") from error


def load_model(algo: str, path: Path) -> BaseAlgorithm:
    """Load a trained model on the CPU, without its schedules. This unpickles: only load files that you trust."""
    with file_errors(path, f"a model of {algo}"):
        model: BaseAlgorithm = ALGOS[algo].load(path, device="cpu", custom_objects=dict(UNUSED_SCHEDULES))
    return model


def _arrays(path: Path, content: str, *needed: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file, some of which it must have; empty if there is no file."""
    if not path.is_file():
        return {}
    with file_errors(path, content), path.open("rb") as file, np.load(file) as data:
        return {**data, **{key: data[key] for key in needed}}


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


class Run:
    """The folder of a run, for example ``logs/trmrl/HalfCheetahVel-v0_1``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        found = sorted(self.folder.glob("*/args.yml"))
        if not found:
            raise FileNotFoundError(f"{str(folder)!r} is not the folder of a run: it contains no */args.yml")
        self.stats_path = found[0].parent
        with file_errors(found[0], "the arguments of a run: algo, env, seed and env_kwargs"):
            # rl-zoo3 writes Python objects and reads them like this
            arguments = yaml.load(found[0].read_text(), Loader=yaml.UnsafeLoader)
            self.algo: str = arguments["algo"]
            self.env_id: str = arguments["env"]
            self.seed: int = arguments["seed"]
            self.env_kwargs: dict[str, Any] = arguments["env_kwargs"] or {}
            self.gym_packages: list[str] = arguments.get("gym_packages") or []
            options = {"--eval-episodes": "eval_episodes", "--n-eval-envs": "n_eval_envs"}
            #: Options of evaluations during training
            self.evaluation: dict[str, int] = {
                option: arguments[key] for option, key in options.items() if key in arguments
            }
        import_packages(self.gym_packages, "the run needs the module {!r}, which cannot be imported from here")
        self.has_splits = has_splits(self.env_id)

    @cached_property
    def n_test_tasks(self) -> int:
        """Number of test tasks, counted in an environment made for it; without splits, number of episodes"""
        return (
            n_tasks_in_turn(self.env_id, {**self.env_kwargs, "split": "test"}) if self.has_splits else N_HELD_OUT_TASKS
        )

    @cached_property
    def hyperparams(self) -> dict[str, Any]:
        """Hyperparameters of the run, as rl-zoo3 saved them"""
        found: dict[str, Any] = get_saved_hyperparams(str(self.stats_path))[0]
        return found

    @property
    def initial_model(self) -> Path | None:
        """Model before training; None without ``--report``"""
        return _existing(self.folder / INITIAL_MODEL)

    @property
    def best_model(self) -> Path | None:
        """Model selected on validation tasks; None if the run was not evaluated"""
        return _existing(self.folder / BEST_MODEL)

    @property
    def last_model(self) -> Path | None:
        """Model at the end of training; None if training did not finish"""
        return _existing(Path(f"{self.stats_path}.zip"))

    def statistics_file(self, model: Path) -> Path | None:
        """Return the VecNormalize statistics that a model of the run was saved with, or None if it uses none."""
        beside_best = _existing(self.folder / STATISTICS) if model.name == BEST_MODEL else None
        return beside_best or _existing(self.stats_path / STATISTICS)

    def evaluations(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the environment steps of evaluations, (K,), and the returns of their trials, (K, n), or None."""
        found = self._evaluations()[0]
        return (found["timesteps"], found["results"]) if found else None

    def returns_per_episode(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the steps of evaluations, (K,), and the mean return of an episode in their trials, (K, n), or None."""
        found, by_episode = self.evaluations(), self.history().get("returns")
        if found is None:
            return None
        steps, returns = found
        if by_episode is not None:  # validation trials may have another number of episodes than those of training
            return steps, by_episode.mean(axis=2)
        return steps, returns / (episodes_per_trial(self.env_id, self.env_kwargs) or 1)

    def history(self) -> dict[str, np.ndarray]:
        """Return the evaluations by episode, the arrays of :class:`AdaptationEvalCallback`; empty if there are none."""
        return self._evaluations()[1]

    def _evaluations(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return what the two files of evaluations hold about those that are in both; without one, all of the other."""
        found = _arrays(self.folder / "evaluations.npz", "evaluations: timesteps and results", "timesteps", "results")
        history = _arrays(self.folder / HISTORY, "evaluations by episode", "timesteps")
        if not (found and history):
            return found, history
        # One is written after the other: the run is just being trained, or was killed between them
        n = min(len(found["timesteps"]), len(history["timesteps"]))
        return (
            {key: found[key][:n] for key in ("timesteps", "results")},
            {key: each if key == "task_names" else each[:n] for key, each in history.items()},
        )

    def successes(self) -> np.ndarray | None:
        """Return the success in each episode of the evaluations' trials, (K, n, episodes), None if unknown."""
        return self.history().get("successes")
