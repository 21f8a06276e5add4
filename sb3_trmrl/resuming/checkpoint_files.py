"""
Checkpoints on disk. A checkpoint is a zip that any SB3 model would be loaded from, with one member more: the training
state. Both hold pickles: only load those that you trust.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
import zlib
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.common.checks import check_path
from sb3_trmrl.resuming.training_state import TrainingState

_STATE = "training_state.pkl"
#: Raised when an older version of this package could not go on from what a newer one writes
_FORMAT = 1
_NAME = re.compile(r"checkpoint_(\d+)_steps\.zip")


def checkpoints_in(folder: Path) -> list[Path]:
    """
    :param folder: Folder
    :return: Its checkpoints, the newest last
    """
    found = {path: match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1]))


def steps_of(checkpoint: Path) -> int:
    """
    :param checkpoint: One of :func:`checkpoints_in`
    :return: Steps that the model had made
    """
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def write_checkpoint(folder: Path, model: BaseAlgorithm, state: TrainingState) -> Path:
    """
    :param folder: Where to
    :param model: Model
    :param state: State of its training
    :return: The file, which is whole and on the disk
    :raises OSError: naming the file and what went wrong; older checkpoints are as they were
    """
    path = folder / f"checkpoint_{model.num_timesteps}_steps.zip"
    content = io.BytesIO()
    model.save(content)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(_STATE, pickle.dumps({"format": _FORMAT, **state._asdict()}))
    try:
        with atomic_file(path) as file:
            file.write(content.getbuffer())
    except OSError as error:
        older = checkpoints_in(folder) if folder.is_dir() else []
        kept = f"the last one, {older[-1]}, is intact" if older else "there is none yet"
        raise OSError(error.errno, f"cannot write the checkpoint {path} ({error.strerror}); {kept}") from error
    return path


def find_checkpoint(path: str | Path) -> Path:
    """
    :param path: A checkpoint, or a folder of checkpoints
    :return: The checkpoint, of a folder the newest one that is whole
    :raises FileNotFoundError: if there is none
    :raises ValueError: if the file is no checkpoint, or damaged
    """
    path = check_path("path", path)
    if path.is_file():
        problem = _damage(path)
        if problem:
            raise ValueError(f"`path` must be a checkpoint, or a folder of checkpoints; {path} {problem}")
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"`path` {str(path)!r} is neither a checkpoint nor a folder of checkpoints")
    for checkpoint in reversed(checkpoints_in(path)):
        problem = _damage(checkpoint)
        if not problem:
            return checkpoint
        warnings.warn(f"{checkpoint} {problem}: taking the one before it", UserWarning, stacklevel=2)
    raise FileNotFoundError(f"`path` {str(path)!r} holds no whole checkpoint (checkpoint_*_steps.zip)")


def read_training_state(checkpoint: Path) -> TrainingState:
    """
    :param checkpoint: What :func:`find_checkpoint` returned
    :return: The training state in it
    :raises ValueError: if another version of this package wrote it
    """
    with zipfile.ZipFile(checkpoint) as archive:
        content = pickle.loads(archive.read(_STATE))
    written = content.pop("format")
    if written != _FORMAT:
        raise ValueError(f"`path` must be a checkpoint of format {_FORMAT}, {checkpoint} has format {written}")
    state = TrainingState(**content)
    return state._replace(log_files={str(checkpoint.parent / path): size for path, size in state.log_files.items()})


def _damage(path: Path) -> str:
    """
    :param path: File
    :return: What is wrong with it, or nothing
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # compares checksums
            if broken is not None:
                return f"is damaged in {broken}"
            return (
                ""
                if _STATE in archive.namelist()
                else f"has no {_STATE}: it was cut off, or is a model that was saved otherwise"
            )
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        return f"is no whole zip ({error})"
