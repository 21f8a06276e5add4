"""Runs that the tests of several commands share."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.zoo import ENV, NORMALIZE, TINY, train


@pytest.fixture(scope="session")
def logs(tmp_path_factory: Any) -> Path:
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
    copy = tmp_path / f"{ENV}_1"
    shutil.copytree(run, copy)
    (copy / f"{ENV}.zip").unlink()
    return copy
