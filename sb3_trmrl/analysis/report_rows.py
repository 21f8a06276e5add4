"""The CSV files of the report of an experiment: comments, a head and rows."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

#: Columns of names, which may be any text
_NAMES = ("environment", "agent", "tasks")


def read_rows(path: Path, **options: Any) -> pd.DataFrame:
    """Read such a file, given further arguments of ``pandas.read_csv``. Names may contain "#", or be "None" or "12"."""
    with path.open(encoding="utf-8") as file:
        n_comments = sum(1 for _ in takewhile(lambda line: line.startswith("#"), file))
    return pd.read_csv(path, skiprows=n_comments, converters=dict.fromkeys(_NAMES, str), **options)
