"""What rl-zoo3 leaves in the folder of a run: models, statistics, arguments, evaluations."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sb3_trmrl.evaluation.callbacks import HISTORY
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, has_splits, n_tasks_in_turn
from sb3_trmrl.zoo.error_origin import is_of_users_code

#: Files of a run
INITIAL_MODEL = "initial_model.zip"
BEST_MODEL = "best_model.zip"
STATISTICS = "vecnormalize.pkl"
#: What an interrupted run goes on from: a folder of checkpoints, and what the user gave on the command line
CHECKPOINTS = "checkpoints"
COMMAND_LINE = "command_line.json"
#: What the option for modules that register environments needs, with a place for one that is not there
NEEDS_PACKAGES = "--gym-packages must be modules that can be imported, got {!r}"


@contextmanager
def file_errors(path: str | Path, content: str) -> Iterator[None]:
    """
    Files that are damaged, or hold something else, fail in many ways.

    :param path: File that is read
    :param content: What it has to hold
    :raises ValueError: naming the file, if it cannot be read as that
    """
    try:
        yield
    except Exception as error:
        if is_of_users_code(error):  # a class of the user's that is loaded from it
            raise
        raise ValueError(f"{str(path)!r} must hold {content}, it cannot be read: {error!r}") from error


def import_packages(names: Iterable[str], message: str) -> None:
    """
    :param names: Modules that register environments
    :param message: Of the error, with a place for the module's name
    :raises ImportError: if there is no such module; one that fails in itself raises what it will
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if is_of_users_code(error):
                raise
            raise ImportError(f"{message.format(name)}: {error}") from error


class Run:
    """
    The folder of a run.

    :param folder: For example ``logs/trmrl/HalfCheetahVel-v0_1``
    :raises FileNotFoundError: if it is not the folder of a run
    :raises ValueError: if its arguments cannot be read
    :raises ImportError: if a module that it was trained with is not there
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        found = sorted(self.folder.glob("*/args.yml"))
        if not found:
            raise FileNotFoundError(f"{str(folder)!r} is not the folder of a run: there is no */args.yml in it")
        self.stats_path = found[0].parent
        with file_errors(found[0], "the arguments of a run: algo, env, seed and env_kwargs"):
            # The zoo writes Python objects and reads them like this.
            arguments = yaml.load(found[0].read_text(), Loader=yaml.UnsafeLoader)
            self.algo: str = arguments["algo"]
            self.env_id: str = arguments["env"]
            self.seed: int = arguments["seed"]
            self.env_kwargs: dict[str, Any] = arguments["env_kwargs"] or {}
            gym_packages = arguments.get("gym_packages") or ()
        import_packages(gym_packages, "the run needs the module {!r}, which cannot be imported from here")
        self.has_splits = has_splits(self.env_id)

    @cached_property
    def n_test_tasks(self) -> int:
        """Number of the environment's test tasks; without splits, of episodes. Counted in an environment made for it"""
        return (
            n_tasks_in_turn(self.env_id, {**self.env_kwargs, "split": "test"}) if self.has_splits else N_HELD_OUT_TASKS
        )

    @property
    def best_model(self) -> Path | None:
        """The model chosen on validation tasks, if evaluation was on"""
        path = self.folder / BEST_MODEL
        return path if path.is_file() else None

    @property
    def last_model(self) -> Path | None:
        """The model at the end of training, if it came to that"""
        path = Path(f"{self.stats_path}.zip")
        return path if path.is_file() else None

    def statistics_of(self, model: Path) -> Path | None:
        """
        :param model: Zip of one of the run's models
        :return: The file with the statistics of VecNormalize that it acted with, if it is used
        """
        beside_best, of_run = self.folder / STATISTICS, self.stats_path / STATISTICS
        if model.name == BEST_MODEL and beside_best.is_file():
            return beside_best
        return of_run if of_run.is_file() else None

    def evaluations(self) -> tuple[np.ndarray, np.ndarray] | None:
        """
        :return: Steps of the evaluations during training, (K,), and the returns of their episodes, (K, n), if any
        """
        path = self.folder / "evaluations.npz"
        if not path.is_file():
            return None
        with file_errors(path, "evaluations: timesteps and results"), np.load(path) as data:
            return data["timesteps"], data["results"]

    def successes(self) -> np.ndarray | None:
        """
        :return: Whether there was success in each episode of the trials of these evaluations, (K, n, episodes), if the
            environment tells
        """
        path = self.folder / HISTORY
        if not path.is_file():
            return None
        with file_errors(path, "evaluations by episode"), np.load(path) as data:
            successes: np.ndarray | None = data.get("successes")
            return successes
