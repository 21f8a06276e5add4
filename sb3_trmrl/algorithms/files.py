"""Zip files of models."""

import io
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from sb3_trmrl.common.atomic_file import atomic_file, make_place
from sb3_trmrl.common.checks import check_instance


def save_atomically(
    save: Callable[..., None], path: Any, exclude: Iterable[str] | None, include: Iterable[str] | None
) -> None:
    """
    Save a model so that an existing file is replaced only once the new one is complete.

    :param save: SB3's method ``save`` of the model
    :param path: File, or an open file
    :param exclude: As in SB3
    :param include: As in SB3
    :raises TypeError: if ``path`` has the wrong type
    :raises ValueError: if ``path`` cannot be written to
    """
    check_instance("path", path, (str, pathlib.Path, io.BufferedIOBase), "a path or an open file")
    if not isinstance(path, (str, pathlib.Path)):
        save(path, exclude, include)
        return
    target = pathlib.Path(path)
    target = target if target.suffix else target.with_name(f"{target.name}.zip")
    try:
        with atomic_file(make_place(target)) as file:
            save(file, exclude, include)
    except OSError as error:
        raise ValueError(f"cannot save the model to `path` {str(path)!r}: {error}") from error
