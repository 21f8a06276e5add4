"""Result of an evaluation of adaptation: every reward, by task, episode and step."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.common.checks import check_int, check_number, check_path

if TYPE_CHECKING:
    import pandas as pd

#: Resamples of the bootstrap, and how many numbers (64 MB) to draw at a time
_N_RESAMPLES, _N_DRAWN = 9_999, 8_000_000


@dataclass(frozen=True)
class AdaptationResult:
    """
    Results of trials on T tasks, with E episodes of at most H steps each.

    :param env_id: Name of the environment
    :param tasks: The tasks, T of them; all None for T independent episodes of an environment without tasks
    :param rewards: Reward of each step, (T, E, H), NaN after an early end
    :param successes: Whether an episode was a success at any step, (T, E), or None if the environment does not report
        success
    :param infos: Further numbers of each step by name, (T, E, H) each
    :param split: ``"train"``, ``"validation"`` or ``"test"``
    :param held_out: Whether training never uses these tasks; None if that is unknown
    :param deterministic: Whether actions were deterministic
    :param seed: Seed of the evaluation
    """

    env_id: str
    tasks: list[Any]
    rewards: np.ndarray
    successes: np.ndarray | None = None
    infos: dict[str, np.ndarray] = field(default_factory=dict)
    split: str = "test"
    held_out: bool | None = None
    deterministic: bool = True
    seed: int = 0

    @property
    def returns(self) -> np.ndarray:
        """Sum of each episode's rewards, (T, E), NaN for an episode that was not played"""
        returns: np.ndarray = np.where(self.lengths > 0, np.nansum(self.rewards, axis=2), np.nan)
        return returns

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, (T, E)"""
        lengths: np.ndarray = np.sum(~np.isnan(self.rewards), axis=2)
        return lengths

    @property
    def mean_returns(self) -> np.ndarray:
        """Mean over tasks of each episode's return, (E,)"""
        means: np.ndarray = self.returns.mean(axis=0)
        return means

    def interval(self, confidence: float = 0.95) -> np.ndarray:
        """
        Return the percentile bootstrap interval of each episode's mean return over *tasks*. It describes how the mean
        varies with the tasks drawn, not with training seeds.

        :param confidence: Confidence level, between 0 and 1
        :return: Lower and upper end, (E, 2); NaN for a single task
        """
        return bootstrap_interval(self.returns, confidence, self.seed)

    @property
    def success_rates(self) -> np.ndarray | None:
        """Fraction of tasks with success in each episode, (E,)"""
        return None if self.successes is None else self.successes.mean(axis=0)

    @property
    def unit(self) -> str:
        """What the T rows are: ``"tasks"``, or ``"episodes"`` of an environment without tasks"""
        return "tasks" if has_tasks(self.tasks) else "episodes"

    def tasks_seen_in_training(self) -> str:
        """Return a sentence about whether the tasks, or the episodes, are new to the agent."""
        if not has_tasks(self.tasks):
            return "Initial states are drawn with a random generator that training does not use."
        if self.split == "train":
            return "Tasks are drawn as in training."
        if self.held_out is None:
            return "Tasks are drawn from the environment's distribution, with an independent random generator."
        if self.held_out:
            return f"Tasks are held out for {self.split}: training does not use them."
        return "The task set is too small to hold any out: training uses the same tasks."

    def to_frame(self) -> pd.DataFrame:
        """
        Return the results as a table.

        :return: One row for each task and episode (counted from 1): task, episode, return, length, success; without
            tasks, one row for each episode
        """
        import pandas as pd

        n_tasks, n_episodes = self.returns.shape
        if has_tasks(self.tasks):
            columns: dict[str, Any] = {
                "task": [str(task) for task in self.tasks for _ in range(n_episodes)],
                "episode": np.tile(np.arange(1, n_episodes + 1), n_tasks),
            }
        else:
            columns = {"episode": np.arange(1, n_tasks + 1)}
        columns |= {"return": self.returns.ravel(), "length": self.lengths.ravel()}
        if self.successes is not None:
            columns["success"] = self.successes.ravel()
        return pd.DataFrame(columns)

    def save(self, path: str | Path) -> None:
        """
        Save the results to a file that contains numbers and JSON, but no pickle.

        :param path: File to write, ``.npz``
        :raises TypeError: if ``path`` is not a path
        :raises OSError: if the file cannot be written
        """
        check_path("path", path)
        names = ("env_id", "split", "held_out", "deterministic", "seed")
        about = {name: getattr(self, name) for name in names}
        arrays: dict[str, Any] = {f"info_{key}": values for key, values in self.infos.items()}
        if self.successes is not None:
            arrays["successes"] = self.successes
        tasks = json.dumps(self.tasks, default=repr)
        with atomic_file(Path(path).resolve()) as file:  # NumPy would append a suffix to a path
            np.savez_compressed(file, rewards=self.rewards, tasks=tasks, about=json.dumps(about), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> AdaptationResult:
        """
        Load results from a file.

        :param path: File that :meth:`save` wrote
        :return: The same results; tasks other than numbers and tuples of numbers become text
        :raises TypeError: if ``path`` is not a path
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if :meth:`save` did not write the file, or if it is damaged
        """
        with open(check_path("path", path), "rb") as file:
            try:
                with np.load(file, allow_pickle=False) as data:
                    return cls._from_arrays({key: data[key] for key in data.files})
            except (ValueError, TypeError, AttributeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(
                    f"`path` must be a file that AdaptationResult.save wrote, got {str(path)!r}"
                ) from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, np.ndarray]) -> AdaptationResult:
        about = json.loads(str(arrays["about"]))
        infos = {key.removeprefix("info_"): values for key, values in arrays.items() if key.startswith("info_")}
        tasks = [_as_tuples(task) for task in json.loads(str(arrays["tasks"]))]
        return cls(tasks=tasks, rewards=arrays["rewards"], successes=arrays.get("successes"), infos=infos, **about)


def has_tasks(tasks: Sequence[Any]) -> bool:
    """Return whether these are the tasks of a family; those of an environment without tasks are all None."""
    return any(task is not None for task in tasks)


def bootstrap_interval(values: np.ndarray, confidence: float = 0.95, seed: int = 0) -> np.ndarray:
    """Return the percentile bootstrap interval of the mean over rows, (T, ...): (..., 2), NaN for a single row."""
    if not 0 < check_number("confidence", confidence) < 1:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence}")
    check_int("seed", seed)
    if len(values) < 2:
        return np.full((*values.shape[1:], 2), np.nan)
    from scipy import stats  # 60 MB that loading an agent does not need

    rng = np.random.default_rng(seed)
    found = stats.bootstrap(
        (values,),
        np.mean,
        axis=0,
        confidence_level=confidence,
        method="percentile",
        n_resamples=_N_RESAMPLES,
        batch=max(1, _N_DRAWN // max(1, values.size)),  # all at once need gigabytes for thousands of tasks
        rng=rng,
    )
    return np.stack(found.confidence_interval, axis=-1)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
