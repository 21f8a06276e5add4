"""Fixtures that several test files use."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch as th

from tests.helpers.zoo import ENV, NORMALIZE, TINY, train

N_GOALS = 20


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, which is faster for tiny models."""
    threads = th.get_num_threads()
    th.set_num_threads(1)
    yield
    th.set_num_threads(threads)


@pytest.fixture(scope="module")
def few_goals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let MetaWorld draw 20 goals of each class instead of 50, and store their lists in a temporary folder."""
    metaworld = pytest.importorskip("metaworld")
    from sb3_trmrl.envs.metaworld_tasks import task_lists

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metaworld, "_N_GOALS", N_GOALS)
        patch.setenv("SB3_TRMRL_CACHE", str(tmp_path_factory.mktemp("cache")))
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
