"""Runs killed with signal 9 while collecting, updating and writing, resumed, and compared with one that was not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sb3_trmrl import TransformerPPO
from sb3_trmrl.resuming.checkpoint_files import checkpoints_in
from tests.helpers.resuming import assert_same, assert_same_files, everything_learned

pytestmark = pytest.mark.slow

ENV = "HalfCheetahVel-v0"
OPTIONS = ("--env", ENV, "--seed", "3", "-n", "60000", "--eval-freq", "800", "--checkpoint-freq", "8000")
ARGUMENTS = (*OPTIONS, "--env-kwargs", "horizon:50", "--verbose", "0")

#: The command line, in a process that kills itself at some point
KILLING = """
import os, signal, sys
from sb3_trmrl.__main__ import main
from sb3_trmrl.common import atomic_file
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer

where, after, calls = sys.argv[1], int(sys.argv[2]), 0

def dying(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

owner, name = {
    "collecting": (WindowRolloutBuffer, "add"),
    "updating": (WindowRolloutBuffer, "_get_samples"),
    "writing": (os, "fsync"),  # the content is written but not synced, and has no name
    "renaming": (atomic_file, "_sync_folder"),  # everything is written, and the old checkpoints still exist
}[where]
setattr(owner, name, dying(getattr(owner, name)))
main(sys.argv[3:])
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sb3_trmrl", "train", *arguments]


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(arguments, cwd=folder, env=environment, stdout=quiet, stderr=quiet)


def run(arguments: list[str], folder: Path) -> int:
    with start(arguments, folder) as process:
        return process.wait()


def found_in(folder: Path) -> list[Path]:
    return checkpoints_in(folder / "checkpoints") if (folder / "checkpoints").is_dir() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert run(command(*ARGUMENTS), folder) == 0
    return folder / "logs" / "trmrl" / f"{ENV}_1"


def assert_same_runs(first: Path, second: Path) -> None:
    for name in (f"{ENV}.zip", "best_model.zip"):
        learned = [everything_learned(TransformerPPO.load(folder / name)) for folder in (first, second)]
        for key in ("parameters", "optimizer", "episodes"):
            assert_same(*(each[key] for each in learned))
    assert_same_files(first, second)
    assert all(len(file.read_text().splitlines()) > 3 for file in first.glob("*.monitor.csv"))


@pytest.mark.parametrize(
    "where, after",
    [
        ("collecting", 1_450),  # calls of `add`, 400 of them in a rollout
        ("updating", 700),  # minibatches, 160 of them in an update
        ("writing", 4),  # files and folders synced, among them those of earlier checkpoints
        ("renaming", 2),
    ],
)
def test_killed_at(where: str, after: int, whole: Path, tmp_path: Path) -> None:
    killed = [sys.executable, "-c", KILLING, where, str(after), "train", *ARGUMENTS]
    assert run(killed, tmp_path) == -9
    dead = tmp_path / "logs" / "trmrl" / f"{ENV}_1"
    assert checkpoints_in(dead / "checkpoints") and not (dead / f"{ENV}.zip").exists()
    assert run(command("--resume", str(dead)), tmp_path) == 0
    assert_same_runs(whole, dead)


def test_killed_from_outside_again_and_again(whole: Path, tmp_path: Path) -> None:
    """The run and each resumed run are killed at any moment, until one reaches the end."""
    rng = np.random.default_rng(0)
    dead = tmp_path / "logs" / "trmrl" / f"{ENV}_1"
    kills = 0
    while not (dead / f"{ENV}.zip").exists():
        before = found_in(dead)[-1:]
        with start(command("--resume", str(dead)) if before else command(*ARGUMENTS), tmp_path) as process:
            # Kill it shortly after it has written a checkpoint
            while process.poll() is None and kills < 4:
                if found_in(dead)[-1:] != before:
                    time.sleep(rng.uniform(0, 3))
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.1)
            code = process.wait()
        assert code in (0, -9)
    assert kills >= 2
    assert_same_runs(whole, dead)
