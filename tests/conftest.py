"""Fixtures that several test files use."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch as th

from tests.helpers.zoo import ENV, NORMALIZE, TINY, train

#: Goals of each class in ML1, and in ML10 and ML45: enough for 20 held-out tasks of one class, and of five
N_GOALS, N_GOALS_OF_MANY = 20, 4

# Ranks, and workers of SubprocVecEnv, are forked from a process that has imported what takes seconds. Our own package
# is not in the list, because some tests are about its import in a worker.
multiprocessing.set_forkserver_preload(["torch._dynamo", "sb3_contrib", "scipy.stats", "rl_zoo3.train", "pytest"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, which is faster for tiny models."""
    threads = th.get_num_threads()
    th.set_num_threads(1)
    yield
    th.set_num_threads(threads)


@pytest.fixture(scope="session")
def task_list_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of MetaWorld's task lists, the same for all processes of pytest-xdist"""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "task_lists"


@pytest.fixture(scope="module")
def few_goals(task_list_folder: Path) -> Iterator[None]:
    """Let MetaWorld draw fewer than its 50 goals of each class, and share the lists between test files."""
    metaworld = pytest.importorskip("metaworld")
    from sb3_trmrl.envs import metaworld_tasks
    from sb3_trmrl.envs.metaworld_tasks import TaskLists, task_lists

    make = metaworld_tasks._make

    def make_few(benchmark: str, seed: int, task_name: str | None) -> TaskLists:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metaworld, "_N_GOALS", N_GOALS if benchmark == "ML1" else N_GOALS_OF_MANY)
            return make(benchmark, seed, task_name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metaworld, "_N_GOALS", N_GOALS)
        patch.setattr(metaworld_tasks, "_make", make_few)
        patch.setenv("SB3_TRMRL_CACHE", str(task_list_folder))
        task_lists.cache_clear()
        yield
        task_lists.cache_clear()


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log folder with two seeds of each of two algorithms, with normalised observations"""
    folder = tmp_path_factory.mktemp("logs")
    settings = ["-n", "80", "--eval-freq", "40", "--env-kwargs", "episodes_per_trial:2"]
    for algo in ("trmrl", "ppo_lstm"):
        for seed in ("0", "1"):
            train(folder, "--algo", algo, "--seed", seed, *settings, params=[*TINY, NORMALIZE])
    return folder


@pytest.fixture(scope="session")
def run(logs: Path) -> Path:
    """The first run of TransformerPPO"""
    return logs / "trmrl" / f"{ENV}_1"


@pytest.fixture
def killed(run: Path, tmp_path: Path) -> Path:
    """Copy of the run without the model at the end of training"""
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    (copy / f"{ENV}.zip").unlink()
    return copy
