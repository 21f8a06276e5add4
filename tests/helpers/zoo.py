"""Runs of a few dozen steps through the command line, in this process."""

from pathlib import Path

from sb3_trmrl.__main__ import main

TINY = ["n_envs:2", "n_steps:20", "batch_size:20", "n_epochs:1"]


def train(folder: Path, *arguments: str, params: list[str] = TINY, env: str = "BernoulliBandit-v0") -> Path:
    """
    :param folder: Where logs go
    :param arguments: Of the command line
    :param params: Hyperparameters instead of the recommended ones
    :param env: Environment
    :return: Folder of the run
    """
    before = set(folder.glob("*/*"))
    hyperparams = ["-params", *params] if params else []
    assert main(["train", "--env", env, "-f", str(folder), "--seed", "3", *arguments, *hyperparams]) == 0
    (run,) = {path for path in folder.glob("*/*") if path.is_dir()} - before
    return run
