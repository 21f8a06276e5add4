"""Run the trainings of an experiment, each in its own process, several at a time. What is finished is not repeated."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Generator, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import torch as th

import sb3_trmrl
from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.resuming.checkpoint_files import find_checkpoint
from sb3_trmrl.zoo.experiment_file import Training
from sb3_trmrl.zoo.interruption import sigterm_interrupts
from sb3_trmrl.zoo.run_lock import RunLock
from sb3_trmrl.zoo.runs import CHECKPOINTS, UNFINISHED

#: Settings, versions and machine of a run, in its log folder, and the output of `train`
RECORD, LOG = "run.json", "train.log"
#: Key of the record: versions and machines that resumed the run and differ from those it began with
RESUMED_WITH = "resumed with"
#: Number of lines of the log that an error shows
_N_LINES = 5


class State(Enum):
    """State of a training; the values are shown to the user."""

    FINISHED = "finished"
    RESUMABLE = "interrupted, continues from a checkpoint"
    INTERRUPTED = "interrupted, starts again"
    MISSING = "missing"
    ELSEWHERE = "trained by another process"


class Outcome(NamedTuple):
    """A training that has ended, and why it failed: an empty text on success."""

    training: Training
    problem: str


def run_folder(training: Training) -> Path | None:
    """Return the folder of the run that ``train`` made, None if training has not begun."""
    found = sorted(training.folder.glob("*/*/*/args.yml"))
    return found[-1].parents[1] if found else None


def record_of(training: Training) -> dict[str, Any] | None:
    """Return the record of a training, None if it has not been started."""
    path = training.folder / RECORD
    record: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return record


def other_settings(training: Training) -> str:
    """Return how the settings of an existing run differ from those of the file, an empty text if they do not."""
    record = record_of(training)
    asked = json.loads(json.dumps(training.settings, default=str))
    found = asked if record is None else record["settings"]
    return ", ".join(_differences(found, asked))


class _NotSet:
    """In place of a setting that is missing, which may not be the same as null."""

    def __repr__(self) -> str:
        return "not set"


_NOT_SET = _NotSet()


def _differences(found: Any, asked: Any, name: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*found, *asked]):
            own = found.get(key, _NOT_SET), asked.get(key, _NOT_SET)
            yield from _differences(*own, f"{name}.{key}" if name else key)
    elif found != asked:
        yield f"{name}={found!r} instead of {asked!r}"


def state_of(training: Training) -> State:
    """
    Return the state of a training.

    :raises ValueError: if there is a run with other settings, or a folder that is not that of a run
    """
    return State.ELSEWHERE if _is_locked(training.folder) else _state_of_own(training)


def _is_locked(folder: Path) -> bool:
    try:
        if folder.is_dir():
            RunLock(folder).release()
    except ValueError:
        return True
    return False


def _state_of_own(training: Training) -> State:
    """Return the state of a training that no other process has been asked to run."""
    folder = run_folder(training)
    if record_of(training) is None:
        if training.folder.is_dir() and any(path.is_dir() for path in training.folder.iterdir()):
            raise ValueError(f"{training.folder} is not a run of an experiment, as it has no {RECORD}: remove it")
        return State.MISSING
    if folder is None:  # it failed before training began, maybe because of its settings
        return State.INTERRUPTED
    different = other_settings(training)
    if different:
        raise ValueError(
            f"{training.folder} holds a run with {different}: remove the folder, or choose another one with --folder"
        )
    # A training outlives the process that started it if that is killed
    return State.ELSEWHERE if _is_locked(folder) else _state_of_run(training)


def is_finished(training: Training) -> bool:
    """Return whether the run has made all of its steps."""
    return _state_of_run(training) is State.FINISHED


def _state_of_run(training: Training) -> State:
    folder = run_folder(training)
    if folder is None:
        return State.INTERRUPTED
    if _steps_of_model(folder) >= training.n_timesteps and not (folder / UNFINISHED).exists():
        return State.FINISHED
    try:
        find_checkpoint(folder / CHECKPOINTS)
    except (FileNotFoundError, ValueError):
        return State.INTERRUPTED
    return State.RESUMABLE


def _steps_of_model(folder: Path) -> int:
    """Return the number of steps of the model that a run saved at its end or when interrupted, 0 if it is missing."""
    for path in folder.glob("*/args.yml"):
        try:
            with zipfile.ZipFile(f"{path.parent}.zip") as archive:
                return int(json.loads(archive.read("data"))["num_timesteps"])
        except (OSError, zipfile.BadZipFile, KeyError, ValueError):  # missing, or the process died while writing
            return 0
    return 0


def command_of(training: Training, state: State, num_threads: int, checkpoint_freq: int) -> list[str]:
    """Return the command that trains or resumes, to be run by the current Python."""
    train = ["-m", "sb3_trmrl", "train"]
    folder = run_folder(training)
    if state is State.RESUMABLE and folder is not None:
        return [*train, "--resume", str(folder)]
    options = ["--num-threads", str(num_threads), "--checkpoint-freq", str(checkpoint_freq)]
    return [*train, *training.arguments, *options, "--log-folder", str(training.folder)]


def run_trainings(
    trainings: Sequence[Training], jobs: int, num_threads: int, checkpoint_freq: int
) -> Generator[Outcome, None, None]:
    """
    Train what is not finished, ``jobs`` runs at a time, and yield each run when its process has ended. Runs that are
    trained by another process are left out. If this process is interrupted, so are the trainings.
    """
    waiting = list(trainings)
    running: list[_Process] = []
    try:
        with sigterm_interrupts():
            while waiting or running:
                while waiting and len(running) < jobs:
                    process = _start(waiting.pop(0), num_threads, checkpoint_freq)
                    running += [process] if process is not None else []
                ended = [process for process in running if process.process.poll() is not None]
                for process in ended:
                    running.remove(process)
                    yield process.finish()
                if not ended:
                    time.sleep(0.1)
    finally:
        for process in running:
            process.process.terminate()
        for process in running:
            process.process.wait()
            process.lock.release()


class _Process(NamedTuple):
    """A training that is running, and the lock that keeps other processes from starting it."""

    training: Training
    process: subprocess.Popen[bytes]
    lock: RunLock

    def finish(self) -> Outcome:
        """Return the outcome of the training, whose process has ended."""
        self.lock.release()
        if self.process.returncode == 0 and _state_of_run(self.training) is State.FINISHED:
            return Outcome(self.training, "")
        log = self.training.folder / LOG
        if self.process.returncode == 0:
            return Outcome(self.training, f"it ended before its {self.training.n_timesteps:,} steps, see {log}")
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_N_LINES:])
        return Outcome(self.training, f"exit status {self.process.returncode}, see {log}:\n{tail}")


def _start(training: Training, num_threads: int, checkpoint_freq: int) -> _Process | None:
    """Start a training, unless it is finished or another process has started it."""
    training.folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = RunLock(training.folder)
    except ValueError:
        return None
    state = _state_of_own(training)  # another process may have ended it since the trainings were listed
    if state in (State.FINISHED, State.ELSEWHERE):
        lock.release()
        return None
    command = [sys.executable, *command_of(training, state, num_threads, checkpoint_freq)]
    if state is not State.RESUMABLE:
        for path in training.folder.iterdir():  # what an interrupted run has left
            if path.is_dir():
                shutil.rmtree(path)
        record = {"settings": training.settings, "command": shlex.join(command[1:]), "with": about_this_machine()}
        _write_record(training, record)
    else:
        _add_this_machine(training)
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
    with (training.folder / LOG).open("ab" if state is State.RESUMABLE else "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    return _Process(training, process, lock)


def _write_record(training: Training, record: dict[str, Any]) -> None:
    with atomic_file(training.folder / RECORD) as file:
        file.write(json.dumps(record, indent=2, default=str).encode())


def _add_this_machine(training: Training) -> None:
    """Add this machine to the record of a run that is resumed, if it is another one or has other versions."""
    record, machine = record_of(training) or {}, about_this_machine()
    others = record.get(RESUMED_WITH, [])
    if machine not in [record.get("with"), *others]:
        _write_record(training, {**record, RESUMED_WITH: [*others, machine]})


def about_this_machine() -> dict[str, Any]:
    """Return the versions and the number of CPUs that results and times depend on."""
    return {
        "sb3_trmrl": sb3_trmrl.__version__,
        "commit": _commit(),
        "torch": th.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }


def _commit() -> str | None:
    """Return the commit of a checkout, with "-dirty" if files differ from it; None for an installed package."""
    root = Path(sb3_trmrl.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
