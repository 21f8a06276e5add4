"""What all pictures share: where they can be written, and what is drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sb3_trmrl.common.checks import check_instance


def check_picture(path: Any) -> None:
    """
    :param path: What the user gave as the picture to write
    :raises TypeError: if it is no path
    :raises ValueError: if its folder is missing, or Matplotlib writes no such files
    """
    check_instance("path", path, (str, os.PathLike), "a file")
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    picture = Path(path)
    if picture.suffix and picture.suffix[1:].lower() not in kinds:
        raise ValueError(f"`path` must end with one of {', '.join(f'.{kind}' for kind in kinds)}, got {str(path)!r}")
    if not picture.parent.is_dir():
        raise ValueError(f"`path` must be in a folder that is there, got {str(path)!r}")


def check_named(name: str, value: Any, kind: type) -> None:
    """
    :param name: Name of the argument, for the message
    :param value: What the user gave: what is to be drawn, by name
    :param kind: What each has to be
    :raises TypeError: if it is something else
    :raises ValueError: if there is nothing
    """
    check_instance(name, value, Mapping, f"a dictionary of {kind.__name__} by name")
    if not value:
        raise ValueError(f"`{name}` must hold at least one {kind.__name__}, got {value!r}")
    for key, each in value.items():
        check_instance(f"{name}[{key!r}]", each, kind, f"of type {kind.__name__}")
