"""Output of the commands: progress bars and tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
from rich.console import Console
from rich.table import Table
from tqdm import tqdm


@contextmanager
def progress(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and yield the function to call with the number of finished tasks (or runs, or steps)."""
    with tqdm(total=total, desc=name) as bar:
        yield lambda done: bar.update(done - bar.n)


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (), caption: str = ""
) -> None:
    """Print a table. The columns with these indices are aligned to the left, all others to the right."""
    table = Table(title=title, caption=caption or None)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index in left else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_frame(frame: pd.DataFrame, title: str, text: str, units: str) -> None:
    """Print the results of an analysis; columns ``low`` and ``high`` are intervals over these units."""
    caption = f"low and high: 95 % bootstrap interval over {units}" if "low" in frame.columns else ""
    left = [index for index, name in enumerate(frame.columns) if frame[name].dtype == object]
    rows = [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row]
        for row in frame.itertuples(index=False)
    ]
    print_table(title, list(map(str, frame.columns)), rows, left, caption)
    print_text(text)


def print_text(text: str) -> None:
    """Print text, wrapped to the width of the terminal."""
    Console().print(text, highlight=False)
