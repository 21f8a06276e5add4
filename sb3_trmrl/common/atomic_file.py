"""Atomic writes: a file is either complete or absent."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that gets its name only once it is complete and flushed to disk."""
    # Until then, an existing file of that name is left unchanged, even if an error occurs or the process dies. In the
    # same folder, where renaming is atomic. Nobody can foresee the name and place a link there
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            if path.exists():
                temporary.chmod(path.stat().st_mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_place(path: Path) -> Path:
    """Create the folder of a file to be written, and return the file that ``path`` points to."""
    # Symbolic links are resolved, so that they remain links when the file is replaced
    try:
        target = path.resolve()
    except RuntimeError as error:  # before Python 3.13
        raise OSError(errno.ELOOP, f"the link {path} leads to itself") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError("it is a folder")
    return target


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove incomplete files of processes that died while writing; ``pattern`` matches the final names."""
    for path in folder.glob(f".{pattern}.*.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
