"""Runs of a few dozen steps through the command line, in this process."""

from pathlib import Path
from typing import Any

import pytest

from sb3_trmrl.__main__ import main

#: An exported agent
DEMO = str(Path(__file__).parents[2] / "docs" / "demo" / "HalfCheetahVel-v0.safetensors")
ENV = "BernoulliBandit-v0"
TINY = ["n_envs:2", "n_steps:20", "batch_size:20", "n_epochs:1"]
NORMALIZE = "normalize:dict(norm_obs=True,norm_reward=False)"


def train(folder: Path, *arguments: str, params: list[str] = TINY, env: str = ENV) -> Path:
    """Train with these arguments and hyperparameters, and return the folder of the run."""
    before = set(folder.glob("*/*"))
    hyperparams = ["-params", *params] if params else []
    assert main(["train", "--env", env, "-f", str(folder), "--seed", "3", *arguments, *hyperparams]) == 0
    (run,) = {path for path in folder.glob("*/*") if path.is_dir()} - before
    return run


def error_of(arguments: list[Any], capsys: Any) -> str:
    """Return the error message of a command that must refuse its arguments, without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    error: str = capsys.readouterr().err
    assert "Traceback" not in error
    return " ".join(error.split("error:")[-1].split())


def assert_picture(path: Path) -> None:
    """There is a picture, wide enough to read, with something drawn on it."""
    from matplotlib.image import imread  # part of the extra

    picture = imread(path)[..., :3]
    assert picture.shape[1] >= 800
    inked = picture.min(axis=-1) < 0.95
    assert inked.mean() > 0.01
    assert inked.any(axis=0).mean() > 0.5 and inked.any(axis=1).mean() > 0.3
