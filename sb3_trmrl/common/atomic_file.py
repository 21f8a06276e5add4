"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """
    A file to write to that takes its name only when it is whole and on the disk; until then, and if an error or the
    death of the process comes between, one that had the name stays as it was.

    :param path: The file's name
    :return: What to write to
    :raises OSError: if it cannot be written
    """
    # Beside the target, so that the last step is a rename within one file system
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_place(path: Path) -> Path:
    """
    :param path: File to be written; its folder is made if need be
    :return: The file that a link stands for, so that the link stays one
    :raises OSError: if there can be no such file
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError("it is a folder")
    return target


def remove_unfinished(folder: Path, pattern: str) -> None:
    """
    Remove what processes that died have left half-written.

    :param folder: Folder
    :param pattern: Which names the files were to have, for example ``"*.zip"``
    """
    for path in folder.glob(f".{pattern}.*.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no handles of folders
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
