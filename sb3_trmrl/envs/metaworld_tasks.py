"""
MetaWorld's lists of tasks, cached on disk because MetaWorld takes about half a minute to create those of ML45.

The lists are those of ``metaworld.ML1``, ``ML10`` and ``ML45``, unchanged. A cached file is used only if it was created
with the installed version of MetaWorld and its hash is correct.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_trmrl.common.atomic_file import atomic_file

#: Environment variable for the folder of the lists, instead of the user's cache folder
CACHE_VARIABLE = "SB3_TRMRL_CACHE"
#: Benchmark seeds are below this number, and it is added to the seed for the validation goals. The lists of consecutive
#: seeds overlap: ML1's test goals of seed s are the training goals of seed s + 1.
VALIDATION_SEED_OFFSET = 1_000_000
_SPLITS = ("train", "test")
#: Classes whose ``rand_vec`` is the initial position of the object (3) and the goal (3)
RECOMBINABLE = ("reach-v3", "push-v3", "pick-place-v3")
#: Number of recombined training tasks
N_RECOMBINED = 5_000
#: MetaWorld's least horizontal distance between object and goal in these classes, in metres
_MIN_DISTANCE = 0.15


class MetaWorldTask(NamedTuple):
    """A task of MetaWorld. Tasks are compared by value and are immutable; a copy is the same object."""

    name: str  # name of its class, for example ``"reach-v3"``
    rand_vec: tuple[float, ...]  # drawn at random, usually the initial position of the object and the goal, in metres

    # Vectorised environments deep-copy every info
    def __deepcopy__(self, memo: dict[int, Any]) -> MetaWorldTask:
        return self


@dataclass(frozen=True)
class TaskLists:
    """Training and test tasks of one benchmark, 50 of each class, in MetaWorld's order."""

    train: tuple[MetaWorldTask, ...]
    test: tuple[MetaWorldTask, ...]

    @cached_property
    def all(self) -> frozenset[MetaWorldTask]:
        """Every task of both lists"""
        return frozenset(self.train + self.test)


def class_names(tasks: Iterable[MetaWorldTask]) -> list[str]:
    """Return the names of the tasks' classes, in the order of their first appearance."""
    return list(dict.fromkeys(task.name for task in tasks))


@lru_cache(maxsize=16)
def task_lists(benchmark: str, seed: int, task_name: str | None = None) -> TaskLists:
    """Return a benchmark's tasks, from memory or disk, or make them and write them to the disk."""
    name = "-".join([benchmark, *([task_name] if task_name else []), f"seed{seed}", version("metaworld")])
    path = cache_folder() / "metaworld" / f"{name}.json"
    lists = _read(path)
    if lists is None:
        duration = " (half a minute)" if benchmark == "ML45" else ""
        print(f"Creating MetaWorld's task list {name}{duration}, only this once", file=sys.stderr)
        lists = _make(benchmark, seed, task_name)
        _write(path, lists)
    return lists


@lru_cache(maxsize=16)
def recombined(lists: TaskLists) -> TaskLists:
    """
    Return 5,000 training tasks whose numbers are drawn independently from the 50 training tasks. Tasks that MetaWorld
    would reject are left out. MetaWorld draws the numbers independently too, from uniform distributions.
    """
    numbers = np.array([task.rand_vec for task in lists.train])
    rng = np.random.default_rng(0)
    found: dict[MetaWorldTask, None] = {}
    while len(found) < N_RECOMBINED:
        vector = numbers[rng.integers(len(numbers), size=numbers.shape[1]), np.arange(numbers.shape[1])]
        if not np.linalg.norm(vector[:2] - vector[3:5]) < _MIN_DISTANCE:
            found[MetaWorldTask(lists.train[0].name, tuple(vector.tolist()))] = None
    return TaskLists(tuple(found), lists.test)


def cache_folder() -> Path:
    """Return ``SB3_TRMRL_CACHE`` if it is set, otherwise a folder in ``XDG_CACHE_HOME`` or the platform's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "sb3_trmrl"


def _make(benchmark: str, seed: int, task_name: str | None) -> TaskLists:
    import metaworld

    made = getattr(metaworld, benchmark)(*([task_name] if task_name else []), seed=seed)
    return TaskLists(*(tuple(map(_unpack, tasks)) for tasks in (made.train_tasks, made.test_tasks)))


def _unpack(task: Any) -> MetaWorldTask:
    """Return what differs between tasks in a ``metaworld.Task``: name, and pickled class, vector and observability."""
    return MetaWorldTask(task.env_name, tuple(pickle.loads(task.data)["rand_vec"].tolist()))


def _digest(tasks: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tasks).encode()).hexdigest()


def _read(path: Path) -> TaskLists | None:
    """Return the lists in a file of the cache, or None if it does not exist or is damaged."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tasks = content["tasks"]
        if content["key"] != path.stem or content["sha256"] != _digest(tasks):
            raise ValueError("its hash is wrong")
        return TaskLists(*(tuple(MetaWorldTask(name, tuple(vector)) for name, vector in tasks[k]) for k in _SPLITS))
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"The task list in {path} is damaged and will be created again: {error!r}", stacklevel=3)
        return None


def _write(path: Path, lists: TaskLists) -> None:
    tasks = {"train": lists.train, "test": lists.test}
    content = {"key": path.stem, "sha256": _digest(tasks), "tasks": tasks}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:  # processes that start at the same time never read half a file
            file.write(json.dumps(content).encode())
    except OSError as error:
        warnings.warn(f"Cannot cache the task list: {error}; set {CACHE_VARIABLE}", stacklevel=3)
