"""Helpers for all plots: checks of the arguments of plotting functions, colours, labels, intervals and saving."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, StrMethodFormatter

from sb3_trmrl.common.checks import check_instance

#: Colour-blind-safe palette (Okabe and Ito, 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
#: Longest label of a task in characters, and most numbers of a task that are written out
_LONGEST_LABEL, _MOST_NUMBERS = 40, 5


def check_picture(path: Any) -> None:
    """Check that ``path`` is in an existing folder and that Matplotlib writes this kind of file."""
    check_instance("path", path, (str, os.PathLike), "a file")
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    picture = Path(path)
    if picture.suffix and picture.suffix[1:].lower() not in kinds:
        raise ValueError(f"`path` must end with one of {', '.join(f'.{kind}' for kind in kinds)}, got {str(path)!r}")
    if not picture.parent.is_dir():
        raise ValueError(f"`path` must be in an existing folder, got {str(path)!r}")


def check_named(name: str, value: Any, kind: type) -> None:
    """Check that ``value`` is a dictionary with at least one result of this type."""
    check_instance(name, value, Mapping, f"a dictionary of {kind.__name__} by name")
    if not value:
        raise ValueError(f"`{name}` must hold at least one {kind.__name__}, got {value!r}")
    for key, each in value.items():
        check_instance(f"{name}[{key!r}]", each, kind, f"of type {kind.__name__}")


def draw_band(
    axes: Axes, x: np.ndarray, middle: np.ndarray, interval: Any, color: str, band: str | None = None, **line: Any
) -> None:
    """Draw a line, (K,), in a band, (2, K). ``band`` is the label of the band, ``line`` are arguments of the line."""
    axes.plot(x, middle, color=color, **line)
    axes.fill_between(x, *interval, color=color, alpha=0.2, linewidth=0, label=band)


def draw_means(axes: Axes, x: Any, mean: Any, low: Any, high: Any, **style: Any) -> None:
    """Draw means with error bars, (K,) each. Rounding may put the mean of equal values outside its interval."""
    axes.errorbar(x, mean, np.maximum((mean - low, high - mean), 0), **style)


def task_label(task: Any, unit: str = "") -> str:
    """Return a task as a short text, for legends and videos."""
    if isinstance(task, (float, np.floating)):
        text = f"{task:.2f}" if task == 0 or 0.01 <= abs(task) < 1_000 else f"{task:.3g}"
    elif isinstance(task, np.ndarray):
        text = task_label(task.tolist())
    elif isinstance(task, Mapping):
        text = ", ".join(f"{name} {task_label(value)}" for name, value in task.items())
    elif isinstance(task, (tuple, list)):
        shown = [task_label(each) for each in task[:_MOST_NUMBERS]]
        text = f"({', '.join([*shown, '...'] if len(task) > _MOST_NUMBERS else shown)})"
    else:
        text = str(task)
    text = text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 3]}..."
    return f"{text} {unit}".rstrip()


def line_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return colour and line style by name. Up to 21 lines differ; the palette's yellow is too faint for thin lines."""
    looks = [{"color": colour, "linestyle": style} for style, colour in product(("-", "--", ":"), COLOURS[:7])]
    return {name: looks[index % len(looks)] for index, name in enumerate(names)}


def scale_budgets(axes: Axes, budgets: Sequence[float]) -> None:
    """Make the axis of training logarithmic where the longest of these budgets is more than four times the shortest."""
    if budgets and max(budgets) > 4 * min(budgets):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def count_steps(axes: Axes) -> None:
    """Label the axis of training, with ticks such as 500k and 1.5M."""
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def count_episodes(axes: Axes) -> None:
    """Put ticks at whole numbers, even for a single episode."""
    axes.set_xlabel("episode of the trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def finish(figure: Figure, path: str | Path, title: str | None = None, **text: Any) -> None:
    """Add a title, with further arguments of its text, and save the figure."""
    if title is not None:
        figure.suptitle(title, **text)
    # Cut to the drawing, so that no legend outside of the axes is lost
    figure.savefig(path, dpi=150, bbox_inches="tight")
