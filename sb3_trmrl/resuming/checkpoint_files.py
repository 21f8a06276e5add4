"""
Checkpoints on disk.

A checkpoint is a zip that SB3's ``load`` accepts, with one additional member: the training state. Both contain pickles:
only load checkpoints that you trust.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_trmrl.common.atomic_file import atomic_file
from sb3_trmrl.common.checks import check_path
from sb3_trmrl.resuming.training_state import TrainingState

_STATE = "training_state.pkl"
#: Increased whenever older versions of the package could not read what newer ones write
_FORMAT = 3
#: Readable formats. Format 2 stores only one rank
_READABLE = (2, 3)
_NAME = re.compile(r"checkpoint_(\d+)_steps\.zip")


def checkpoints_in(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, the newest one last."""
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=steps_of)


def steps_of(checkpoint: Path) -> int:
    """Return the number of training steps in the name of a checkpoint."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def checkpoint_path(folder: Path, model: BaseAlgorithm) -> Path:
    """Return the path of the next checkpoint."""
    return folder / f"checkpoint_{model.num_timesteps}_steps.zip"


def write_checkpoint(path: Path, model: BaseAlgorithm, state: TrainingState) -> None:
    """Write a checkpoint, which is complete and on the disk when this function returns."""
    try:
        with atomic_file(path) as file:
            model.save(file)  # type: ignore[arg-type]
            with zipfile.ZipFile(file, "a") as archive, archive.open(_STATE, "w", force_zip64=True) as member:
                _pickle({"format": _FORMAT, **state._asdict()}, member)
    except OSError as error:
        older = checkpoints_in(path.parent) if path.parent.is_dir() else []
        kept = f"the last one, {older[-1]}, is intact" if older else "there is no earlier one"
        raise OSError(error.errno, f"cannot write the checkpoint {path} ({error.strerror}); {kept}") from error


def _pickle(content: dict[str, Any], file: IO[bytes]) -> None:
    """Write the content, which may be as large as a replay buffer, without another copy of it in memory."""
    try:
        pickle.dump(content, file)
    except OSError:
        raise
    except Exception as error:  # any type of exception is possible
        raise TypeError(f"state_dict() of the environment must return a picklable object: {error}") from error


def find_checkpoint(path: str | Path) -> Path:
    """Return a checkpoint, or the newest intact one in a folder, after comparing its checksums."""
    path = check_path("path", path)
    if not path.exists():
        raise FileNotFoundError(f"`path` {str(path)!r} is neither a checkpoint nor a folder of checkpoints")
    for checkpoint in [path] if path.is_file() else reversed(checkpoints_in(path)):
        problem = _damage(checkpoint)
        if not problem:
            return checkpoint
        if checkpoint is path:
            raise ValueError(f"`path` must be a checkpoint, or a folder of checkpoints; {path} {problem}")
        warnings.warn(f"{checkpoint} {problem}: using the one before it", UserWarning, stacklevel=2)
    raise FileNotFoundError(f"`path` {str(path)!r} holds no intact checkpoint (checkpoint_*_steps.zip)")


def read_training_state(checkpoint: Path) -> TrainingState:
    """Read the training state from an intact checkpoint."""
    with zipfile.ZipFile(checkpoint) as archive:
        content = pickle.loads(archive.read(_STATE))
    written = content.pop("format")
    if written not in _READABLE:
        readable = " or ".join(map(str, _READABLE))
        raise ValueError(f"`path` must be a checkpoint of format {readable}, {checkpoint} has format {written}")
    state = TrainingState(**content)
    return state._replace(log_files={str(checkpoint.parent / path): size for path, size in state.log_files.items()})


def _damage(path: Path) -> str:
    """Return what is wrong with a file, or an empty string."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # verifies checksums
            if broken is not None:
                return f"is damaged in {broken}"
            if _STATE not in archive.namelist():
                return f"has no {_STATE}: it was truncated, or it is a model that was not saved as a checkpoint"
            return ""
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        return f"is not an intact zip file ({error})"
